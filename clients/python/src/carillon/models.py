"""Results of requests, as frozen dataclasses. All times are in UTC, with a time zone.

They are read from JSON according to their types. A field that a later server adds is ignored; a missing field raises ``KeyError``, which
the clients turn into a ``Problem``.
"""

from __future__ import annotations

import base64
from collections.abc import Hashable, Mapping
from dataclasses import MISSING, dataclass, field, fields, is_dataclass
from datetime import datetime
from functools import cache, partial
from typing import Any, Callable, NamedTuple, Optional, TypeVar, Union, cast, get_args, get_origin, get_type_hints

from carillon.times import read_time
from carillon.types import (
    AccessRole,
    ActorKind,
    AuditOutcome,
    BulkAction,
    ChainFault,
    GroupFields,
    GroupLimits,
    GroupTls,
    Instead,
    JobState,
    KeyKind,
    MoveAction,
    Outcome,
    Overlap,
    PayloadForm,
    Pin,
    PluginState,
    PolicyPlugin,
    Quota,
    Role,
    RoleFields,
    SkipReason,
)

#: Metadata of a job: texts by key, with one optional level of namespaces.
Metadata = dict[str, Union[str, dict[str, str]]]

_M = TypeVar("_M")

#: Converts a JSON value to the value of a field.
_Reader = Callable[[Any], Any]


def read(model: type[_M], doc: Any) -> _M:
    """Reads an instance of the dataclass ``model`` from a JSON object.

    Raises KeyError for a missing field, and TypeError or ValueError for a value of another type.
    """
    if not isinstance(doc, Mapping):
        raise TypeError(f"a JSON object was expected, not {type(doc).__name__}")
    values: dict[str, Any] = {}
    for name, (is_needed, reader) in _readers(cast("Hashable", model)).items():
        if name in doc:
            values[name] = reader(doc[name])
        elif is_needed:
            raise KeyError(name)
    return model(**values)


@cache
def _readers(model: Any) -> Mapping[str, tuple[bool, _Reader]]:
    """Returns by field name whether a response must have the field, and the function that reads it."""
    hints = get_type_hints(model)
    is_needed = {part.name: part.default is MISSING and part.default_factory is MISSING for part in fields(model)}
    return {name: (needed, _reader(hints[name])) for name, needed in is_needed.items()}


def _reader(hint: Any) -> _Reader:
    """Returns the function that reads a field of this type: times and dataclasses are converted, lists become tuples."""
    parts = get_args(hint)
    if hint is datetime:
        return read_time
    if isinstance(hint, type) and is_dataclass(hint):
        return partial(read, hint)
    if hint is Header:
        return lambda doc: Header(doc["name"], doc["value"])
    if get_origin(hint) is Union and type(None) in parts and len(parts) == 2:
        some = _reader(parts[0])
        return lambda value: None if value is None else some(value)
    if get_origin(hint) is tuple:
        each = _reader(parts[0])
        return lambda values: tuple(each(value) for value in values)
    return lambda value: value


#: Duration, as the API writes it.
Microseconds = int


class Header(NamedTuple):
    """A header field."""

    name: str
    value: str


@dataclass(frozen=True)
class Request:
    """The request of a job, before any policy."""

    method: str
    url: str
    headers: tuple[Header, ...]


@dataclass(frozen=True)
class SentRequest:
    """The request that an attempt sent. ``(key NAME)`` stands for a value that is a key."""

    method: str
    url: str
    headers: tuple[Header, ...]
    #: The body; None if it is not text.
    body: Optional[str]
    #: SHA-256 of the request, as the attempt records it.
    digest: str
    #: The body in base64; None if it is text.
    body_base64: Optional[str] = None


