"""Who can have a callback run: the server with what the application signed, for this endpoint and in time. Nobody else."""

from __future__ import annotations

import base64
import json
import logging
import time
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from flask import Flask, Response
from support import Answer, Receiver

from carillon.flask import Doppler
from carillon.signing import sign, verify

SECRET = "foo"


class Shop:
    """An application with three callbacks, and a receiver in the place of the server, which shows what it is sent."""

    def __init__(self, receiver: Receiver, allow_unsigned: bool = False, **config: Any) -> None:
        self.calls: list[Any] = []
        self.receiver = receiver
        self.app = Flask("shop")
        self.app.config.update(SERVER_NAME="shop.example:81", SECRET_KEY=SECRET)
        self.app.config.update(config)
        self.doppler = Doppler(receiver.url("/"), self.app, allow_unsigned=allow_unsigned)
        receiver.script("/", Answer(200, json.dumps(ANSWER).encode()))

        @self.doppler.listen("/expire", max_retries=5, retry_delay=10)
        def expire(id: Any) -> None:
            self.calls.append(("expire", id))

        @self.doppler.listen("/revive")
        def revive(id: Any) -> None:
            self.calls.append(("revive", id))

        @self.doppler.listen("/sweep")
        def sweep() -> None:
            self.calls.append("sweep")

        self.expire, self.revive, self.sweep = expire, revive, sweep

    def posted(self) -> dict[str, Any]:
        """What the server was asked for last."""
        document: dict[str, Any] = self.receiver.all("/")[-1].json()
        return document

    def call(self, path: str, body: Any, **options: Any) -> Any:
        return self.app.test_client().post(f"http://shop.example:81/_callbacks{path}", data=body, **options)

    def message(self) -> str:
        self.expire.delay(10, id="foo")
        return str(self.posted()["message"])


ANSWER = {"request_id": "r", "status": "early", "run_at": 1, "scheduled_at": 1, "last_retry": None, "retries_left": 5}


@pytest.fixture
def shop(receiver: Receiver) -> Iterator[Shop]:
    shop = Shop(receiver)
    yield shop
    shop.doppler.close()


def test_what_the_server_is_told(shop: Shop) -> None:
    before = time.time()
    shop.expire.delay(10, id="foo")
    posted = shop.posted()
    assert posted == {
        "callback_url": "http://shop.example:81/_callbacks/expire",
        "message": posted["message"],
        "run_at": posted["run_at"],
        "max_retries": 5,
        "retry_delay": 10,
    }
    assert before + 10 <= posted["run_at"] <= time.time() + 11


def test_a_signed_body_runs_its_own_endpoint_only(shop: Shop) -> None:
    message = shop.message()
    assert shop.call("/expire", message).status_code == 204
    assert shop.calls == [("expire", "foo")]
    assert shop.call("/revive", message).status_code == 400
    assert shop.call("/sweep", message).status_code == 400
    assert shop.calls == [("expire", "foo")]


