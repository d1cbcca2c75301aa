"""Signed texts in the format of Werkzeug's SecureCookie with JSON, which Doppler sends and Carillon's ``werkzeug-cookie`` signs.

``base64(HMAC-SHA1(secret, M)) "?" item "&" item …``, where an item is ``quote_plus(key) "=" base64(json(value))`` and M is ``"|" item``
for each of them. The text is signed, not encrypted.

Reading is stricter than Werkzeug's in two ways. An invalid text raises ``BadSignature``; Werkzeug returns an empty dictionary, which
looks like a message without arguments. And an item may contain only the characters that signing writes: M joins items with ``|`` and the
text joins them with ``&``, so replacing ``&`` with ``|`` keeps the MAC, and lax base64 then drops the items behind it, such as
``_expires``.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import math
import re
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Optional, Union
from urllib.parse import quote_plus, unquote_plus

#: A secret; a text means its UTF-8 bytes.
Secret = Union[str, bytes]

#: Name of the item with the expiry, in Unix seconds.
EXPIRES = "_expires"

#: Form of an item. Werkzeug before 0.15 quotes the tilde, later versions do not.
_ITEM = re.compile(r"((?:[A-Za-z0-9\-._~+]|%[0-9A-F]{2})*)=((?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?)", re.ASCII)


class BadSignature(ValueError):
    """The text was not signed with the secret, was changed, or has expired."""


def sign(values: Mapping[str, Any], secret: Secret, *, expires: Optional[float] = None) -> str:
    """Signs JSON values. The text expires at ``expires`` (Unix seconds, rounded up); without it, never.

    Raises TypeError or ValueError for a value that JSON cannot hold, for a key that is not a text or is ``_expires``, and for an empty
    secret.
    """
    if EXPIRES in values:
        raise ValueError(f"`{EXPIRES}` is the name of the time until which the text is good")
    items = dict(values)
    if expires is not None:
        items[EXPIRES] = math.ceil(expires)
    wire = [_item(key, items[key]) for key in sorted(items)]
    return f"{base64.b64encode(_mac(secret, wire)).decode()}?{'&'.join(wire)}"


def verify(text: Union[str, bytes], secrets: Union[Secret, Sequence[Secret]], *, now: Optional[float] = None) -> dict[str, Any]:
    """Returns the values of a text that was signed with one of the secrets.

    ``now``: time that the expiry is compared with, in Unix seconds; by default the current time.

    Raises BadSignature for every other text and for an expired one, and ValueError for an empty secret.
    """
    known = [secrets] if isinstance(secrets, (str, bytes)) else list(secrets)
    try:
        mac, _, rest = (text.decode("ascii") if isinstance(text, bytes) else text).partition("?")
        given = base64.b64decode(mac, validate=True)
    except ValueError:
        raise BadSignature("the text is not a signed one") from None
    wire = rest.split("&") if rest else []
    if not any(hmac.compare_digest(given, _mac(secret, wire)) for secret in known):
        raise BadSignature("the signature is not of this text and this secret")
    values = _read(wire)
    if EXPIRES in values:
        _check_expiry(values.pop(EXPIRES), time.time() if now is None else now)
    return values


def _mac(secret: Secret, wire: Iterable[str]) -> bytes:
    key = secret.encode() if isinstance(secret, str) else secret
    if not key:
        raise ValueError("an empty secret signs nothing")
    message = "".join(f"|{item}" for item in wire)
    return hmac.new(key, message.encode("utf-8", "surrogatepass"), hashlib.sha1).digest()


def _item(key: str, value: Any) -> str:
    if not isinstance(key, str):
        raise TypeError(f"a key is a text, not {key!r}")
    try:
        document = json.dumps(value, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise type(error)(f"JSON cannot hold the value of {key!r}: {error}") from error
    return f"{quote_plus(key)}={base64.b64encode(document.encode()).decode()}"


def _read(wire: Iterable[str]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for item in wire:
        found = _ITEM.fullmatch(item)
        if found is None:
            raise BadSignature("an item is not of the form that is signed")
        try:
            key = unquote_plus(found[1], errors="strict")
            value = json.loads(base64.b64decode(found[2], validate=True), parse_constant=_no_number)
        except (ValueError, RecursionError):
            raise BadSignature("an item does not hold JSON") from None
        if key in values:
            raise BadSignature("two items have one key")
        values[key] = value
    return values


def _no_number(text: str) -> float:
    raise ValueError(f"{text} is not JSON")


def _check_expiry(expires: Any, now: float) -> None:
    if isinstance(expires, bool) or not isinstance(expires, (int, float)):
        raise BadSignature(f"`{EXPIRES}` is not a time")
    if now > expires:
        raise BadSignature("the text is no longer good")