@dataclass(frozen=True)
class Job:
    """A job at the time of the response."""

    #: Also sent as ``Idempotency-Key`` with every attempt.
    id: str
    group: str
    state: JobState
    #: Due time of the next attempt, or of the last one.
    run_at: datetime
    #: Time of acceptance.
    created_at: datetime
    #: Time at which it reached a final state.
    finished_at: Optional[datetime]
    #: Time at which it expires unless an attempt has begun.
    deadline: Optional[datetime]
    #: Attempts that count.
    attempt_count: int
    #: Status of the newest response.
    last_status: Optional[int]
    #: Code of the newest error.
    last_error: Optional[str]
    #: Whether the job will be cancelled instead of retried.
    cancel_requested: bool
    priority: int
    order_key: Optional[str]
    name: Optional[str]
    metadata: Metadata
    metadata_headers: bool
    seed: int
    payload_bytes: int
    #: None for a job that consumers pull.
    request: Optional[Request]
    #: Id of the job that it follows, or is a copy of.
    parent: Optional[str] = None
    #: Version of the group's policy that it is pinned to; None if it follows the group.
    binding: Optional[int] = None
    #: Reason why this is another job than the posted one; None if it is the posted one.
    instead: Optional[Instead] = None

    @property
    def is_finished(self) -> bool:
        """Whether the job has reached a final state."""
        return self.state not in ("scheduled", "running")


@dataclass(frozen=True)
class Batch:
    """Result of a batch."""

    #: In the order of the batch. Where another job was returned instead of the posted one, its id.
    ids: tuple[str, ...]
    #: Ids of jobs that were returned instead of posted ones.
    instead: int = 0


@dataclass(frozen=True)
class Decision:
    """Decision about a job after an attempt."""

    state: JobState
    reason: str
    next_run_at: Optional[datetime] = None


@dataclass(frozen=True)
class Verdict:
    """Judgement of a response."""

    outcome: Outcome
    reason: str


@dataclass(frozen=True)
class AttemptError:
    """Error of an attempt: a stable code (``stage.reason``), and a sentence for people."""

    code: str
    message: str


@dataclass(frozen=True)
class Attempt:
    """One attempt of a job."""

    #: From 1.
    number: int
    started_at: datetime
    finished_at: datetime
    #: Status of the response; None if there was no response.
    status: Optional[int]
    #: Stored beginning of the response's body; None if it is not text.
    response_body: Optional[str]
    #: Whether the attempt counts. It does not if nothing was sent, or if a stop of the server interrupted it.
    spent: bool
    decision: Optional[Decision]
    verdict: Optional[Verdict] = None
    error: Optional[AttemptError] = None
    response_headers: tuple[Header, ...] = ()
    response_truncated: bool = False
    #: The same in base64; None if it is text.
    response_body_base64: Optional[str] = None
    #: SHA-256 of the sent request.
    request_digest: Optional[str] = None
    #: URLs that redirects led to.
    redirects: tuple[str, ...] = ()
    #: Random seed of the policies.
    seed: Optional[int] = None
    #: Version of the group's policy that decided.
    binding_version: Optional[int] = None
    #: Durations by stage: ``late``, ``prepare``, ``exchange``, ``connect`` (a part of it), ``decide``.
    timings: Mapping[str, Microseconds] = field(default_factory=dict)
    #: Calls of policies, in order, in the API's form.
    plugins: tuple[Mapping[str, Any], ...] = ()


@dataclass(frozen=True)
class Arm:
    """Counts of a version's attempts."""

    attempts: int
    #: Attempts with a fault of a policy.
    faults: int
    #: Attempts that were sent and did not succeed.
    failures: int


@dataclass(frozen=True)
class Canary:
    """A version that some of a group's jobs follow, with the counts of the answering node."""

    version: int
    #: Percentage of jobs that follow it.
    percent: int
    since: datetime
    #: It is rolled back when a larger share of its attempts has a fault.
    max_faults: float
    #: It is rolled back when its share of failed attempts exceeds that of the version in force by more than this.
    max_differences: float
    #: Attempts of each version before either is judged.
    min_attempts: int
    canary: Arm
    active: Arm


@dataclass(frozen=True)
class Quarantined:
    """A policy that failed too often and is not called for a while, on the answering node."""

    #: Version of the group's policy that it belongs to.
    version: int
    #: Whether that version runs in shadow, which affects no delivery.
    shadow: bool
    role: Role
    plugin: str
    digest: str
    #: Begin of the quarantine.
    since: datetime
    #: End of the quarantine.
    until: datetime
    #: Code of its last fault.
    fault: str


