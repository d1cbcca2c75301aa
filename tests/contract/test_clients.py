"""Clients that are generated from the description work with a real server."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from support import Receiver, Server
from tools import HERE, run

_CLIENTS = HERE / "clients"


def test_python_client_works(server: Server, receiver: Receiver, documents: dict[str, Path], tmp_path: Path) -> None:
    generator = ["openapi-python-client", "generate", "--path", str(documents["openapi.json"]), "--meta", "none", "--fail-on-warning"]
    run([*generator, "--output-path", str(tmp_path / "carillon_client"), "--config", str(_CLIENTS / "python.yaml")])
    use = str(_CLIENTS / "use_python.py")
    run(
        [sys.executable, "-m", "mypy", "--strict", "--follow-imports=silent", "--cache-dir", str(tmp_path / "mypy"), use],
        {"MYPYPATH": str(tmp_path)},
    )
    run([sys.executable, use, server.url, receiver.url("/python")], {"PYTHONPATH": str(tmp_path)})
    assert receiver.all("/python")


def test_typescript_client_works(server: Server, receiver: Receiver, documents: dict[str, Path], tmp_path: Path) -> None:
    # Below the packages, so that the compiler and Node find them.
    build = _CLIENTS / "build"
    shutil.rmtree(build, ignore_errors=True)
    build.mkdir()
    run(["openapi-typescript", str(documents["openapi.json"]), "--output", str(build / "schema.d.ts")])
    shutil.copy(_CLIENTS / "use_typescript.ts", build / "use.ts")
    strict = ["--strict", "--noUncheckedIndexedAccess", "--exactOptionalPropertyTypes", "--types", "node"]
    run(["tsc", *strict, "--module", "nodenext", "--target", "es2022", "--outDir", str(build), str(build / "use.ts")])
    run(["node", str(build / "use.js"), server.url, receiver.url("/typescript")])
    assert receiver.all("/typescript")
