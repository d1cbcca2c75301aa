"""The README's blocks run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from readme import blocks, run
from support import Receiver, Server

from carillon import Client

README = Path(__file__).resolve().parents[1] / "README.md"
REPOSITORYS_README = README.parents[2] / "README.md"


def test_the_blocks_of_the_readme_run(fresh_server: Server, receiver: Receiver, capsys: pytest.CaptureFixture[str]) -> None:
    names: dict[str, Any] = {"__name__": "readme"}
    found = blocks(README)
    assert len(found) == 9
    for block in found:
        here = block.replace("http://127.0.0.1:7070", fresh_server.url).replace("http://127.0.0.1:8000", receiver.url("").rstrip("/"))
        run(here, README, names)
    bells = [arrival.body for arrival in receiver.arrived("/bell", 102)]
    assert sorted(bells) == sorted([b'{"user":7,"loud":true}', b"", *(b"%d" % n for n in range(100))])
    assert receiver.arrived("/report")[0].json() == {"kind": "daily"}
    output = capsys.readouterr().out
    assert "{'resize': 7} 1" in output
    assert " push " in output
    assert "somebody has changed it" in output
    names["doppler"].close()


def test_the_block_of_the_repositorys_readme_runs(fresh_server: Server, receiver: Receiver) -> None:
    with Client(fresh_server.url) as client:
        client.groups.put("reminders")
        names: dict[str, Any] = {"__name__": "readme"}
        (block,) = blocks(REPOSITORYS_README)
        run(block.replace("http://127.0.0.1:7070", fresh_server.url), REPOSITORYS_README, names)
        names["client"].close()
        (job,) = client.jobs.list("reminders")
        assert (job.state, client.jobs.payload(job.id)) == ("scheduled", b'{"user":7}')