@dataclass(frozen=True)
class Group:
    """A group: the policy and the limits of its jobs."""

    name: str
    version: int
    #: Version of its policy that is in force.
    binding: int
    paused: bool
    created_at: datetime
    updated_at: datetime
    encode: Optional[list[PolicyPlugin]] = None
    sign: Optional[PolicyPlugin] = None
    judge: Optional[PolicyPlugin] = None
    retry: Optional[PolicyPlugin] = None
    observe: Optional[PolicyPlugin] = None
    limits: Optional[GroupLimits] = None
    #: Headers of every request whose values are keys: header to name of the key.
    auth_headers: Optional[Mapping[str, str]] = None
    tls: Optional[GroupTls] = None
    dead_letters: Optional[str] = None
    pin: Optional[Pin] = None
    rollback_on_quarantine: Optional[bool] = None
    #: Layer that each value comes from, by JSON pointer; with ``effective=True`` only.
    sources: Optional[Mapping[str, str]] = None
    #: What all groups of its tenant may use together; with ``effective=True``.
    quota: Optional[Quota] = None
    #: Reason why no job of this group runs: something that its policy refers to is missing.
    broken: Optional[str] = None
    #: Policies that failed too often and are not called for a while.
    quarantined: tuple[Quarantined, ...] = ()
    #: Texts about settings that need attention, such as deprecated plugins.
    warnings: tuple[str, ...] = ()
    #: Version that some of its jobs follow.
    canary: Optional[Canary] = None
    #: Counts of its observer since the server started; None if it has no observer.
    observer: Optional[Mapping[str, Any]] = None


@dataclass(frozen=True)
class ChangedGroup(Group):
    """A group after a change, with the names of the effective settings that differ: roles, ``limits`` and others."""

    #: Settings that are gone.
    removed: tuple[str, ...] = ()
    added: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()


@dataclass(frozen=True)
class BoundPlugin:
    """A plugin in a role."""

    role: Role
    #: ``name@version``.
    plugin: str
    digest: str


@dataclass(frozen=True)
class By:
    """Author of a change."""

    #: Id of the token; None for a part of the server.
    token: Optional[str]
    #: Name of the token when it was used: a label that proves nothing.
    name: str


@dataclass(frozen=True)
class Version:
    """A version of a group's policy. It never changes."""

    #: Number of the version; attempts have it as ``binding_version``.
    version: int
    #: Whether it is in force.
    active: bool
    made_at: datetime
    #: Author; None if the server requires no tokens, or created it by itself.
    by: Optional[By]
    why: Optional[str]
    #: Roles that it sets; the rest is inherited.
    policy: RoleFields
    #: Plugins that it resolved to when it was created, inherited ones included.
    plugins: tuple[BoundPlugin, ...]


@dataclass(frozen=True)
class Proposed(Version):
    """A new version, with the names of the roles that differ from the version in force."""

    #: Roles that it would end.
    removed: tuple[str, ...] = ()
    added: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    #: Texts about roles that need attention before it is put in force.
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Move:
    """A change of the version in force."""

    at: datetime
    action: MoveAction
    #: Version before the change; None when the group was created.
    from_version: Optional[int]
    #: Version after the change.
    to_version: int
    by: Optional[By]
    why: Optional[str]
    #: Whether the server made the change by itself.
    automatic: bool
    #: Percentage of jobs that follow it; None if it is in force for all.
    percent: Optional[int] = None


@dataclass(frozen=True)
class Replay:
    """Result of deciding a recorded attempt again with a version."""

    #: Version that decided again.
    version: int
    #: Whether all of its decisions are the same.
    same: bool
    job: str
    attempt: int
    #: Parts that differ: ``request``, ``judge``, ``retry``; separated by commas.
    different: str
    #: Recorded decisions, in the API's form.
    said: Mapping[str, Any]
    #: Decisions of the version; None if it could not be called.
    shadow: Optional[Mapping[str, Any]]
    #: Codes of its faults.
    faults: tuple[str, ...]
    #: Known reasons why the decisions may differ although the policies do not.
    caveats: tuple[str, ...]
    #: Whether its judgement differs, but may do so only because less of the response is stored than the first judge saw.
    uncertain: bool = False
    #: Differences from the sent request, byte for byte, in the API's form; None if they are not known.
    request: Optional[Mapping[str, Any]] = None


