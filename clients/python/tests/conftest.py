"""The server and the receiver that the tests share."""

from __future__ import annotations

import itertools
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from support import Receiver, Server

from carillon import Client, PolicyPlugin

_NUMBERS = itertools.count(1)

#: A test that takes longer than this hangs, in seconds.
_LONGEST = 60


@pytest.fixture(autouse=True)
def _deadline() -> Iterator[None]:
    """Fails a test that waits for what never comes."""

    def ring(*_: object) -> None:
        # No error that a client would take for a connection that broke.
        pytest.fail(f"the test hangs: {_LONGEST} s")

    before = signal.signal(signal.SIGALRM, ring)
    signal.alarm(_LONGEST)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server without tokens that all tests share; what they make has names of its own (``name``)."""
    server = Server(tmp_path_factory.mktemp("server"))
    yield server
    server.stop()


@pytest.fixture
def fresh_server(tmp_path: Path) -> Iterator[Server]:
    """A server for this test only, which it may kill and start again."""
    server = Server(tmp_path)
    yield server
    server.stop()


@pytest.fixture
def client(server: Server) -> Iterator[Client]:
    with Client(server.url) as client:
        yield client


@pytest.fixture
def name() -> str:
    """A name that no other test has."""
    return f"n{next(_NUMBERS)}"


@pytest.fixture
def group(client: Client, name: str) -> str:
    """A group of this test's own, which tries again at once and often."""
    retry: PolicyPlugin = {"plugin": "backoff", "config": {"kind": "fixed", "base": "10ms", "max_attempts": 5}}
    return client.groups.put(name, retry=retry).name


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    """A receiver of this test's own."""
    receiver = Receiver()
    yield receiver
    receiver.close()
