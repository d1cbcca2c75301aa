#!/usr/bin/env python3
"""Writes the golden vectors with the libraries that the plugin imitates.

    python3 -m venv .venv && .venv/bin/pip install -r requirements.txt && .venv/bin/python generate.py

The payloads are JSON texts, not objects, so that the way a number is written is a part of the case. Secrets are hex.
Werkzeug stays at 2.0: the package secure-cookie uses functions that later ones have removed.
"""

import hashlib
import json
import pathlib

import itsdangerous
from itsdangerous import URLSafeTimedSerializer
from secure_cookie import cookie
from secure_cookie.cookie import SecureCookie

HERE = pathlib.Path(__file__).parent
NOW = 1_795_168_800

SECRETS = {
    "short": b"flask-secret",
    "one byte": b"k",
    "64 bytes": bytes(range(64)),
    "65 bytes": bytes(range(65)),
    "300 bytes": b"x" * 300,
    "not UTF-8": b"\xff\x00\xfe",
    "unicode": "schlüssel-\U0001f511".encode(),
}

PAYLOADS = {
    "empty": "{}",
    "one": '{"a": 1}',
    "doppler": '{"user_id": 42, "message": "hello world"}',
    "sorted by code points": '{"b": 1, "a": 2, "B": 3, "\\uffee": 4, "\\ud83d\\ude00": 5, "\\u00e9": 6, "": 7}',
    "keys to quote": '{"a b": 1, "a+b": 2, "a&b=c?": 3, "a/b%": 4, "a~b-c._d": 5, "\\n\\u0000": 6, "|": 7}',
    "unicode values": '{"v": "é € \\ud83d\\ude00 \\u007f \\u0001 \\u2028", "esc": "\\"\\\\\\/\\b\\f\\n\\r\\t"}',
    "raw unicode": '{"schlüssel": "wörter 😀"}',
    "nested": '{"o": {"z": [1, 2, {"y": null, "x": [true, false]}], "a": {}}, "l": [], "ll": [[], [[]]]}',
    "blanks": ' {\n"a" :\t[ 1 ,2 ] , "b":{ "c" : 3 }\r\n} ',
    "integers": '{"zero": 0, "minus zero": -0, "big": 123456789012345678901234567890, "negative": -99999999999999999999}',
    "floats": '{"f": [1.0, 1.50, -0.0, 0.1, 1e2, 1E5, 1e15, 1e16, 1e22, 1e23, 0.0001, 0.00001, 5e-324, 1.7976931348623157e308, 12345678901234567.0, 3.14159, 2.5e-7]}',
    "duplicates": '{"a": 1, "b": {"x": 1, "y": 2, "x": 3}, "a": "last"}',
    "own expiry": '{"_expires": 1795168900, "a": 1}',
    "long value": json.dumps({"text": "abc" * 500}),
    "incompressible": json.dumps({"h": hashlib.sha512(b"x").hexdigest()}),
}


class Doppler(SecureCookie):
    """What Doppler signs with: plain json.dumps."""

    serialization_method = json


def quoted_before_0_15(key):
    """Werkzeug before 0.15 did not count the tilde among the characters that need no quoting."""
    return cookie_quote(key).replace("~", "%7E")


cookie_quote = cookie.url_quote_plus


def secure_cookies():
    """All payloads in both JSON styles, all secrets, and the options."""
    cases = [(f"{name}, {style}", payload, "short", {"json_style": style}, None) for name, payload in PAYLOADS.items() for style in ("python", "compact")]
    cases += [(f"secret of {name}", PAYLOADS["doppler"], name, {}, None) for name in SECRETS]
    cases += [(f"{name}, expires", PAYLOADS[name], "short", {"expires": "1h"}, NOW + 3600) for name in ("empty", "doppler", "sorted by code points", "own expiry")]
    cases += [("tilde quoted", PAYLOADS["keys to quote"], "short", {"quote_tilde": True}, None)]
    for name, payload, secret, config, expires in cases:
        kind = SecureCookie if config.get("json_style") == "compact" else Doppler
        cookie.url_quote_plus = quoted_before_0_15 if config.get("quote_tilde") else cookie_quote
        text = kind(json.loads(payload), SECRETS[secret]).serialize(expires).decode("ascii")
        yield {"name": name, "payload": payload, "secret": SECRETS[secret].hex(), "now_ms": NOW * 1000 + 999, "config": config, "text": text}


class At(itsdangerous.TimestampSigner):
    """A signer with a clock that stands still."""

    now = NOW

    def get_timestamp(self):
        return type(self).now


def sessions():
    """All payloads, all secrets, other salts, and times of other lengths."""
    cases = [(name, payload, "short", None, NOW) for name, payload in PAYLOADS.items()]
    cases += [(f"secret of {name}", PAYLOADS["doppler"], name, None, NOW) for name in SECRETS]
    cases += [(f"salt {salt!r}", PAYLOADS["one"], "short", salt, NOW) for salt in ("", "other", "gewürz")]
    cases += [(f"time {time}", PAYLOADS["one"], "short", None, time) for time in (0, 1, 255, 256, 2**32, 2**33 + 1)]
    for name, payload, secret, salt, At.now in cases:
        config = {"format": "flask-session"} if salt is None else {"format": "flask-session", "salt": salt}
        serializer = URLSafeTimedSerializer(
            SECRETS[secret],
            salt="cookie-session" if salt is None else salt,
            signer=At,
            signer_kwargs={"key_derivation": "hmac", "digest_method": hashlib.sha1},
        )
        text = serializer.dumps(json.loads(payload))
        yield {"name": name, "payload": payload, "secret": SECRETS[secret].hex(), "now_ms": At.now * 1000, "config": config, "text": text}


def main():
    """Writes one file for each format."""
    for name, cases in (("secure-cookie", secure_cookies()), ("flask-session", sessions())):
        (HERE / f"{name}.json").write_text(json.dumps(list(cases), indent=1) + "\n", encoding="ascii")


if __name__ == "__main__":
    main()
