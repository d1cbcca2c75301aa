"""The example as its README says: the server and the application, each in a process of its own."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
from support import DEADLINE, Server, until

APP = Path(__file__).resolve().parents[1] / "app.py"


class Site:
    """The application, as it runs."""

    def __init__(self, server: Server, **environment: str) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = str(free.getsockname()[1])
        known = {name: value for name, value in os.environ.items() if name in ("PATH", "VIRTUAL_ENV", "PYTHONPATH", "HOME")}
        environment = {**known, "PORT": port, "DOPPLER_URL": f"{server.url}/compat/doppler", **environment}
        command = [sys.executable, str(APP)]
        self._process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self._http = httpx.Client(base_url=f"http://localhost:{port}")
        until("the application answers", self._answers)

    def _answers(self) -> bool:
        assert self._process.poll() is None, "the application has ended"
        with suppress(httpx.TransportError):
            return self._http.get("/contracts/none").status_code == 404
        return False

    def ask(self, method: str, path: str, body: bytes = b"") -> Any:
        answer = self._http.request(method, path, content=body)
        answer.raise_for_status()
        return answer.json()

    def refuses(self, path: str, body: bytes) -> int:
        return self._http.post(path, content=body).status_code

    def close(self) -> None:
        self._http.close()
        self._process.terminate()
        self._process.wait(DEADLINE)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("server"), ["--no-auth", "--egress-allow", "::1/128"])
    yield server
    server.stop()


@pytest.fixture(scope="module")
def site(server: Server) -> Iterator[Site]:
    site = Site(server, LIFETIME="0.2", RETRY_DELAY="0")
    yield site
    site.close()


def test_a_signed_contract_expires(server: Server) -> None:
    site = Site(server, LIFETIME="1")
    made = site.ask("POST", "/contracts/7")
    assert made["state"] == "early"
    assert site.ask("POST", "/contracts/7/sign") == {"expired": False, "signed": True, "tries": 0}
    until("it expires", lambda: site.ask("GET", "/contracts/7")["expired"])
    until("the job is done", lambda: site.ask("GET", f"/jobs/{made['job']}")["state"] == "done")
    assert site.ask("GET", "/contracts/7") == {"expired": True, "signed": True, "tries": 1}
    assert site.ask("DELETE", f"/jobs/{made['job']}") == {"was_cancelled": False}
    site.close()


def test_an_unsigned_contract_is_tried_once_and_five_times_more(site: Site) -> None:
    job = site.ask("POST", "/contracts/unsigned")["job"]
    until("it is given up", lambda: site.ask("GET", f"/jobs/{job}")["state"] == "done")
    assert site.ask("GET", "/contracts/unsigned") == {"expired": False, "signed": False, "tries": 6}


def test_a_contract_that_is_signed_between_two_tries_expires(server: Server) -> None:
    site = Site(server, LIFETIME="0", RETRY_DELAY="2")
    job = site.ask("POST", "/contracts/late")["job"]

    def failed() -> Any:
        look = site.ask("GET", f"/jobs/{job}")
        return look if look["last_retry"] is not None else None

    assert until("a try has failed", failed)["retries_left"] == 4
    site.ask("POST", "/contracts/late/sign")
    until("it expires", lambda: site.ask("GET", "/contracts/late")["expired"])
    assert site.ask("GET", "/contracts/late")["tries"] == 2
    site.close()


def test_a_cancelled_job_never_runs(server: Server) -> None:
    site = Site(server, LIFETIME="1")
    cancelled = site.ask("POST", "/contracts/cancelled")["job"]
    assert site.ask("DELETE", f"/jobs/{cancelled}") == {"was_cancelled": True}
    assert site.ask("DELETE", f"/jobs/{cancelled}") == {"was_cancelled": False}
    later = site.ask("POST", "/contracts/later")["job"]
    site.ask("POST", "/contracts/later/sign")
    until("the later one is done", lambda: site.ask("GET", f"/jobs/{later}")["state"] == "done")
    assert site.ask("GET", "/contracts/cancelled")["tries"] == 0
    assert site.ask("GET", f"/jobs/{cancelled}")["state"] == "done"
    site.close()


def test_a_stranger_cannot_expire_a_contract(site: Site) -> None:
    for body in (b"", b'{"id": "7"}', b"AAAAAAAAAAAAAAAAAAAAAAAAAAA=?id=Ijci"):
        assert site.refuses("/_callbacks/expire", body) == 400
