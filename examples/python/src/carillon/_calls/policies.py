"""The versions of a group's policy. docs/rollout.md has the rules."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Optional, TypedDict

from carillon._calls.call import Call, Page, check_fields, listing, path, reading, request
from carillon.models import Group, Move, Version

if TYPE_CHECKING:
    from typing_extensions import Unpack


class PolicyFields(TypedDict, total=False):
    """What a version says of the roles; the rest is inherited. None takes an inherited signer or observer away."""

    #: Plugins in order, each ``{"plugin": NAME, "config": {…}, "keys": […]}``.
    encode: Optional[Sequence[Mapping[str, Any]]]
    sign: Optional[Mapping[str, Any]]
    judge: Optional[Mapping[str, Any]]
    retry: Optional[Mapping[str, Any]]
    observe: Optional[Mapping[str, Any]]
    #: What it is for.
    why: Optional[str]


def versions(group: str, *, page_size: Optional[int] = None) -> Call[Page[Version]]:
    """The versions of the group's policy, newest first."""
    return listing(path("groups", group, "policy", "versions"), Version, {}, page_size)


def version(group: str, number: int) -> Call[Version]:
    """Shows one of them."""
    return request("GET", path("groups", group, "policy", "versions", str(number)), reading(Version))


def propose(group: str, **fields: Unpack[PolicyFields]) -> Call[Version]:
    """Makes a version that is not in force, checked as one that is put."""
    check_fields(fields, PolicyFields, "a version of a policy")
    return request("POST", path("groups", group, "policy", "versions"), reading(Version), body=fields)


def promote(group: str, number: int, *, why: Optional[str] = None) -> Call[Group]:
    """Puts a version in force."""
    body = {"version": number, "why": why}
    return request("POST", path("groups", group, "policy", "promote"), reading(Group), body=body)


def rollback(group: str, *, why: Optional[str] = None) -> Call[Group]:
    """Puts the version in force again that was before; once more, and it is the one before that."""
    return request("POST", path("groups", group, "policy", "rollback"), reading(Group), body={"why": why})


def history(group: str, *, page_size: Optional[int] = None) -> Call[Page[Move]]:
    """Who put which version in force, when and why, newest first."""
    return listing(path("groups", group, "policy", "history"), Move, {}, page_size)