@pytest.mark.parametrize("content_type", ["application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "text/plain", None])
def test_the_content_type_does_not_matter(shop: Shop, content_type: Any) -> None:
    assert shop.call("/expire", shop.message(), content_type=content_type).status_code == 204
    assert len(shop.calls) == 1


BAD_BODIES: list[Any] = [
    b"",
    b"?",
    b"{}",
    b'{"id": "foo"}',
    b"id=foo",
    b"\xff\x00\xfe",
    b"=" * 100_000,
    sign({"id": "foo", "@route": "/_callbacks/expire"}, "another secret"),
    sign({"id": "foo"}, SECRET),
    sign({"id": "foo", "@route": "/_callbacks/revive"}, SECRET),
    sign({"id": "foo", "@route": None}, SECRET),
    sign({"id": "foo", "@route": "/_callbacks/expire"}, SECRET, expires=1_000_000_000),
    sign({"@route": "/_callbacks/expire"}, SECRET),
    sign({"id": "foo", "more": 1, "@route": "/_callbacks/expire"}, SECRET),
    sign({"ID": "foo", "@route": "/_callbacks/expire"}, SECRET),
    sign({"id": "foo", "self": 1, "@route": "/_callbacks/expire"}, SECRET),
    sign({}, SECRET),
]


@pytest.mark.parametrize("body", BAD_BODIES, ids=range(len(BAD_BODIES)))
def test_every_other_body_is_a_400_and_nothing_runs(shop: Shop, body: Any) -> None:
    answer = shop.call("/expire", body)
    assert answer.status_code == 400
    assert answer.json["error"] in ("Unsign error", "Argument mismatch")
    assert shop.call("/sweep", body).status_code == 400
    assert shop.calls == []


def test_a_handler_without_arguments_needs_a_signature_too(shop: Shop) -> None:
    """Doppler's own helper took whatever was not signed for an empty message, and ran."""
    for body in (b"", b"nonsense", b"bm9uc2Vuc2U=?a=MQ=="):
        assert shop.call("/sweep", body).status_code == 400
    assert shop.calls == []
    shop.sweep.delay(0)
    assert shop.call("/sweep", shop.posted()["message"]).status_code == 204
    assert shop.calls == ["sweep"]


def test_an_expiry_cannot_be_swallowed(shop: Shop) -> None:
    """With a bar for an ampersand the MAC is the same, and Werkzeug's reader loses the items behind it."""
    text = sign({"@route": "/_callbacks/sweep"}, SECRET, expires=time.time() - 1)
    assert shop.call("/sweep", text.replace("&", "|")).status_code == 400
    assert shop.calls == []


def test_other_methods_are_not_taken(shop: Shop) -> None:
    client = shop.app.test_client()
    for method in ("GET", "PUT", "DELETE", "PATCH"):
        answer = client.open("http://shop.example:81/_callbacks/expire", method=method, data=shop.message())
        assert answer.status_code == 405
    assert shop.calls == []


def test_an_error_handler_does_not_turn_a_refusal_into_a_success(shop: Shop) -> None:
    shop.app.register_error_handler(400, lambda error: ("fine", 200))
    shop.app.register_error_handler(Exception, lambda error: ("fine", 200))
    assert shop.call("/expire", b"nonsense").status_code == 400


def test_a_body_is_good_until_after_the_last_retry(shop: Shop) -> None:
    message = shop.message()
    last = shop.posted()["run_at"] + 5 * (10 + 30) + 30
    assert verify(message, SECRET, now=last + 86_400)["id"] == "foo"
    with pytest.raises(ValueError, match="no longer good"):
        verify(message, SECRET, now=last + 86_401)


@pytest.mark.parametrize("leeway", [60, timedelta(minutes=1)])
def test_the_leeway_is_chosen(receiver: Receiver, leeway: Any) -> None:
    shop = Shop(receiver)
    shop.doppler.leeway = Doppler(leeway=leeway).leeway
    message = shop.message()
    with pytest.raises(ValueError, match="no longer good"):
        verify(message, SECRET, now=shop.posted()["run_at"] + 5 * 40 + 30 + 61)
    shop.doppler.close()


def test_expiry_is_turned_off(receiver: Receiver) -> None:
    shop = Shop(receiver)
    shop.doppler.leeway = Doppler(leeway=None).leeway
    assert verify(shop.message(), SECRET, now=1e12)["id"] == "foo"
    shop.doppler.close()


def test_a_secret_is_rotated(shop: Shop) -> None:
    message = shop.message()
    shop.app.config.update(SECRET_KEY="new")
    assert shop.call("/expire", message).status_code == 400
    shop.app.config.update(SECRET_KEY_FALLBACKS=["older", SECRET])
    assert shop.call("/expire", message).status_code == 204
    assert verify(shop.message(), "new")["id"] == "foo"


def test_arguments_are_not_encrypted_but_cannot_be_changed(shop: Shop) -> None:
    message = shop.message()
    assert base64.b64decode(message.partition("id=")[2].partition("&")[0]) == b'"foo"'
    other = base64.b64encode(b'"bar"').decode()
    assert shop.call("/expire", message.replace(base64.b64encode(b'"foo"').decode(), other)).status_code == 400
    assert shop.calls == []


@pytest.mark.parametrize("secret", [None, ""])
def test_an_application_without_a_secret_is_refused(receiver: Receiver, secret: Any) -> None:
    app = Flask("shop")
    app.config.update(SERVER_NAME="shop.example:81", SECRET_KEY=secret)
    doppler = Doppler(receiver.url("/"))
    callback = doppler.listen("/expire")(lambda: None)
    with pytest.raises(RuntimeError, match=r"shop has no SECRET_KEY.*allow_unsigned=True"):
        doppler.register(app)
    with pytest.raises(RuntimeError, match="SECRET_KEY"):
        Doppler(receiver.url("/"), app)
    assert "/_callbacks/expire" not in [rule.rule for rule in app.url_map.iter_rules()]
    with pytest.raises(RuntimeError, match="no application is registered"):
        callback.delay(0)
    doppler.close()


def test_a_secret_that_is_lost_later_opens_nothing(shop: Shop) -> None:
    shop.app.config.update(SECRET_KEY=None)
    with pytest.raises(RuntimeError, match="SECRET_KEY"):
        shop.expire.delay(0, id="foo")
    assert shop.call("/expire", b'{"id": "foo"}').status_code == 500
    assert shop.calls == []


def test_without_a_secret_bodies_are_json_and_a_warning_is_logged(receiver: Receiver, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "carillon.flask"):
        shop = Shop(receiver, allow_unsigned=True, SECRET_KEY=None)
        assert json.loads(shop.message()) == {"id": "foo"}
        assert shop.call("/expire", shop.message()).status_code == 204
    assert [record.message for record in caplog.records] == [
        "shop has no SECRET_KEY: its callbacks are not signed, and anybody who reaches them can call them"
    ]
    assert shop.calls == [("expire", "foo")]
    for body in (b"", b"[]", b"null", b"{}", b'{"id": 1, "more": 2}', b"{", b"[" * 100_000, b"\xff"):
        assert shop.call("/expire", body).status_code == 400
    assert len(shop.calls) == 1
    shop.doppler.close()


def test_a_secret_that_was_added_later_is_demanded(receiver: Receiver) -> None:
    shop = Shop(receiver, allow_unsigned=True, SECRET_KEY=None)
    message = shop.message()
    shop.app.config.update(SECRET_KEY=SECRET)
    assert shop.call("/expire", message).status_code == 400
    shop.doppler.close()


@pytest.mark.parametrize(
    ("returned", "status", "body"),
    [
        (None, 204, b""),
        ("done", 200, b"done"),
        (("again", 503), 503, b"again"),
        (("made", 201, {"X-A": "1"}), 201, b"made"),
        ({"ok": True}, 200, b'{"ok":true}\n'),
        (Response("r", 202), 202, b"r"),
    ],
)
def test_a_callback_returns_what_a_view_can(shop: Shop, returned: Any, status: int, body: bytes) -> None:
    callback = shop.doppler.listen("/returns")(lambda: returned)
    callback.delay(0)
    answer = shop.call("/returns", shop.posted()["message"])
    assert (answer.status_code, answer.data) == (status, body)
