"""What goes wrong, and who is asking."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from urllib.parse import quote

import httpx
import pytest
from support import Answer, Receiver, Server

from carillon import AsyncClient, Client, Problem

#: The administrator's, of which the server takes any 16 visible ASCII characters.
TOKEN = "a/token?with=signs%40@#"


def test_a_problem_says_what_and_where(client: Client, group: str) -> None:
    with pytest.raises(Problem) as caught:
        client.jobs.create(group, url="ftp://example.org")
    problem = caught.value
    assert (problem.status, problem.kind, problem.pointer) == (422, "invalid", "/url")
    assert problem.type == "urn:carillon:problem:invalid"
    assert problem.title
    assert problem.detail
    assert str(problem) == f"422 {problem.title} at /url: {problem.detail}"


def test_an_unknown_group_is_not_found(client: Client) -> None:
    with pytest.raises(Problem) as caught:
        client.jobs.create("nobody-has-this")
    assert (caught.value.status, caught.value.kind, caught.value.pointer) == (404, "not-found", None)


@pytest.mark.parametrize("name", ["a/b", "..", "?x=1#y", "ü", "%2F"])
def test_a_name_is_never_another_path(client: Client, name: str) -> None:
    with pytest.raises(Problem) as caught:
        client.groups.get(name)
    assert f"`{name}`" in caught.value.detail
    with pytest.raises(ValueError, match="empty"):
        client.groups.get("")


def test_an_answer_that_is_not_carillons(receiver: Receiver) -> None:
    receiver.script("/v1/groups/g", Answer(502, b"<html>proxy</html>"), Answer(200, b"<html>"), Answer(200, b'{"name": 1}'))
    receiver.script("/v1/groups", Answer(302, headers={"Location": receiver.url("/elsewhere")}))
    with Client(receiver.url("/")) as client:
        with pytest.raises(Problem, match="<html>proxy</html>") as caught:
            client.groups.get("g")
        assert (caught.value.status, caught.value.kind) == (502, "about:blank")
        for _ in range(2):
            with pytest.raises(Problem, match="cannot be read") as caught:
                client.groups.get("g")
            assert caught.value.status == 200
        with pytest.raises(Problem) as caught:
            list(client.groups.list())
        assert caught.value.status == 302
    assert receiver.all("/elsewhere") == []


def test_the_server_says_when_to_come_again(receiver: Receiver) -> None:
    body = b'{"type": "urn:carillon:problem:unavailable", "title": "Not now", "status": 503, "detail": "later"}'
    receiver.script("/v1/groups/g", Answer(503, body, {"Retry-After": "3"}))
    with Client(receiver.url("/")) as client, pytest.raises(Problem) as caught:
        client.groups.get("g")
    assert (caught.value.kind, caught.value.retry_after) == ("unavailable", 3.0)


def test_a_server_that_is_not_there_is_a_transport_error() -> None:
    with Client("http://127.0.0.1:9", timeout=2) as client, pytest.raises(httpx.TransportError):
        client.groups.get("g")


@pytest.mark.parametrize("url", ["127.0.0.1:7070", "ftp://host", "http://", "http://host/?q=1", "http://host/#f", ""])
def test_an_address_that_is_none(url: str) -> None:
    with pytest.raises(ValueError):
        Client(url)


@pytest.mark.parametrize("timeout", [0, -1, "30s", float("nan")])
def test_a_timeout_that_is_none(timeout: float) -> None:
    with pytest.raises(ValueError, match="timeout"):
        Client("http://127.0.0.1:9", timeout=timeout)


def test_an_address_has_a_prefix(receiver: Receiver) -> None:
    receiver.script("/below/v1/groups/g", Answer(404))
    with Client(receiver.url("/below/")) as client, pytest.raises(Problem):
        client.groups.get("g")
    assert len(receiver.all("/below/v1/groups/g")) == 1


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that asks for tokens."""
    server = Server(tmp_path_factory.mktemp("guarded"), (), {"CARILLON_AUTH__ADMIN_TOKEN": TOKEN})
    yield server
    server.stop()


