"""The server that the tests share, and its two descriptions in files."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from support import Receiver, Server

#: The two forms of the description.
DOCUMENTS = ("openapi.json", "openapi-3.0.json")


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("server"))
    yield server
    server.stop()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    receiver = Receiver()
    yield receiver
    receiver.close()


@pytest.fixture(scope="session")
def documents(server: Server, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The files of the descriptions by their names, as the server gives them."""
    directory = tmp_path_factory.mktemp("documents")
    files = {}
    for name in DOCUMENTS:
        with urllib.request.urlopen(f"{server.url}/{name}") as answer:
            document = json.load(answer)
        files[name] = directory / name
        files[name].write_text(json.dumps(document, indent=2))
    return files
