"""A server with TLS whose certificate comes from an authority that only a file names."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from support import REPOSITORY, Server

from carillon import AsyncClient, Client

_FILES = REPOSITORY / "tests" / "tls"

_AUTHORITY = _FILES / "ca.pem"


@pytest.fixture
def url(tmp_path: Path) -> Iterator[str]:
    """The URL of a server whose certificate is for ``localhost``."""
    key = tmp_path / "server.key"
    shutil.copy(_FILES / "server.key", key)
    key.chmod(0o600)
    files = {"CARILLON_SERVER__TLS_CERT": str(_FILES / "server.pem"), "CARILLON_SERVER__TLS_KEY": str(key)}
    server = Server(tmp_path, environment=files)
    yield f"https://localhost:{server.port}"
    server.stop()


def test_authority_is_an_argument_or_comes_from_the_environment(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async def put() -> str:
        async with AsyncClient(url, ca_file=_AUTHORITY) as client:
            return (await client.groups.put("first")).name

    assert asyncio.run(put()) == "first"
    with Client(url, ca_file=str(_AUTHORITY)) as client:
        assert client.groups.get("first").name == "first"
    monkeypatch.setenv("CARILLON_CA_FILE", str(_AUTHORITY))
    with Client(url) as client:
        assert client.groups.get("first").name == "first"


def test_server_that_asks_for_a_certificate_gets_that_of_the_client(tmp_path: Path) -> None:
    key, both = tmp_path / "server.key", tmp_path / "client.pem"
    shutil.copy(_FILES / "server.key", key)
    key.chmod(0o600)
    both.write_text((_FILES / "client.pem").read_text() + (_FILES / "client.key").read_text())
    files = {"TLS_CERT": _FILES / "server.pem", "TLS_KEY": key, "CLIENT_CA": _FILES / "other-ca.pem"}
    server = Server(tmp_path, environment={f"CARILLON_SERVER__{name}": str(file) for name, file in files.items()})
    url = f"https://localhost:{server.port}"
    with Client(url, ca_file=_AUTHORITY, client_cert=both) as client:
        assert client.groups.put("known").name == "known"
    with Client(url, ca_file=_AUTHORITY) as client, pytest.raises(httpx.TransportError):
        client.groups.get("known")
    server.stop()


def test_unknown_authority_is_refused(url: str) -> None:
    with Client(url) as client, pytest.raises(httpx.ConnectError):
        client.groups.get("first")


def test_file_without_a_certificate_is_an_error(url: str) -> None:
    with pytest.raises(OSError):
        Client(url, ca_file=_FILES / "server.key")
