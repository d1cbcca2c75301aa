"""The command ``carillon`` of the Python package: it runs ``carillon worker``, and the server's program for all other commands.

The server's program has the same name: it is the first ``carillon`` on the PATH that does not start this package.
"""

from __future__ import annotations

import argparse
import importlib
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn, Optional

from carillon.deferrable import Deferrable
from carillon.deferrable.backend import MissingGroup
from carillon.problem import Problem
from carillon.worker import WAIT_SECONDS, Worker

_USAGE = """\
usage: carillon worker MODULE:APP [options]   run deferred functions; `carillon worker --help` has the options
       carillon COMMAND ...                   every other command is that of the server's program, also called carillon, if it is on
                                              the PATH; `carillon help` lists them
"""

#: A script that starts this package names it within this length, in bytes.
_MAX_SCRIPT_BYTES = 64 << 10


class _Unusable(Exception):
    """The command cannot be run; the text is for the user."""


def main(arguments: Optional[Sequence[str]] = None) -> int:
    """Runs a command and returns its exit code: 1 if it failed, 2 if its arguments are wrong."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    try:
        if not given or given[0] in ("-h", "--help"):
            (sys.stdout if given else sys.stderr).write(_USAGE)
            return 0 if given else 2
        if given[0] == "worker":
            return _worker(given[1:])
        _hand_on(given)
    except _Unusable as error:
        sys.stderr.write(f"carillon: {error}\n")
        return 2


def _worker(arguments: Sequence[str]) -> int:
    options = _options().parse_args(arguments)
    logging.basicConfig(level=options.log_level.upper(), format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    # httpx logs every poll and heartbeat at the level INFO.
    logging.getLogger("httpx").setLevel(logging.WARNING)
    sys.path.insert(0, str(options.app_dir))
    app = _app(options.app)
    for module in options.imports:
        _imported(module)
    try:
        worker = Worker(
            app,
            concurrency=options.concurrency,
            lease_seconds=options.lease,
            heartbeat_seconds=options.heartbeat,
            wait_seconds=options.wait,
        )
    except (TypeError, ValueError) as error:
        raise _Unusable(str(error)) from error
    logging.getLogger("carillon.worker").info("working on %s, %d at a time", options.app, options.concurrency)
    try:
        worker.run_until_signal()
    except (Problem, MissingGroup) as error:
        sys.stderr.write(f"carillon worker: {error}\n")
        return 1
    return 0


def _options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("carillon worker", description="Run deferred functions until SIGTERM or SIGINT.")
    parser.add_argument("app", metavar="MODULE:APP", help="where the Deferrable is, such as `shop.tasks:stats`")
    parser.add_argument("--concurrency", type=int, default=1, metavar="N", help="functions at a time, in threads (1)")
    parser.add_argument("--heartbeat", type=float, metavar="SECONDS", help="how often leases are extended (a third of the lease)")
    parser.add_argument("--lease", type=float, metavar="SECONDS", help="after which silence somebody else gets the item (the queue's own)")
    parser.add_argument("--wait", type=float, default=WAIT_SECONDS, metavar="SECONDS", help=f"for items, in one request ({WAIT_SECONDS:g})")
    parser.add_argument(
        "--import", action="append", default=[], dest="imports", metavar="MODULE", help="has functions, too; can be repeated"
    )
    parser.add_argument("--app-dir", type=Path, default=Path.cwd(), metavar="DIR", help="where modules are looked for first (here)")
    parser.add_argument("--log-level", default="info", choices=["debug", "info", "warning", "error"], help="(info)")
    return parser


def _app(place: str) -> Deferrable:
    module, _, path = place.partition(":")
    if not module or not path:
        raise _Unusable(f"the app is named MODULE:APP, such as `shop.tasks:stats`, not {place!r}")
    found: Any = _imported(module)
    for name in path.split("."):
        if not hasattr(found, name):
            raise _Unusable(f"there is no {name!r} in {found!r}")
        found = getattr(found, name)
    if not isinstance(found, Deferrable):
        raise _Unusable(f"{place} is not a Deferrable but of type {type(found).__qualname__}")
    return found


def _imported(module: str) -> Any:
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        # A failed import inside of the module needs its traceback.
        if error.name is None or not (module == error.name or module.startswith(f"{error.name}.")):
            raise
        raise _Unusable(f"there is no module {error.name!r} in {sys.path[0]} or where Python looks") from None


def _hand_on(arguments: Sequence[str]) -> NoReturn:
    program = _server_program(os.environ.get("PATH", os.defpath))
    if program is None:
        raise _Unusable(f"`{arguments[0]}` is a command of the server's program, and there is no such `carillon` on the PATH")
    os.execv(program, [str(program), *arguments])


def _server_program(path: str) -> Optional[Path]:
    candidates = (Path(directory) / "carillon" for directory in path.split(os.pathsep) if directory)
    return next((each for each in candidates if os.access(each, os.X_OK) and each.is_file() and not _is_this(each)), None)


def _is_this(program: Path) -> bool:
    """Whether a program is a script that starts this package, in any environment."""
    try:
        with program.open("rb") as file:
            begin = file.read(_MAX_SCRIPT_BYTES)
    except OSError:
        return False  # Scripts that pip installs are readable.
    return begin.startswith(b"#!") and b"carillon.cli" in begin