def test_a_token_goes_as_bearer_or_in_the_address(guarded: Server) -> None:
    with Client(guarded.url, TOKEN) as client:
        assert client.groups.put("g").name == "g"
    token = quote(TOKEN, safe="")
    for user_info in (f":{token}", f"carillon:{token}", f"{token}:"):
        with Client(guarded.url.replace("//", f"//{user_info}@")) as client:
            assert client.groups.get("g").name == "g"
            assert client.url == guarded.url
            with client.events(group="g") as events:
                client.jobs.create("g")
                assert next(events).kind == "push"


def test_nobody_comes_in_without_a_token(guarded: Server) -> None:
    for token in (None, "wrong"):
        with Client(guarded.url, token) as client, pytest.raises(Problem) as caught:
            client.groups.get("g")
        assert (caught.value.status, caught.value.kind) == (401, "unauthenticated")


def test_a_token_reaches_as_far_as_its_role(guarded: Server) -> None:
    with Client(guarded.url, TOKEN) as admin:
        admin.groups.put("h")
        made = admin.tokens.create("producer", name="shop")
        assert made.token is not None
        assert made.token not in repr(made)
        assert [(token.id, token.token) for token in admin.tokens.list() if token.name == "shop"] == [(made.id, None)]
        with Client(guarded.url, made.token) as producer:
            producer.jobs.create("h")
            with pytest.raises(Problem) as caught:
                producer.groups.put("h")
            assert caught.value.status == 403
            renewed = admin.tokens.rotate(made.id, overlap="1h")
            assert renewed.id == made.id
            assert renewed.token not in (None, made.token)
            producer.jobs.create("h")
            admin.tokens.delete(made.id)
            with pytest.raises(Problem) as caught:
                producer.jobs.create("h")
            assert caught.value.status == 401


def test_a_token_for_certain_groups_sees_no_others(guarded: Server) -> None:
    with Client(guarded.url, TOKEN) as admin:
        for group in ("seen", "unseen"):
            admin.groups.put(group)
        made = admin.tokens.create("producer", groups=["seen"], addresses=["127.0.0.0/8"])
        assert (made.groups, made.addresses) == (["seen"], ["127.0.0.0/8"])
        with Client(guarded.url, made.token) as producer:
            assert producer.tokens.whoami().groups == ["seen"]
            producer.jobs.create("seen")
            with pytest.raises(Problem) as caught:
                producer.jobs.create("unseen")
            assert caught.value.status == 404
        assert any(token.operator for token in admin.tokens.list(operator=True))


def test_user_information_is_percent_encoded() -> None:
    seen = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return httpx.Response(404)

    transport = httpx.MockTransport(answer)
    with Client("http://u%40v:p%3Aw%2F@host:1/x", transport=transport) as client, pytest.raises(Problem):
        client.groups.get("g")
    assert seen[0].headers["Authorization"] == httpx.BasicAuth("u@v", "p:w/")._auth_header
    assert str(seen[0].url) == "http://host:1/x/v1/groups/g"


def test_two_credentials_are_one_too_many() -> None:
    for make in (Client, AsyncClient):
        with pytest.raises(ValueError, match="one of them"):
            make("http://:a@host", "b")


@pytest.mark.parametrize(("scheme", "mode"), [("https", ssl.CERT_REQUIRED), ("http", ssl.CERT_NONE)])
def test_certificates_are_verified_where_there_are_any(scheme: str, mode: ssl.VerifyMode) -> None:
    with Client(f"{scheme}://example.org") as client:
        transport = client._http._transport
        assert isinstance(transport, httpx.HTTPTransport)
        context = transport._pool._ssl_context
        assert context is not None
        assert context.verify_mode == mode
