"""Leases: how consumers pull jobs that have no URL, and report the results."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Optional, Union

from carillon._calls.call import Call, path, reading, request
from carillon.models import Ended, Lease
from carillon.times import Period, period, read_time, seconds

#: The longest wait of a server with default settings, in seconds; assumed for a `wait` in text form, which only the server parses.
_MAX_WAIT_SECONDS = 20.0


def take(
    group: str,
    *,
    limit: int = 1,
    wait: Optional[Period] = None,
    lease: Optional[Period] = None,
) -> Call[list[Lease]]:
    body: dict[str, Any] = {"max": limit}
    wait_seconds = 0.0
    if wait is not None:
        body["wait"] = period(wait)
        exact = seconds(wait)
        wait_seconds = _MAX_WAIT_SECONDS if exact is None else exact
    if lease is not None:
        body["lease"] = period(lease)
    return request("POST", path("groups", group, "leases"), _leases, body=body, wait_seconds=wait_seconds)


def extend(lease: Union[str, Lease], duration: Optional[Period] = None) -> Call[datetime]:
    body = {} if duration is None else {"lease": period(duration)}
    return request("POST", _verb(lease, "extend"), lambda doc: read_time(doc["expires_at"]), body=body)


def complete(lease: Union[str, Lease]) -> Call[Ended]:
    return request("POST", _verb(lease, "complete"), reading(Ended))


def fail(
    lease: Union[str, Lease],
    error: Optional[str] = None,
    *,
    permanent: bool = False,
    retry_after: Optional[Period] = None,
) -> Call[Ended]:
    body: dict[str, Any] = {"permanent": permanent}
    if error is not None:
        body["error"] = error
    if retry_after is not None:
        body["retry_after"] = period(retry_after)
    return request("POST", _verb(lease, "fail"), reading(Ended), body=body)


def release(lease: Union[str, Lease]) -> Call[Ended]:
    return request("POST", _verb(lease, "release"), reading(Ended))


def _leases(doc: Any) -> list[Lease]:
    return [Lease.of(lease) for lease in doc["leases"]]


def _verb(lease: Union[str, Lease], verb: str) -> str:
    return path("leases", lease.token if isinstance(lease, Lease) else lease, verb)
