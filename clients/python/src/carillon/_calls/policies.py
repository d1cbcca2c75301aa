"""The versions of a group's policy. docs/rollout.md has the rules."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, Optional, TypedDict

from carillon._calls.call import Call, Page, check_fields, listing, nothing, path, reading, request
from carillon.models import Backtest, ChangedGroup, Group, Move, Proposed, Replay, Shadow, Version

if TYPE_CHECKING:
    from typing_extensions import Unpack


class RoleFields(TypedDict, total=False):
    """What is said of the roles; the rest is inherited. None takes an inherited signer or observer away."""

    #: Plugins in order, each ``{"plugin": NAME, "config": {…}, "keys": […]}``.
    encode: Optional[Sequence[Mapping[str, Any]]]
    sign: Optional[Mapping[str, Any]]
    judge: Optional[Mapping[str, Any]]
    retry: Optional[Mapping[str, Any]]
    observe: Optional[Mapping[str, Any]]


class PolicyFields(RoleFields, total=False):
    """A version of a policy."""

    #: What it is for.
    why: Optional[str]


def versions(group: str, *, page_size: Optional[int] = None) -> Call[Page[Version]]:
    """The versions of the group's policy, newest first."""
    return listing(path("groups", group, "policy", "versions"), Version, {}, page_size)


def version(group: str, number: int) -> Call[Version]:
    """Shows one of them."""
    return request("GET", path("groups", group, "policy", "versions", str(number)), reading(Version))


def propose(group: str, *, base: Optional[str] = None, **fields: Unpack[PolicyFields]) -> Call[Proposed]:
    """Makes a version that is not in force, checked as one that is put; ``removed`` names the roles that it would end.

    With ``base="active"``, what is not named stays as it is in the version in force.
    """
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
    """Puts a version in force, for all jobs or for some: then it is taken back when it does worse than the bounds say."""
    bounds = {"max_faults": max_faults, "max_differences": max_differences, "min_attempts": min_attempts}
    body = {"version": number, "percent": percent, "why": why, **bounds}
    return request("POST", path("groups", group, "policy", "promote"), reading(ChangedGroup), body=body)


def rollback(group: str, *, version: Optional[int] = None, why: Optional[str] = None) -> Call[ChangedGroup]:
    """Takes back the version that some of the jobs follow; else puts the one in force again that was before.

    With ``version``, it raises Problem (409) unless it is this one that is taken back.
    """
    body = {"version": version, "why": why}
    return request("POST", path("groups", group, "policy", "rollback"), reading(ChangedGroup), body=body)


def unquarantine(group: str, *, why: Optional[str] = None) -> Call[Group]:
    """Lets policies be called again that failed too often, on all nodes."""
    return request("POST", path("groups", group, "policy", "unquarantine"), reading(Group), body={"why": why})


def set_shadow(group: str, number: int, *, percent: int = 100) -> Call[Shadow]:
    """Lets a version run beside the one in force, on so many of a hundred attempts: its answers are compared, and never used."""
    body = {"version": number, "percent": percent}
    return request("PUT", path("groups", group, "policy", "shadow"), reading(Shadow), body=body)


def shadow(group: str) -> Call[Shadow]:
    """What the group's shadow has said so far, on the node that answers. Raises Problem (404) if there is none."""
    return request("GET", path("groups", group, "policy", "shadow"), reading(Shadow))


def delete_shadow(group: str) -> Call[None]:
    """Ends the group's shadow."""
    return request("DELETE", path("groups", group, "policy", "shadow"), nothing)


def replay(job_id: str, attempt: int, *, version: Optional[int] = None) -> Call[Replay]:
    """Decides an attempt again, from what was kept of it: with the version that decided it, or another one."""
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
    """What a version would have made of the attempts of up to 100 jobs; ``next_cursor`` asks for the next ones.

    ``created_…`` is about when jobs were accepted, ``attempted_…`` about when their attempts began.
    """
    times = {
        "created_from": created_from,
        "created_before": created_before,
        "attempted_from": attempted_from,
        "attempted_before": attempted_before,
    }
    body = {"version": number, "cursor": cursor, "limit": limit, **{key: at and at.isoformat() for key, at in times.items()}}
    return request("POST", path("groups", group, "policy", "backtest"), reading(Backtest), body=body)


def history(group: str, *, page_size: Optional[int] = None) -> Call[Page[Move]]:
    """Who put which version in force, when and why, newest first."""
    return listing(path("groups", group, "policy", "history"), Move, {}, page_size)
