"""The versions of a group's policy. docs/concepts/rollout.md has the rules."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Optional

from carillon._calls.call import Call, Page, check_fields, listing, nothing, path, reading, request
from carillon.models import Backtest, ChangedGroup, Group, Move, Proposed, Replay, Shadow, Version
from carillon.types import PolicyBase, PolicyFields

if TYPE_CHECKING:
    from typing_extensions import Unpack


def versions(group: str, *, page_size: Optional[int] = None) -> Call[Page[Version]]:
    return listing(path("groups", group, "policy", "versions"), Version, {}, page_size)


def version(group: str, number: int) -> Call[Version]:
    return request("GET", path("groups", group, "policy", "versions", str(number)), reading(Version))


def propose(group: str, *, base: Optional[PolicyBase] = None, **fields: Unpack[PolicyFields]) -> Call[Proposed]:
    check_fields(fields, PolicyFields, "a version of a policy")
    params = {"base": base}
    return request("POST", path("groups", group, "policy", "versions"), reading(Proposed), body=fields, params=params)


def promote(
    group: str,
    number: int,
    *,
    percent: int = 100,
    max_faults: Optional[float] = None,
    max_differences: Optional[float] = None,
    min_attempts: Optional[int] = None,
    why: Optional[str] = None,
) -> Call[ChangedGroup]:
    bounds = {"max_faults": max_faults, "max_differences": max_differences, "min_attempts": min_attempts}
    body = {"version": number, "percent": percent, "why": why, **bounds}
    return request("POST", path("groups", group, "policy", "promote"), reading(ChangedGroup), body=body)


def rollback(group: str, *, version: Optional[int] = None, why: Optional[str] = None) -> Call[ChangedGroup]:
    body = {"version": version, "why": why}
    return request("POST", path("groups", group, "policy", "rollback"), reading(ChangedGroup), body=body)


def unquarantine(group: str, *, why: Optional[str] = None) -> Call[Group]:
    return request("POST", path("groups", group, "policy", "unquarantine"), reading(Group), body={"why": why})


def set_shadow(group: str, number: int, *, percent: int = 100) -> Call[Shadow]:
    body = {"version": number, "percent": percent}
    return request("PUT", path("groups", group, "policy", "shadow"), reading(Shadow), body=body)


def shadow(group: str) -> Call[Shadow]:
    return request("GET", path("groups", group, "policy", "shadow"), reading(Shadow))


def delete_shadow(group: str) -> Call[None]:
    return request("DELETE", path("groups", group, "policy", "shadow"), nothing)


def replay(job_id: str, attempt: int, *, version: Optional[int] = None) -> Call[Replay]:
    url = path("jobs", job_id, "attempts", str(attempt), "replay")
    return request("POST", url, reading(Replay), body={"version": version})


def backtest(
    group: str,
    number: int,
    *,
    created_from: Optional[datetime] = None,
    created_before: Optional[datetime] = None,
    attempted_from: Optional[datetime] = None,
    attempted_before: Optional[datetime] = None,
    cursor: Optional[str] = None,
    limit: Optional[int] = None,
) -> Call[Backtest]:
    times = {
        "created_from": created_from,
        "created_before": created_before,
        "attempted_from": attempted_from,
        "attempted_before": attempted_before,
    }
    body = {"version": number, "cursor": cursor, "limit": limit, **{key: at and at.isoformat() for key, at in times.items()}}
    return request("POST", path("groups", group, "policy", "backtest"), reading(Backtest), body=body)


def history(group: str, *, page_size: Optional[int] = None) -> Call[Page[Move]]:
    return listing(path("groups", group, "policy", "history"), Move, {}, page_size)