@dataclass(frozen=True)
class Backtest:
    """Result of deciding the recorded attempts of some jobs again with a version, newest jobs first."""

    version: int
    #: Jobs of this page.
    jobs: int
    #: Attempts that were decided again.
    attempts: int
    #: Attempts whose decisions are all the same.
    same: int
    #: Attempts that differ, by part: ``request``, ``judge``, ``retry``.
    different: Mapping[str, int]
    #: Faults by code.
    faults: Mapping[str, int]
    #: Fuel that the recorded calls took.
    fuel: int
    #: Fuel that the calls of this version took.
    backtest_fuel: int
    #: Attempts that differ, in the API's form.
    differences: tuple[Mapping[str, Any], ...]
    #: Attempts that could not be decided again: ``job``, ``attempt``, ``why``.
    skipped: tuple[Mapping[str, Any], ...]
    next_cursor: Optional[str]
    #: All selected jobs; on the first page only.
    total_jobs: Optional[int] = None
    #: Attempts whose judgement differs, but for which less of the response is stored than the first judge saw.
    uncertain: int = 0


@dataclass(frozen=True)
class Shadow:
    """Comparison of a shadow version with the version in force so far, on one node."""

    version: int
    #: Percentage of attempts that it is called for.
    percent: int
    since: datetime
    by: Optional[By]
    #: Attempts that it was called for.
    attempts: int
    #: Attempts whose decisions are all the same.
    same: int
    #: Attempts that differ, by part: ``request``, ``judge``, ``retry``.
    different: Mapping[str, int]
    #: Faults by code.
    faults: Mapping[str, int]
    #: Attempts that it was not called for, because too many waited.
    dropped: int
    #: Fuel that the calls of the version in force took.
    fuel: int
    #: Fuel that the calls of the shadow took.
    shadow_fuel: int
    #: The 20 newest, newest first, in the API's form.
    differences: tuple[Mapping[str, Any], ...]


@dataclass(frozen=True)
class Stats:
    """Exact counts of a group's jobs."""

    #: Jobs that can be leased or delivered now.
    available: int
    #: Jobs that wait for their time, or for their order key.
    delayed: int
    #: Jobs that are leased or being delivered.
    in_flight: int
    scheduled: int
    running: int
    succeeded: int
    dead: int
    expired: int
    cancelled: int


@dataclass(frozen=True)
class Schedule:
    """A schedule, which creates jobs at recurring times."""

    name: str
    version: int
    group: str
    cron: str
    time_zone: str
    overlap: Overlap
    jitter: str
    catch_up: str
    catch_up_all: bool
    paused: bool
    #: Jobs that it has created: on time, by hand and by backfills.
    runs: int
    #: Runs that created no job; the history lists them.
    skipped: int
    #: The job that it creates, in the API's form.
    job: Mapping[str, Any]
    #: At most ten; empty while it is paused or broken.
    next_runs: tuple[datetime, ...]
    created_at: datetime
    updated_at: datetime
    #: The same times in its time zone, with their offset, as the API writes them.
    next_runs_local: tuple[str, ...] = ()
    last_run: Optional[datetime] = None
    start: Optional[datetime] = None
    end: Optional[datetime] = None
    max_runs: Optional[int] = None
    #: Jobs that ``max_runs`` still allows.
    runs_left: Optional[int] = None
    #: Reason why the newest run created no job; None if it did.
    last_skip: Optional[SkipReason] = None
    broken: Optional[str] = None
    #: Only in the response to a change.
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class ScheduleRun:
    """A run of a schedule, or several consecutive runs that were skipped for the same reason."""

    #: Due time without jitter; of several runs, that of the last one.
    tick: datetime
    #: Id of its job.
    job: Optional[str] = None
    #: Reason why it created no job on time; None if it did.
    skipped: Optional[SkipReason] = None
    #: The same in a sentence.
    reason: Optional[str] = None
    #: Due time of the first of several runs.
    first: Optional[datetime] = None
    #: Number of runs.
    count: Optional[int] = None


@dataclass(frozen=True)
class Backfill:
    """Result of a backfill: ``ticks`` runs in the range, ``created`` new jobs."""

    ticks: int
    created: int


@dataclass(frozen=True)
class Bulk:
    """Progress of a bulk change."""

    #: None for a dry run.
    id: Optional[str]
    action: BulkAction
    group: str
    #: Jobs that matched the filter at the time of the request.
    total: int
    #: Jobs that were changed.
    done: int
    #: Jobs that had left the state before they were reached.
    skipped: int
    finished: bool
    created_at: datetime
    finished_at: Optional[datetime]


