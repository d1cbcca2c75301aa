"""Schedules, which create jobs at recurring times."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Optional, TypedDict

from carillon._calls.call import Call, Page, check_fields, listing, nothing, path, reading, request
from carillon._calls.jobs import JobFields, job_document
from carillon.models import Backfill, Job, Schedule, ScheduleRun
from carillon.times import Period, When, period, when
from carillon.types import Overlap

if TYPE_CHECKING:
    from typing_extensions import Unpack


class ScheduleFields(TypedDict, total=False):
    """Optional fields of a schedule. docs/concepts/schedules.md has the rules."""

    #: IANA name. Default: ``UTC``.
    time_zone: Optional[str]
    start: Optional[When]
    end: Optional[When]
    max_runs: Optional[int]
    jitter: Optional[Period]
    #: Default: ``skip``.
    overlap: Optional[Overlap]
    #: Age up to which missed runs are made up for. Default: one day.
    catch_up: Optional[Period]
    catch_up_all: Optional[bool]
    #: Whether the schedule is paused. If omitted, an existing schedule stays as it is.
    paused: Optional[bool]


_TIMES = ("start", "end")
_PERIODS = ("jitter", "catch_up")


def put(name: str, *, group: str, cron: str, job: JobFields, **options: Unpack[ScheduleFields]) -> Call[Schedule]:
    check_fields(options, ScheduleFields, "a schedule")
    body: dict[str, Any] = {"group": group, "cron": cron, "job": job_document(job), **_document(options)}
    return request("PUT", path("schedules", name), reading(Schedule), body=body)


def edit(
    name: str,
    *,
    group: Optional[str] = None,
    cron: Optional[str] = None,
    job: Optional[JobFields] = None,
    **options: Unpack[ScheduleFields],
) -> Call[Schedule]:
    check_fields(options, ScheduleFields, "a schedule")
    named = {"group": group, "cron": cron, "job": job_document(job) if job is not None else None}
    body = {key: value for key, value in named.items() if value is not None}
    return request("PATCH", path("schedules", name), reading(Schedule), body={**body, **_document(options)})


def _document(options: Mapping[str, Any]) -> dict[str, Any]:
    body: dict[str, Any] = {}
    for option, value in options.items():
        if value is None:
            continue
        if option in _TIMES:
            body[option] = when(value)
        elif option in _PERIODS:
            body[option] = period(value)
        else:
            body[option] = value
    return body


def get(name: str) -> Call[Schedule]:
    return request("GET", path("schedules", name), reading(Schedule))


def list_(*, page_size: Optional[int] = None) -> Call[Page[Schedule]]:
    return listing(path("schedules"), Schedule, {}, page_size)


def history(name: str, *, page_size: Optional[int] = None) -> Call[Page[ScheduleRun]]:
    return listing(path("schedules", name, "history"), ScheduleRun, {}, page_size)


def delete(name: str) -> Call[None]:
    return request("DELETE", path("schedules", name), nothing)


def pause(name: str) -> Call[Schedule]:
    return request("POST", path("schedules", name, "pause"), reading(Schedule))


def resume(name: str) -> Call[Schedule]:
    return request("POST", path("schedules", name, "resume"), reading(Schedule))


def run(name: str) -> Call[Job]:
    return request("POST", path("schedules", name, "run"), reading(Job))


def backfill(name: str, start: When, end: When) -> Call[Backfill]:
    body = {"from": when(start), "to": when(end)}
    return request("POST", path("schedules", name, "backfill"), reading(Backfill), body=body)
