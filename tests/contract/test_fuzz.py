"""What schemathesis makes of the description: the server's answers are as they are described, whatever it is asked."""

from __future__ import annotations

import os
from pathlib import Path

from support import Server
from tools import HERE, run

#: How many requests each operation gets from chance alone; a nightly run sets more.
_EXAMPLES = os.environ.get("CARILLON_FUZZ_EXAMPLES", "5")

#: Seconds that all of it may take: what is left then is not tried.
_TIME = os.environ.get("CARILLON_FUZZ_SECONDS", "90")

#: Of an administrator who is an operator, so that no route is closed.
_TOKEN = "contract-token-of-the-first-administrator"


def test_answers_are_as_they_are_described(documents: dict[str, Path], tmp_path: Path) -> None:
    server = Server(tmp_path, (), {"CARILLON_AUTH__ADMIN_TOKEN": _TOKEN})
    try:
        _fuzz(server, documents["openapi.json"])
    finally:
        server.stop()


def _fuzz(server: Server, document: Path) -> None:
    command = ["schemathesis", "--config-file", str(HERE / "schemathesis.toml"), "run", str(document)]
    command += ["--url", server.url, "--phases", "examples,coverage,fuzzing", "--max-examples", _EXAMPLES, "--max-time", _TIME]
    command += ["--header", f"Authorization: Bearer {_TOKEN}", "--generation-database", "none", "--no-color", "--request-timeout", "20"]
    # On a machine that has much else to do, making data takes as long as it takes.
    run([*command, "--suppress-health-check", "all"], {"SCHEMATHESIS_HOOKS": "fuzz_hooks", "PYTHONPATH": str(HERE)})
