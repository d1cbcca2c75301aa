"""The bill of materials is valid, and has each crate of the program."""

from __future__ import annotations

import json
import subprocess

from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from tools import HERE

ROOT = HERE.parent.parent

#: A target for which everything is written down; nothing is built.
TARGET = "x86_64-unknown-linux-gnu"


def _run(*command: str) -> str:
    return subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout


def test_bill_of_materials_is_valid_and_complete() -> None:
    text = _run("script/sbom", TARGET)
    errors = JsonStrictValidator(SchemaVersion.V1_6).validate_str(text)
    assert errors is None, errors
    document = json.loads(text)
    components = {f"{part['name']}@{part['version']}": part for part in document["components"]}

    # What cargo itself says that the program is built from.
    tree = _run(
        *("cargo", "tree", "--locked", "--package", "carillon", "--target", TARGET),
        *("--edges", "normal,build", "--prefix", "none", "--format", "{p}"),
    )
    crates = {"@".join(line.replace(" v", " ").split()[:2]) for line in tree.splitlines() if line}
    program = document["metadata"]["component"]
    missing = crates - set(components) - {f"{program['name']}@{program['version']}"}
    assert not missing, missing

    # The plugins that are embedded in it, and the crates of theirs.
    assert {"carillon-backoff", "werkzeug-cookie", "carillon-policy-sdk"} <= {part["name"] for part in document["components"]}
    # Tests are no part of it.
    assert not {"proptest", "carillon-testing"} & {part["name"] for part in document["components"]}
    for part in components.values():
        assert part["licenses"], part
        is_own = "hashes" not in part
        assert not is_own or not part.get("externalReferences"), part

    references = {part["bom-ref"] for part in components.values()} | {program["bom-ref"]}
    for entry in document["dependencies"]:
        assert {entry["ref"], *entry["dependsOn"]} <= references, entry
    assert _run("script/sbom", TARGET) == text, "the same commit gives the same list"
