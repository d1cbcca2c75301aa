"""The blocks of Doppler's README, as they stand in ours, line by line against a real server."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from flask import Flask
from readme import blocks, run
from support import Server, until
from website import serving

README = Path(__file__).resolve().parents[1] / "README.md"

#: Where the README says that Doppler listens, and the application.
DOPPLER, APP = "http://localhost:5000/", "localhost:5001"


class NotSignedError(Exception):
    pass


class Contract:
    """The model of the README's application, which is not in the README."""

    expired: list[str] = []  # noqa: RUF012 - as a table, it belongs to the class.

    class query:
        @staticmethod
        def get(id: str) -> Contract:
            contract = Contract()
            contract.id = id
            return contract

    id = ""

    def expire(self) -> None:
        Contract.expired.append(self.id)


class Clock:
    """The module ``time`` of the README's reader. A job is due in a whole second, up to one after the ten, and then takes a moment."""

    def __init__(self, names: dict[str, Any]) -> None:
        self._names = names

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds)
        job = self._names["doppler"].get_job(self._names["job"].request_id)
        until("the job is done", lambda: job.refresh().state == "done", deadline=3.0)


def test_the_readme_of_doppler(tmp_path: Path) -> None:
    server = Server(tmp_path, ["--no-auth", "--egress-allow", "::1/128"])
    names: dict[str, Any] = {"__name__": "readme", "Contract": Contract, "NotSignedError": NotSignedError}
    names["time"] = Clock(names)
    site, once, cancelled, followed = blocks(README)
    app = Flask("placeholder")
    with serving(app) as url:
        here = site.replace(DOPPLER, f"{server.url}/compat/doppler/").replace(APP, url.partition("//")[2])
        run(here, README, names)
        app.wsgi_app = names["app"]  # type: ignore[method-assign]
        run(once, README, names)
        first = names["job"]
        run(cancelled, README, names)
        assert names["job"].refresh().state == "done"
        run(followed, README, names)
        assert first.refresh().state == "done"
    assert Contract.expired == ["foo", "foo"]
    names["doppler"].close()
    server.stop()
