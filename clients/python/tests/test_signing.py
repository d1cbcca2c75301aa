"""Signed text, compared with the library that invented it."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import pickle
import random
from collections.abc import Iterator
from typing import Any, Callable

import pytest
from reference import Reference, reference

from carillon.signing import BadSignature, sign, verify

SECRETS = [b"foo", "Schlüssel 🔑".encode(), b"\x00\xff", b"k" * 64, b"k" * 65, b"x" * 500]

VALUES: list[dict[str, Any]] = [
    {"id": "foo"},
    {"user": 42, "text": "grüße & co = ok? 🔔", "nested": {"list": [1, None, True], "f": 1.5}, "a b": "c"},
    {"ключ": 1, "\U0001f514": 2, "\uffee": 3, "": 4, "a+b": 5, "a|b": 6, "a&b=c?d": 7, "%41": 8, "~tilde~": 9},
    {"float": 0.1, "large": 1e300, "tiny": 5e-324, "int": 2**70, "negative": -0.0, "exponent": 1e16},
    {"quotes": '"\\/\b\f\n\r\t\u2028', "lone": "\ud800", "null": None, "list": [], "object": {}},
    {" leading": " ", "trailing ": "\u00a0", "A": 1, "_": 2, "a": 3, "z": 4, "é": 5},
    {"deep": [[[[[[[[{"x": [{}]}]]]]]]]]},
]


@pytest.fixture(scope="module")
def original() -> Iterator[Reference]:
    with reference() as original:
        yield original


def random_values(rng: random.Random) -> dict[str, Any]:
    def text() -> str:
        ranges = [(32, 127), (160, 0x250), (0x400, 0x500), (0x2028, 0x202A), (0xFF00, 0xFFEF), (0x1F300, 0x1F600)]
        return "".join(chr(rng.randrange(*rng.choice(ranges))) for _ in range(rng.randrange(9)))

    def value(depth: int) -> Any:
        makers: list[Callable[[], Any]] = [text, lambda: rng.randrange(-(2**66), 2**66), lambda: rng.uniform(-1e9, 1e9), lambda: None]
        if depth:
            makers.append(lambda: [value(depth - 1) for _ in range(rng.randrange(4))])
            makers.append(lambda: {text(): value(depth - 1) for _ in range(rng.randrange(4))})
        return rng.choice(makers)()

    return {text(): value(3) for _ in range(rng.randrange(1, 6))}


def cases() -> list[dict[str, Any]]:
    rng = random.Random(20261121)
    return VALUES + [random_values(rng) for _ in range(300)]


def test_both_write_the_same_bytes_and_read_each_other(original: Reference) -> None:
    for number, values in enumerate(cases()):
        secret = SECRETS[number % len(SECRETS)]
        text = sign(values, secret)
        assert text == original.sign(values, secret)
        assert original.read(text, secret) == values == verify(text, secret)


def test_other_spellings_of_the_library_are_read(original: Reference) -> None:
    for values in cases():
        assert verify(original.sign(values, b"s", compact=True), b"s") == values
        assert verify(original.sign(values, b"s", old=True), b"s") == values
    assert "%7Etilde%7E=" in original.sign(VALUES[2], b"s", old=True)


def test_expiry_is_that_of_the_library(original: Reference) -> None:
    for values in VALUES:
        text = sign(values, b"s", expires=4_000_000_000)
        assert text == original.sign(values, b"s", expires=4_000_000_000)
        assert original.read(text, b"s") == values
        assert verify(text, b"s", now=4_000_000_000) == values
        with pytest.raises(BadSignature, match="no longer"):
            verify(text, b"s", now=4_000_000_000.001)
        past = original.sign(values, b"s", expires=1_000_000_000)
        assert original.read(past, b"s") == {}
        with pytest.raises(BadSignature, match="no longer"):
            verify(past, b"s")


def test_an_expiry_is_rounded_up() -> None:
    assert verify(sign({"a": 1}, "s", expires=100.2), "s", now=101) == {"a": 1}


def test_the_wrong_secret_is_refused(original: Reference) -> None:
    for values in VALUES:
        text = sign(values, b"right")
        assert original.read(text, b"wrong") == {}
        with pytest.raises(BadSignature):
            verify(text, b"wrong")


def test_every_changed_character_is_refused() -> None:
    text = sign({"user": 7, "list": [1, 2]}, "secret", expires=4_000_000_000)
    for place in range(len(text)):
        for other in "aA0=&?|%+~/ é\n":
            changed = text[:place] + other + text[place + 1 :]
            if changed != text and not _is_same_mac(changed, text):
                with pytest.raises(BadSignature):
                    verify(changed, "secret")


def _is_same_mac(one: str, other: str) -> bool:
    """The last character of the base64 of 20 bytes has two bits that mean nothing."""
    try:
        macs = [base64.b64decode(text.partition("?")[0], validate=True) for text in (one, other)]
    except ValueError:
        return False
    return macs[0] == macs[1] and one.partition("?")[2] == other.partition("?")[2]


def test_every_cut_text_is_refused() -> None:
    text = sign({"user": 7, "list": [1, 2]}, "secret")
    for place in range(len(text)):
        with pytest.raises(BadSignature):
            verify(text[:place], "secret")
        with pytest.raises(BadSignature):
            verify(text[place + 1 :], "secret")


def test_items_cannot_be_swallowed(original: Reference) -> None:
    """The MAC of ``a|b`` as one item is that of the items ``a`` and ``b``. Werkzeug falls for it."""
    text = sign({"A": 7, "b": 8}, b"s", expires=1_000_000_000)
    swallowed = text.replace("&", "|")
    assert original.read(swallowed, b"s") == {"A": 7}
    with pytest.raises(BadSignature, match="form"):
        verify(swallowed, b"s")


def _wrap(items: list[bytes], secret: bytes = b"s") -> bytes:
    """Any items, well signed."""
    mac = hmac.new(secret, b"".join(b"|" + item for item in items), hashlib.sha1).digest()
    return base64.b64encode(mac) + b"?" + b"&".join(items)


def _value(document: bytes) -> bytes:
    return base64.b64encode(document)


@pytest.mark.parametrize(
    "items",
    [
        [b"a=" + _value(pickle.dumps({"a": 1}))],
        [b"a=" + _value(pickle.dumps("x", protocol=0))],
        [b"a"],
        [b""],
        [b"", b""],
        [b"a="],
        [b"a=" + _value(b"")],
        [b"a=" + _value(b"{")],
        [b"a=" + _value(b"NaN")],
        [b"a=" + _value(b"[Infinity]")],
        [b"a=" + _value(b'"\xff"')],
        [b"a=" + _value(b"[" * 100_000)],
        [b"a=MQ"],
        [b"a=MQ=="] * 2,
        [b"~=MQ==", b"%7E=MQ=="],
        [b"a=MQ==\n"],
        [b"a=M Q=="],
        [b"a%4=MQ=="],
        [b"%ff=MQ=="],
        [b"%FF=MQ=="],
        [b"\xc3\xa9=MQ=="],
        [b"a=b=MQ=="],
        [b"_expires=" + _value(b'"never"')],
        [b"_expires=" + _value(b"null")],
        [b"_expires=" + _value(b"true")],
        [b"_expires=" + _value(b"[]")],
    ],
)
def test_what_is_signed_but_no_message_is_refused(items: list[bytes]) -> None:
    with pytest.raises(BadSignature):
        verify(_wrap(items), b"s")


@pytest.mark.parametrize("text", ["", "?", "a", "?a=MQ==", "é?a=MQ==", "====?a=MQ==", b"\xff\xfe", b"", '{"a": 1}', "\ud800"])
def test_what_is_not_signed_is_refused(text: Any) -> None:
    with pytest.raises(BadSignature):
        verify(text, b"s")


def test_an_empty_message_is_signed_too(original: Reference) -> None:
    text = sign({}, b"s")
    assert text == original.sign({}, b"s")
    assert verify(text, b"s") == {}
    with pytest.raises(BadSignature):
        verify(text, b"other")


def test_secrets_are_rotated() -> None:
    text = sign({"a": 1}, "old")
    assert verify(text, ["new", b"old"]) == {"a": 1}
    for secrets in (["new", "newer"], []):
        with pytest.raises(BadSignature):
            verify(text, secrets)


@pytest.mark.parametrize(
    ("values", "secret", "error"),
    [
        ({"a": object()}, "s", TypeError),
        ({"a": float("nan")}, "s", ValueError),
        ({1: 2}, "s", TypeError),
        ({"_expires": 1}, "s", ValueError),
        ({"a": 1}, "", ValueError),
        ({"a": 1}, b"", ValueError),
        ({"\ud800": 1}, "s", ValueError),
    ],
)
def test_what_cannot_be_signed(values: dict[Any, Any], secret: Any, error: type[Exception]) -> None:
    with pytest.raises(error):
        sign(values, secret)


def test_an_empty_secret_reads_nothing() -> None:
    with pytest.raises(ValueError, match="empty secret") as caught:
        verify("?", "")
    assert not isinstance(caught.value, BadSignature)


def test_json_is_that_of_doppler() -> None:
    assert sign({"a": [1, {"é": 2}]}, "s").endswith("?a=" + _value(b'[1, {"\\u00e9": 2}]').decode())
    assert json.loads(base64.b64decode(sign({"a": "é"}, "s").partition("a=")[2])) == "é"