@dataclass(frozen=True)
class Lease:
    """A leased job."""

    #: Identifies the lease.
    token: str
    #: Time at which it ends unless it is extended.
    expires_at: datetime
    #: Number of the attempt, from 1.
    attempt: int
    job: Job
    #: A JSON value, a text, or bytes, as ``form`` says.
    payload: Any
    form: PayloadForm

    @classmethod
    def of(cls, doc: Mapping[str, Any]) -> Lease:
        """Reads a lease from a JSON object.

        Raises KeyError for a missing field.
        """
        form: PayloadForm
        if "payload" in doc:
            form, payload = "json", doc["payload"]
        elif "payload_text" in doc:
            form, payload = "text", doc["payload_text"]
        else:
            form, payload = "bytes", base64.b64decode(doc["payload_base64"], validate=True)
        expires_at = read_time(doc["expires_at"])
        return cls(doc["token"], expires_at, doc["attempt"], read(Job, doc["job"]), payload, form)


@dataclass(frozen=True)
class Ended:
    """State of a job after the end of its lease, and the due time of the next attempt, if there is one."""

    state: JobState
    next_run_at: Optional[datetime]


@dataclass(frozen=True)
class Actor:
    """Author of a change or of a request in the audit log."""

    kind: ActorKind
    #: Id of the token; None for other kinds.
    token: Optional[str]
    #: Name of the token when it was used: a label that proves nothing.
    name: Optional[str]
    #: Role of the token.
    role: Optional[str]
    #: Whether it is the token of an operator.
    operator: bool


@dataclass(frozen=True)
class AuditObject:
    """Thing that an entry of the audit log is about."""

    kind: str
    name: Optional[str]
    version: Optional[str]


@dataclass(frozen=True)
class AuditEvent:
    """An entry of the audit log."""

    id: str
    at: datetime
    #: Name of the node that made the change.
    node: str
    actor: Actor
    #: Name of the tenant; None for entries of the server, which only operators see.
    tenant: Optional[str]
    #: What was done, or was refused: ``key.put``.
    verb: str
    object: AuditObject
    #: JSON pointers to the members that changed.
    changed: tuple[str, ...]
    address: Optional[str]
    #: Id of the request, which its response has as ``Carillon-Request-Id``.
    request_id: Optional[str]
    outcome: AuditOutcome
    #: Number of equal requests that the entry stands for.
    count: int


@dataclass(frozen=True)
class AuditEntry(AuditEvent):
    """An entry of the audit log, with its place among the entries of its node."""

    number: int
    #: Digest of the entry before; empty for the first.
    previous: str
    digest: str


@dataclass(frozen=True)
class BrokenLink:
    """A fault in the audit log."""

    node: str
    #: Number of the entry among those of the node.
    number: int
    fault: ChainFault


@dataclass(frozen=True)
class AuditVerification:
    """Result of a verification of a part of the audit log."""

    #: Number of verified entries.
    verified: int
    #: Entries that are not as they were written, or before which others are missing.
    broken: tuple[BrokenLink, ...]
    #: Cursor of the next part; None if this was the last one.
    next_cursor: Optional[str]


@dataclass(frozen=True)
class Event:
    """An event. The kind determines which fields are set."""

    #: Increases with every event; ``last_event_id`` takes it.
    id: str
    #: ``push``, ``pop``, ``complete``, ``retry``, …; ``gap`` means that events before this one are missing. More may be added.
    kind: str
    at: datetime
    group: Optional[str] = None
    job: Optional[str] = None
    name: Optional[str] = None
    attempt: Optional[int] = None
    status: Optional[int] = None
    error: Optional[str] = None
    run_at: Optional[datetime] = None
    reason: Optional[str] = None
    count: Optional[int] = None
    schedule: Optional[str] = None
    #: Scheme, host and port of the receiver that a circuit breaker or pause is about.
    origin: Optional[str] = None
    #: Version of the group's policy that the event is about.
    binding: Optional[int] = None
    #: Entry of the audit log, for admins.
    audit: Optional[AuditEvent] = None
    metadata: Metadata = field(default_factory=dict)


@dataclass(frozen=True)
class KeyVersion:
    """A version of a key."""

    version: int
    kind: KeyKind
    usable: bool
    created_at: datetime
    #: Time at which it ends; None for the newest version, and for versions that stay until they are deleted.
    expires_at: Optional[datetime] = None
    #: Public key of an ``ed25519`` key, in base64.
    public_key: Optional[str] = None


