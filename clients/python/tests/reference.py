"""The libraries that wrote these formats first, in an interpreter of their own: they do not work with the Werkzeug of today's Flask."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from support import REPOSITORY

#: Names an interpreter that has the libraries of tests/requirements.txt.
INTERPRETER = "CARILLON_TEST_PYTHON"

_PROGRAM = """
import base64, json, sys
from secure_cookie.cookie import SecureCookie, url_quote_plus
import secure_cookie.cookie as module

class Doppler(SecureCookie):
    serialization_method = json

def old_quote(text):
    return url_quote_plus(text).replace("~", "%7E")

for line in sys.stdin:
    asked = json.loads(line)
    kind = SecureCookie if asked.get("compact") else Doppler
    secret = base64.b64decode(asked["secret"])
    if "text" in asked:
        try:
            answer = dict(kind.unserialize(asked["text"].encode(), secret))
        except Exception as error:
            answer = {"raised": type(error).__name__}
    else:
        module.url_quote_plus = old_quote if asked.get("old") else url_quote_plus
        answer = kind(asked["values"], secret).serialize(asked.get("expires")).decode()
    print(json.dumps(answer), flush=True)
"""


class Reference:
    """A running interpreter with secure-cookie."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def sign(self, values: dict[str, Any], secret: bytes, **options: Any) -> str:
        """What the library writes: as Doppler does; with ``compact`` in its own way, with ``old`` as Werkzeug before 0.15."""
        return str(self._ask(values=values, secret=secret, **options))

    def read(self, text: str, secret: bytes) -> Any:
        """What the library reads; an empty dictionary if it refuses."""
        return self._ask(text=text, secret=secret)

    def _ask(self, *, secret: bytes, **asked: Any) -> Any:
        import base64

        assert self._process.stdin is not None
        assert self._process.stdout is not None
        line = json.dumps({**asked, "secret": base64.b64encode(secret).decode()})
        self._process.stdin.write(f"{line}\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        assert answer, f"the reference has ended on {line}"
        return json.loads(answer)


@contextmanager
def reference() -> Iterator[Reference]:
    """Starts the interpreter."""
    path = Path(os.environ.get(INTERPRETER, REPOSITORY / ".venv" / "bin" / "python3"))
    assert path.exists(), f"there is no {path}: run `script/bootstrap test`, or name an interpreter with {INTERPRETER}"
    command = [str(path), "-c", _PROGRAM]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        yield Reference(process)
