"""Programs that read the description."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Optional

HERE = Path(__file__).resolve().parent

#: Where npm puts programs.
_NODE_PROGRAMS = HERE / "node_modules" / ".bin"

#: No program may ask elsewhere for news of itself, or tell anybody that it ran.
_QUIET = {"REDOCLY_TELEMETRY": "off", "REDOCLY_SUPPRESS_UPDATE_NOTICE": "true", "NO_COLOR": "1"}

#: How long a program may take, in seconds.
_LONGEST = 600


def run(command: Sequence[str], environment: Optional[Mapping[str, str]] = None) -> str:
    """What the program says; fails the test with it if the program fails."""
    path = os.pathsep.join([str(_NODE_PROGRAMS), str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    done = subprocess.run(
        command,
        cwd=HERE,
        env={**os.environ, "PATH": path, **_QUIET, **(environment or {})},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=_LONGEST,
        check=False,
    )
    assert done.returncode == 0, f"{' '.join(command)} ended with {done.returncode}:\n{done.stdout}"
    return done.stdout
