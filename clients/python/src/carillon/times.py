"""Converts times and durations between Python's types and the API's texts.

The API rounds up to milliseconds, so that nothing runs early.
"""

from __future__ import annotations

import math
import re
from datetime import datetime, timedelta, timezone
from typing import Optional, Union

#: A point in time: a ``datetime`` with a time zone; a ``timedelta`` from now; Unix seconds; or a text in the API's form
#: (``2026-11-20T10:00:00Z``, ``+90s``, ``+2d``).
When = Union[datetime, timedelta, int, float, str]

#: A duration: seconds, a ``timedelta``, or a text in the API's form (``250ms``, ``10s``, ``1h 30m``).
Period = Union[timedelta, int, float, str]

_MICROSECOND = timedelta(microseconds=1)

_RFC_3339 = re.compile(r"(\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d)(?:\.(\d+))?([Zz]|[+-]\d\d:\d\d)")


def when(value: When) -> Union[str, int, float]:
    """Returns a point in time in the API's form.

    Raises ValueError for a ``datetime`` without a time zone, and for a number that is not finite.
    """
    if isinstance(value, datetime):
        if value.utcoffset() is None:
            raise ValueError("the time has no time zone; give it one: datetime.now(timezone.utc), or .astimezone()")
        return value.astimezone(timezone.utc).isoformat().replace("+00:00", "Z")
    if isinstance(value, timedelta):
        # A time in the past means now.
        return "+" + period(max(value, timedelta(0)))
    return value if isinstance(value, str) else _number(value)


def period(value: Period) -> str:
    """Returns a duration in the API's form.

    Raises ValueError for a duration that is negative or not finite.
    """
    if isinstance(value, str):
        return value
    micros = value // _MICROSECOND if isinstance(value, timedelta) else math.ceil(_number(value) * 1_000_000)
    if micros < 0:
        raise ValueError(f"a period is not negative: {value!r}")
    return f"{micros}us" if micros % 1_000_000 else f"{micros // 1_000_000}s"


def seconds(value: Period) -> Optional[float]:
    """Returns a duration in seconds, or None for a text, which only the server parses."""
    if isinstance(value, str):
        return None
    return value.total_seconds() if isinstance(value, timedelta) else float(value)


def read_time(text: str) -> datetime:
    """Parses a time of a response; the result is in UTC.

    Raises ValueError if it is not RFC 3339.
    """
    found = _RFC_3339.fullmatch(text)
    if found is None:
        raise ValueError(f"not a time: {text!r}")
    whole, fraction, zone = found.groups()
    micros = (fraction or "")[:6].ljust(6, "0")
    zone = "+00:00" if zone in "Zz" else zone
    return datetime.fromisoformat(f"{whole}.{micros}{zone}").astimezone(timezone.utc)


def _number(value: Union[int, float]) -> Union[int, float]:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"not a time or a period: {value!r}")
    if not math.isfinite(value):
        raise ValueError(f"not a finite number of seconds: {value!r}")
    return value
