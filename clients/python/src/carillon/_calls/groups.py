"""Groups, and bulk changes of their jobs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Optional, TypedDict

from carillon._calls.call import Call, Page, check_fields, listing, nothing, path, reading, request
from carillon._calls.jobs import JobFields, job_document
from carillon.models import Bulk, ChangedGroup, Group, Stats
from carillon.times import When, when
from carillon.types import BulkAction, GroupFields, JobState

if TYPE_CHECKING:
    from typing_extensions import Unpack


class Filter(TypedDict, total=False):
    """Selects jobs of a group; an empty filter selects all."""

    state: JobState
    name: str
    name_prefix: str
    #: Absolute times.
    created_from: When
    created_before: When
    due_from: When
    due_before: When
    #: The whole URL, or its beginning.
    url: str
    url_prefix: str
    order_key: str
    #: Metadata that a job must have; the key ``a.b`` means ``b`` in the namespace ``a``.
    metadata: Mapping[str, str]


def put(group: str, *, why: Optional[str] = None, **fields: Unpack[GroupFields]) -> Call[ChangedGroup]:
    check_fields(fields, GroupFields, "a group")
    return request("PUT", path("groups", group), reading(ChangedGroup), body=fields, params={"why": why})


def edit(group: str, *, why: Optional[str] = None, **fields: Unpack[GroupFields]) -> Call[ChangedGroup]:
    check_fields(fields, GroupFields, "a group")
    return request("PATCH", path("groups", group), reading(ChangedGroup), body=fields, params={"why": why})


def get(group: str, *, effective: bool = False) -> Call[Group]:
    return request("GET", path("groups", group), reading(Group), params={"effective": effective or None})


def list_(*, page_size: Optional[int] = None) -> Call[Page[Group]]:
    return listing(path("groups"), Group, {}, page_size)


def delete(group: str) -> Call[None]:
    return request("DELETE", path("groups", group), nothing)


def pause(group: str) -> Call[Group]:
    return request("POST", path("groups", group, "pause"), reading(Group))


def resume(group: str) -> Call[Group]:
    return request("POST", path("groups", group, "resume"), reading(Group))


def stats(group: str) -> Call[Stats]:
    return request("GET", path("groups", group, "stats"), reading(Stats))


def flush(group: str, *, dry_run: bool = False, **which: Unpack[Filter]) -> Call[Bulk]:
    return _some(group, "flush", dry_run, which)


def redrive(group: str, *, dry_run: bool = False, **which: Unpack[Filter]) -> Call[Bulk]:
    return _some(group, "redrive", dry_run, which)


def purge(group: str, *, dry_run: bool = False, **which: Unpack[Filter]) -> Call[Bulk]:
    return _some(group, "purge", dry_run, which)


def change(
    group: str,
    action: BulkAction,
    *,
    run_at: Optional[When] = None,
    dry_run: bool = False,
    **which: Unpack[Filter],
) -> Call[Bulk]:
    body: dict[str, Any] = {"action": action, "filter": _filter(which), "dry_run": dry_run}
    if run_at is not None:
        body["run_at"] = when(run_at)
    return request("POST", path("groups", group, "bulk"), reading(Bulk), body=body)


def changed(id: str) -> Call[Bulk]:
    return request("GET", path("bulk", id), reading(Bulk))


def changes(*, page_size: Optional[int] = None) -> Call[Page[Bulk]]:
    return listing(path("bulk"), Bulk, {}, page_size)


def simulate(group: str, job: JobFields, **options: Any) -> Call[dict[str, Any]]:
    body = {"job": job_document(job), **options}
    return request("POST", path("groups", group, "policy", "simulate"), dict, body=body)


def _some(group: str, verb: str, dry_run: bool, which: Mapping[str, Any]) -> Call[Bulk]:
    body = {"filter": _filter(which), "dry_run": dry_run}
    return request("POST", path("groups", group, verb), reading(Bulk), body=body)


def _filter(which: Mapping[str, Any]) -> dict[str, Any]:
    check_fields(which, Filter, "a filter")
    return {name: when(value) if name.endswith(("_from", "_before")) else value for name, value in which.items()}