@dataclass(frozen=True)
class Key:
    """A key of signers, without its secret."""

    name: str
    kind: KeyKind
    #: Number of the newest version; ``kind`` and ``usable`` are about that version, too.
    version: int
    #: False if the key was encrypted under another master key than the server's.
    usable: bool
    created_at: datetime
    updated_at: datetime
    #: Versions that have not expired, newest first; several while the key is rotated.
    versions: tuple[KeyVersion, ...] = ()
    #: Names of the groups that may use it; None means all groups.
    groups: Optional[tuple[str, ...]] = None
    #: Origins that it may go to; None means all origins.
    origins: Optional[tuple[str, ...]] = None


@dataclass(frozen=True)
class Token:
    """An API token."""

    id: str
    name: str
    role: AccessRole
    tenant: str
    operator: bool
    created_at: datetime
    #: Time at which it expires; None if it is valid until it is deleted.
    expires_at: Optional[datetime] = None
    #: Time of the last use, to the minute.
    last_used_at: Optional[datetime] = None
    #: Address of the last use.
    last_used_from: Optional[str] = None
    #: Names of the groups that it sees and touches; None for all.
    groups: Optional[list[str]] = None
    #: Networks from which it is accepted; None for all.
    addresses: Optional[list[str]] = None
    #: The ``id`` and ``name`` of the token whose bearer made it.
    created_by: Optional[dict[str, str]] = None
    #: Whether it was made while authentication was disabled: then it is not valid.
    unauthenticated: bool = False
    #: The secret text; returned by ``create`` and ``rotate`` only.
    token: Optional[str] = field(default=None, repr=False)


@dataclass(frozen=True)
class Plugin:
    """A version of a plugin, which is a component that implements policies."""

    name: str
    version: str
    digest: str
    roles: tuple[Role, ...]
    summary: str
    size: int
    builtin: bool
    #: Whether the server's operator shares it with tenants.
    shared: bool
    created_at: datetime
    state: PluginState
    #: Time of the validation; for built-in plugins, the start of the server.
    validated_at: datetime
    #: Name of the tenant's signer that signed it; None if it is unsigned.
    signed_by: Optional[str] = None
    #: Reason for its deprecation; None if it is not deprecated.
    deprecated: Optional[str] = None
    #: JSON Schema; returned by ``get`` only.
    config_schema: Optional[Mapping[str, Any]] = None
    #: Tenants that it is shared with, for operators; None if with all.
    tenants: Optional[tuple[str, ...]] = None


@dataclass(frozen=True)
class Tenant:
    """A tenant: the defaults and the quota of its groups, and the signers of its plugins."""

    name: str
    defaults: GroupFields
    quota: Quota
    #: Each has a ``name`` and a ``public_key`` (Ed25519, in PEM). If empty, plugins need no signature.
    plugin_signers: tuple[Mapping[str, str], ...]
    #: Counts of its ``groups``, ``plugins`` and ``plugin_bytes``.
    usage: Mapping[str, int]
    created_at: datetime
    #: Whether its tokens are refused, and nothing is delivered, ticked or leased.
    suspended: bool = False


@dataclass(frozen=True)
class ChangedTenant(Tenant):
    """A tenant after a change, with the names of the settings that differ, such as ``defaults.sign`` or ``quota.rate``."""

    #: Settings that are gone.
    removed: tuple[str, ...] = ()
    added: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()


@dataclass(frozen=True)
class Identity:
    """Identity of the caller."""

    #: Name of the token, or its id if it has no name; None if the server requires no tokens.
    token: Optional[str]
    role: AccessRole
    #: Whether the caller also manages tenants.
    operator: bool
    tenant: str
    #: Quota of the tenant.
    quota: Quota
    #: Largest use that the tenant may make: its quota, and the server's defaults for the rest.
    limits: Mapping[str, Optional[int]]
    #: What the tenant has of what its limits bound; ``stored_bytes`` is None while they are counted for the first time after a start.
    usage: Mapping[str, Optional[int]]
    #: Settings that the tenant's groups inherit.
    defaults: GroupFields
    #: Names of the groups that the token sees and touches; None for all.
    groups: Optional[list[str]] = None


@dataclass(frozen=True)
class Node:
    """A node that shares the server's database, or did so in the last few minutes."""

    id: str
    name: str
    address: str
    version: str
    process: int
    running: int
    capacity: int
    stopping: bool
    alive: bool
    since: datetime
    last_seen_at: datetime
