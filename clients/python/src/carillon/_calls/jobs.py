"""Jobs: create, read and change them."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Optional, TypedDict, Union

from carillon._calls.call import Call, Page, check_fields, listing, path, reading, request
from carillon.models import Attempt, Batch, Job, Metadata, SentRequest
from carillon.times import Period, When, period, when
from carillon.types import JobState, Role

if TYPE_CHECKING:
    from typing_extensions import Unpack


class Limits(TypedDict, total=False):
    """Limits of a job. The shorter one of a job's and its group's limit applies."""

    #: Duration of one request.
    timeout: Period
    #: Time from the acceptance of the job until it expires. Retries do not restart it.
    ttl: Period
    #: Time after its due time within which an attempt may still start.
    max_delay: Period


class JobFields(TypedDict, total=False):
    """A job to be created. All fields are optional; docs/concepts/jobs.md has the rules."""

    #: URL of the receiver. A job without one waits for a consumer to lease it.
    url: Optional[str]
    #: Default: ``POST``.
    method: Optional[str]
    #: A mapping, or pairs, which may repeat a name.
    headers: Optional[Union[Mapping[str, str], Sequence[tuple[str, str]]]]
    #: Body of the request: a JSON value, a text (``payload_text``), or bytes (``payload_bytes``). At most one of the three.
    payload: Any
    payload_text: Optional[str]
    payload_bytes: Optional[bytes]
    #: Default: now.
    run_at: Optional[When]
    name: Optional[str]
    #: Whether the job replaces the group's unfinished jobs of the same name.
    replace: Optional[bool]
    #: Texts by key, with one optional level of namespaces. ``metadata_headers`` sends them as headers.
    metadata: Optional[Metadata]
    metadata_headers: Optional[bool]
    #: Overrides of the group's policy configs, by role: ``{"retry": {"max_attempts": 3}}``.
    policy: Optional[Mapping[Role, Any]]
    limits: Optional[Limits]
    #: 0 to 9, where 9 is the most urgent. Default: 4.
    priority: Optional[int]
    #: The group's jobs with the same key run one at a time.
    order_key: Optional[str]
    #: If the group accepted a job with this key within ``dedupe_window`` (default: 5 minutes), that job is returned instead.
    dedupe_key: Optional[str]
    dedupe_window: Optional[Period]
    #: Window in which at most one of equal jobs runs; the last one is never dropped.
    debounce_seconds: Optional[float]
    debounce_always_delay: Optional[bool]
    #: Jobs with the same key are equal. Default: those with the same method, URL and payload.
    debounce_key: Optional[str]
    #: A job to be created when this one succeeds, or ends in another state.
    on_success: Optional[FollowUp]
    on_failure: Optional[FollowUp]


class FollowUp(JobFields, total=False):
    """A job to be created when another one ends. A relative ``run_at`` counts from that moment."""

    #: Default: the group of the job that it follows.
    group: Optional[str]


def job_document(fields: Mapping[str, Any], known: type[Any] = JobFields, *, with_nulls: bool = False) -> dict[str, Any]:
    """Returns a job in the API's form. Without ``with_nulls``, fields that are None are omitted.

    Raises TypeError for an unknown field or a value of a wrong type, and ValueError for a value out of range.
    """
    check_fields(fields, known, "a job")
    doc = {name: _value(name, value) for name, value in fields.items() if with_nulls or value is not None}
    if "payload_bytes" in doc:
        doc["payload_base64"] = doc.pop("payload_bytes")
    return doc


def _value(name: str, value: Any) -> Any:
    if value is None:
        return None
    if name == "run_at":
        return when(value)
    if name == "dedupe_window":
        return period(value)
    if name == "payload" and isinstance(value, (bytes, bytearray, memoryview)):
        raise TypeError("payload must be a JSON value; pass bytes as payload_bytes")
    if name == "payload_bytes":
        return base64.b64encode(value).decode()
    if name == "limits":
        check_fields(value, Limits, "limits")
        return {limit: None if given is None else period(given) for limit, given in value.items()}
    return job_document(value, FollowUp) if name in ("on_success", "on_failure") else value


def create(group: str, *, idempotency_key: Optional[str] = None, **fields: Unpack[JobFields]) -> Call[Job]:
    return request(
        "POST",
        path("groups", group, "jobs"),
        reading(Job),
        body=job_document(fields),
        headers=_once(idempotency_key),
    )


def create_many(group: str, jobs: Iterable[JobFields], *, idempotency_key: Optional[str] = None) -> Call[Batch]:
    docs = [job_document(job) for job in jobs]
    headers = _once(idempotency_key)
    return request("POST", path("groups", group, "jobs", "batch"), reading(Batch), body={"jobs": docs}, headers=headers)


def get(id: str, *, group: Optional[str] = None) -> Call[Job]:
    return request("GET", path("jobs", id), reading(Job), params={"group": group})


def list_(
    group: Optional[str] = None,
    *,
    state: Optional[JobState] = None,
    name: Optional[str] = None,
    name_prefix: Optional[str] = None,
    created_from: Optional[When] = None,
    created_before: Optional[When] = None,
    due_from: Optional[When] = None,
    due_before: Optional[When] = None,
    url: Optional[str] = None,
    url_prefix: Optional[str] = None,
    order_key: Optional[str] = None,
    metadata: Optional[Mapping[str, str]] = None,
    page_size: Optional[int] = None,
) -> Call[Page[Job]]:
    times = {"created_from": created_from, "created_before": created_before, "due_from": due_from, "due_before": due_before}
    params = {
        "state": state,
        "name": name,
        "name_prefix": name_prefix,
        "url": url,
        "url_prefix": url_prefix,
        "order_key": order_key,
        **{name: None if time is None else when(time) for name, time in times.items()},
        **{f"metadata.{key}": value for key, value in (metadata or {}).items()},
    }
    where = path("jobs") if group is None else path("groups", group, "jobs")
    return listing(where, Job, params, page_size)


def attempts(id: str, *, group: Optional[str] = None, page_size: Optional[int] = None) -> Call[Page[Attempt]]:
    return listing(path("jobs", id, "attempts"), Attempt, {"group": group}, page_size)


def sent_request(id: str, number: int, *, group: Optional[str] = None) -> Call[SentRequest]:
    return request("GET", path("jobs", id, "attempts", str(number), "request"), reading(SentRequest), params={"group": group})


def payload(id: str, *, group: Optional[str] = None) -> Call[bytes]:
    return replace(request("GET", path("jobs", id, "payload"), bytes, params={"group": group}), is_raw=True)


def copy(id: str, *, run_at: Optional[When] = None, group: Optional[str] = None) -> Call[Job]:
    body = {} if run_at is None else {"run_at": when(run_at)}
    return request("POST", path("jobs", id, "copy"), reading(Job), body=body, params={"group": group})


def cancel(id: str, *, group: Optional[str] = None) -> Call[Job]:
    return request("DELETE", path("jobs", id), reading(Job), params={"group": group})


def run(id: str, *, group: Optional[str] = None) -> Call[Job]:
    return request("POST", path("jobs", id, "run"), reading(Job), params={"group": group})


def retry(id: str, *, group: Optional[str] = None) -> Call[Job]:
    return request("POST", path("jobs", id, "retry"), reading(Job), params={"group": group})


def reschedule(id: str, run_at: When, *, group: Optional[str] = None) -> Call[Job]:
    body = {"run_at": when(run_at)}
    return request("POST", path("jobs", id, "reschedule"), reading(Job), body=body, params={"group": group})


def edit(id: str, *, group: Optional[str] = None, **changes: Unpack[JobFields]) -> Call[Job]:
    body = job_document(changes, with_nulls=True)
    return request("PATCH", path("jobs", id), reading(Job), body=body, params={"group": group})


def _once(key: Optional[str]) -> Mapping[str, str]:
    return {} if key is None else {"Idempotency-Key": key}
