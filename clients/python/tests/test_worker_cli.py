"""The command ``carillon``: what it says about a worker that cannot be, and what it leaves to the server's program."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Optional

import pytest
from support import DEADLINE, binary

#: What pip writes for the command.
SCRIPT = """#!{python}
import sys
from carillon.cli import main
if __name__ == "__main__":
    sys.exit(main())
"""


def run(*arguments: str, path: Optional[Path] = None, cwd: Optional[Path] = None, command: Optional[Path] = None) -> tuple[int, str, str]:
    """Exit code, output and errors of a command, by default ``python -m carillon``."""
    program = [str(command)] if command else [sys.executable, "-m", "carillon"]
    environment = {**os.environ, "PATH": str(path) if path else ""}
    done = subprocess.run([*program, *arguments], cwd=cwd, env=environment, capture_output=True, text=True, timeout=DEADLINE, check=False)
    return done.returncode, done.stdout, done.stderr


@pytest.fixture
def server_program(tmp_path: Path) -> Path:
    """A directory with the server's program under its name."""
    directory = tmp_path / "server"
    directory.mkdir()
    (directory / "carillon").symlink_to(binary())
    return directory


@pytest.fixture
def python_script(tmp_path: Path) -> Path:
    """A directory with the command of this package, as another environment would have it."""
    directory = tmp_path / "python"
    directory.mkdir()
    (directory / "carillon").write_text(SCRIPT.format(python=sys.executable))
    (directory / "carillon").chmod(0o755)
    return directory


def test_without_a_command_it_says_what_there_is() -> None:
    code, out, err = run()
    assert (code, out) == (2, "")
    assert "carillon worker MODULE:APP" in err
    code, out, err = run("--help")
    assert (code, err) == (0, "")
    assert "server's program" in out


def test_the_options_of_a_worker() -> None:
    code, out, _ = run("worker", "--help")
    assert code == 0
    for option in ("--concurrency", "--heartbeat", "--lease", "--wait", "--import", "--app-dir", "--log-level"):
        assert option in out


def test_every_other_command_is_the_server_programs(server_program: Path) -> None:
    code, out, _ = run("lease", "--help", path=server_program)
    assert code == 0
    assert "Lease jobs without a URL" in out
    code, out, err = run("no-such-command", path=server_program)
    assert code == 2
    assert "unrecognized subcommand 'no-such-command'" in err


def test_without_the_servers_program_it_says_so(tmp_path: Path) -> None:
    for path in (None, tmp_path):
        code, out, err = run("group", "list", path=path)
        assert (code, out) == (2, "")
        assert "`group` is a command of the server's program" in err


def test_it_never_hands_on_to_itself(python_script: Path, server_program: Path) -> None:
    command = python_script / "carillon"
    code, _, err = run("group", "list", path=python_script, command=command)
    assert code == 2
    assert "there is no such `carillon` on the PATH" in err
    both = Path(f"{python_script}{os.pathsep}{server_program}")
    code, out, _ = run("lease", "--help", path=both, command=command)
    assert code == 0
    assert "Lease jobs without a URL" in out


def test_the_command_is_installed_with_the_package() -> None:
    code, out, _ = run("worker", "--help", command=Path(sys.executable).parent / "carillon")
    assert code == 0
    assert "MODULE:APP" in out


@pytest.mark.parametrize(
    ("app", "why"),
    [
        ("shop", "the app is named MODULE:APP"),
        (":app", "the app is named MODULE:APP"),
        ("shop:", "the app is named MODULE:APP"),
        ("no.such.module:app", "there is no module 'no' in"),
        ("shop.gone:app", "there is no module 'shop.gone'"),
        ("shop:gone", "there is no 'gone' in <module 'shop'"),
        ("shop:app.gone", "there is no 'gone' in <object"),
        ("shop:app", "shop:app is not a Deferrable but of type object"),
    ],
)
def test_an_app_that_is_none_is_told_in_a_line(tmp_path: Path, app: str, why: str) -> None:
    (tmp_path / "shop.py").write_text("app = object()\n")
    code, out, err = run("worker", app, cwd=tmp_path)
    assert (code, out) == (2, "")
    assert err.startswith("carillon: ")
    assert why in err
    assert err.count("\n") == 1


def test_a_module_that_fails_shows_where(tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text("import carillon_not_there\n")
    code, _, err = run("worker", "shop:app", cwd=tmp_path)
    assert code == 1
    assert "import carillon_not_there" in err
    assert "Traceback" in err


def test_numbers_that_cannot_be_meant_are_told_in_a_line(tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text(
        "from carillon import Client\n"
        "from carillon.deferrable import Deferrable\n"
        "from carillon.deferrable.backend import CarillonBackendFactory\n"
        "app = Deferrable(CarillonBackendFactory(Client('http://127.0.0.1:9')).create_backend_for_group('g'))\n"
    )
    for options, why in [(("--lease", "5", "--heartbeat", "5"), "before the lease"), (("--concurrency", "0"), "at least 1")]:
        code, _, err = run("worker", "shop:app", *options, cwd=tmp_path)
        assert code == 2
        assert why in err
        assert err.count("\n") == 1
    code, _, err = run("worker", "shop:app", "--concurrency", "many", cwd=tmp_path)
    assert code == 2
    assert "invalid int value" in err


def test_modules_are_looked_for_in_app_dir(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "shop.py").write_text("app = 17\n")
    _, _, err = run("worker", "shop:app", "--app-dir", "elsewhere", cwd=tmp_path)
    assert "shop:app is not a Deferrable but of type int" in err
