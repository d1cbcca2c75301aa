"""What the server answers, as frozen dataclasses; their times have a time zone (UTC).

They are read from the answer's JSON by their types. A field that a later server adds is ignored; one that should be there and is not
raises ``KeyError``, which a client turns into a ``Problem``.
"""

from __future__ import annotations

import base64
from collections.abc import Hashable, Mapping
from dataclasses import MISSING, dataclass, field, fields, is_dataclass
from datetime import datetime
from functools import cache, partial
from typing import Any, Callable, NamedTuple, Optional, TypeVar, Union, cast, get_args, get_origin, get_type_hints

from carillon.times import read_time

#: A job's labels: texts, or one level of namespaces.
Metadata = dict[str, Union[str, dict[str, str]]]

_M = TypeVar("_M")

#: Turns a part of an answer's JSON into the value of a field.
_Reader = Callable[[Any], Any]


def read(model: type[_M], doc: Any) -> _M:
    """An instance of the dataclass ``model`` from a JSON object.

    Raises KeyError for a field that is missing, and TypeError or ValueError for what is something else.
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
    """How each field of a dataclass is read, and whether the answer must have it."""
    hints = get_type_hints(model)
    is_needed = {part.name: part.default is MISSING and part.default_factory is MISSING for part in fields(model)}
    return {name: (needed, _reader(hints[name])) for name, needed in is_needed.items()}


def _reader(hint: Any) -> _Reader:
    """How a field of this type is read: times and dataclasses are converted, lists become tuples."""
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


#: A length of time, as the API writes it.
Microseconds = int


class Header(NamedTuple):
    """A header."""

    name: str
    value: str


@dataclass(frozen=True)
class Request:
    """What is to be delivered, before any policy."""

    method: str
    url: str
    headers: tuple[Header, ...]


@dataclass(frozen=True)
class SentRequest:
    """The request of an attempt as it went out; where a value is a key, ``(key NAME)`` stands for it."""

    method: str
    url: str
    headers: tuple[Header, ...]
    #: The body, if it is text.
    body: Optional[str]
    #: The sha-256 that the attempt records.
    digest: str
    #: The body as base64, if it is no text.
    body_base64: Optional[str] = None


@dataclass(frozen=True)
class Job:
    """A job as it was when the server answered."""

    #: Its id, which is also its ``Idempotency-Key`` with every attempt.
    id: str
    group: str
    #: ``scheduled``, ``running``, ``succeeded``, ``dead``, ``expired`` or ``cancelled``.
    state: str
    #: When its next attempt is, or its last one was, due.
    run_at: datetime
    #: When it was accepted.
    created_at: datetime
    #: When it reached its final state.
    finished_at: Optional[datetime]
    #: It ends as ``expired`` if no attempt has begun by then.
    deadline: Optional[datetime]
    #: How many attempts it has spent.
    attempt_count: int
    #: The status of the newest answer, and the code of the newest error.
    last_status: Optional[int]
    last_error: Optional[str]
    #: Whether it will be cancelled instead of retried.
    cancel_requested: bool
    priority: int
    order_key: Optional[str]
    name: Optional[str]
    metadata: Metadata
    metadata_headers: bool
    seed: int
    payload_bytes: int
    #: None for a job to be pulled.
    request: Optional[Request]
    #: The job that it follows.
    parent: Optional[str] = None
    #: The version of its group's policy that it keeps, if its group pins its jobs.
    binding: Optional[int] = None
    #: Whether this is another job than the posted one, and why: ``duplicate`` or ``debounced``.
    instead: Optional[str] = None

    @property
    def is_finished(self) -> bool:
        """Whether it has reached a final state."""
        return self.state not in ("scheduled", "running")


@dataclass(frozen=True)
class Batch:
    """What became of a batch."""

    #: In the order of the batch; those of other jobs where they stand for the posted ones.
    ids: tuple[str, ...]
    #: How many are those of other jobs.
    instead: int = 0


@dataclass(frozen=True)
class Decision:
    """What became of a job after an attempt."""

    state: str
    reason: str
    next_run_at: Optional[datetime] = None


@dataclass(frozen=True)
class Verdict:
    """What an answer was judged to be: ``success``, ``retryable`` or ``permanent``."""

    outcome: str
    reason: str


@dataclass(frozen=True)
class AttemptError:
    """What went wrong: a stable code, ``stage.reason``, and a sentence."""

    code: str
    message: str


@dataclass(frozen=True)
class Attempt:
    """One try of a job."""

    #: From 1.
    number: int
    started_at: datetime
    finished_at: datetime
    #: The answer's status, and the first 4 KiB of its body if they are text; None if there was none.
    status: Optional[int]
    response_body: Optional[str]
    #: False if nothing was sent, or a stop interrupted it: the number is used again.
    spent: bool
    decision: Optional[Decision]
    verdict: Optional[Verdict] = None
    error: Optional[AttemptError] = None
    response_headers: tuple[Header, ...] = ()
    response_truncated: bool = False
    #: The body as base64, if it is not text.
    response_body_base64: Optional[str] = None
    #: The sha-256 of the request as it was sent, and where redirects led.
    request_digest: Optional[str] = None
    redirects: tuple[str, ...] = ()
    #: The randomness that the policies were given, and the version of the group's binding that was in force.
    seed: Optional[int] = None
    binding_version: Optional[int] = None
    #: How long each stage took: ``late``, ``prepare``, ``exchange``, ``decide``.
    timings: Mapping[str, Microseconds] = field(default_factory=dict)
    #: Which component decided what, in the order of the calls.
    plugins: tuple[Mapping[str, Any], ...] = ()


@dataclass(frozen=True)
class Arm:
    """What came of a version's attempts."""

    attempts: int
    #: Those with a fault of a policy.
    faults: int
    #: Those that were sent, and were no success.
    failures: int


@dataclass(frozen=True)
class Canary:
    """A version that some of a group's jobs follow, and how it does on the node that answers."""

    version: int
    #: How many of a hundred jobs follow it.
    percent: int
    since: datetime
    #: When it is taken back.
    max_faults: float
    max_differences: float
    min_attempts: int
    canary: Arm
    active: Arm


@dataclass(frozen=True)
class Quarantined:
    """A policy that failed too often, and is not called for a while on the node that answers."""

    #: The version of the group's policy that it is a part of.
    version: int
    #: Whether that runs in shadow: then no delivery goes without it.
    shadow: bool
    role: str
    plugin: str
    digest: str
    #: When it failed once too often, and when it is called again.
    since: datetime
    until: datetime
    #: The code of its last fault.
    fault: str


@dataclass(frozen=True)
class Group:
    """A group: what policy and which limits its jobs have."""

    name: str
    version: int
    #: The version of its policy that is in force.
    binding: int
    paused: bool
    created_at: datetime
    updated_at: datetime
    encode: Optional[list[Mapping[str, Any]]] = None
    sign: Optional[Mapping[str, Any]] = None
    judge: Optional[Mapping[str, Any]] = None
    retry: Optional[Mapping[str, Any]] = None
    observe: Optional[Mapping[str, Any]] = None
    limits: Optional[Mapping[str, Any]] = None
    #: Headers of every request whose values are keys: header to name of the key.
    auth_headers: Optional[Mapping[str, str]] = None
    dead_letters: Optional[str] = None
    #: Which version of the policy a job follows: ``group`` or ``job``.
    pin: Optional[str] = None
    rollback_on_quarantine: Optional[bool] = None
    #: Which layer each value comes from, by JSON pointer; with ``effective=True``.
    sources: Optional[Mapping[str, str]] = None
    #: What all groups of its tenant may use together; with ``effective=True``.
    quota: Optional[Mapping[str, Any]] = None
    #: Why nothing of this group runs, if something that its policy refers to has gone.
    broken: Optional[str] = None
    #: The policies that failed too often and are not called for a while.
    quarantined: tuple[Quarantined, ...] = ()
    #: What should be looked at, such as plugins that are deprecated.
    warnings: tuple[str, ...] = ()
    #: The version that some of its jobs follow, if they do.
    canary: Optional[Canary] = None
    #: What its observer has done since the server started, if it has one.
    observer: Optional[Mapping[str, Any]] = None


@dataclass(frozen=True)
class ChangedGroup(Group):
    """A group after a change, with the names of what is in force differently: roles, ``limits`` and the like."""

    #: What was there before and is not any more.
    removed: tuple[str, ...] = ()
    added: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()


@dataclass(frozen=True)
class BoundPlugin:
    """A plugin in a role."""

    role: str
    #: ``name@version``.
    plugin: str
    digest: str


@dataclass(frozen=True)
class Version:
    """A version of a group's policy. It never changes."""

    #: Its number: attempts name it as ``binding_version``.
    version: int
    #: Whether it is in force.
    active: bool
    made_at: datetime
    #: The name of the token that made it, or the part of the server.
    by: Optional[str]
    why: Optional[str]
    #: What it says of the roles; the rest is inherited.
    policy: Mapping[str, Any]
    #: The plugins that it came to when it was made, inherited ones included.
    plugins: tuple[BoundPlugin, ...]


@dataclass(frozen=True)
class Proposed(Version):
    """A new version, with the names of the roles that would be different from the version in force."""

    #: What would be there no longer.
    removed: tuple[str, ...] = ()
    added: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    #: What should be looked at before it is put in force.
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Move:
    """A change of what is in force."""

    at: datetime
    #: ``bind``, ``promote``, ``rollback``, ``canary`` or ``unquarantine``. More may be added.
    action: str
    #: The version before; None when the group was made.
    from_version: Optional[int]
    #: The version then.
    to_version: int
    by: Optional[str]
    why: Optional[str]
    #: Whether the server did it by itself.
    automatic: bool
    #: How many of a hundred jobs follow it, if it is not in force for all.
    percent: Optional[int] = None


@dataclass(frozen=True)
class Replay:
    """What a version says of an attempt that is over."""

    #: The version that decided again.
    version: int
    #: Whether it says the same in everything.
    same: bool
    job: str
    attempt: int
    #: What is different: ``request``, ``judge``, ``retry``; separated by commas.
    different: str
    #: What was said, and what is said now, as the API says it; None if the version could not be asked.
    said: Mapping[str, Any]
    shadow: Optional[Mapping[str, Any]]
    #: The codes of its faults.
    faults: tuple[str, ...]
    #: Why it may say something else, as far as it is known that something is not as it was.
    caveats: tuple[str, ...]
    #: Whether it judges otherwise, but saw less of the answer than the judge that decided: so that may be no difference.
    uncertain: bool = False
    #: Where its request differs from the one that was sent, to the byte, as the API says it; None if that is not known.
    request: Optional[Mapping[str, Any]] = None


@dataclass(frozen=True)
class Backtest:
    """What a version would have made of the attempts of some jobs, newest jobs first."""

    version: int
    #: How many jobs were looked at here, and how many there are in all: that is said with the first ones only.
    jobs: int
    #: Attempts that were decided again, and those of which it said the same in everything.
    attempts: int
    same: int
    #: Those of which it did not, by what was different: ``request``, ``judge``, ``retry``.
    different: Mapping[str, int]
    #: Its faults by code.
    faults: Mapping[str, int]
    #: What the calls took of the versions that decided, and its own.
    fuel: int
    backtest_fuel: int
    #: Every attempt of which it said something else, as the API says it.
    differences: tuple[Mapping[str, Any], ...]
    #: Attempts that could not be decided again: ``job``, ``attempt``, ``why``.
    skipped: tuple[Mapping[str, Any], ...]
    next_cursor: Optional[str]
    total_jobs: Optional[int] = None
    #: Those that it judges otherwise, but of which less of the answer was kept than the judge that decided saw.
    uncertain: int = 0


@dataclass(frozen=True)
class Shadow:
    """What a version that runs beside the one in force has said so far, on one node."""

    version: int
    #: How many of a hundred attempts it is shown.
    percent: int
    since: datetime
    by: Optional[str]
    #: Attempts that it was shown, and those of which it said the same in everything.
    attempts: int
    same: int
    #: Those of which it did not, by what was different: ``request``, ``judge``, ``retry``.
    different: Mapping[str, int]
    #: Its faults by code.
    faults: Mapping[str, int]
    #: Attempts that it was not shown, because too many waited.
    dropped: int
    #: What the calls took of the version that decided, and its own.
    fuel: int
    shadow_fuel: int
    #: The newest 20, newest first, as the API says them.
    differences: tuple[Mapping[str, Any], ...]


@dataclass(frozen=True)
class Stats:
    """How many of a group's jobs are where; exact."""

    #: Can be leased or delivered now.
    available: int
    #: Waits for its time, or for its order key.
    delayed: int
    #: Leased, or being delivered.
    in_flight: int
    scheduled: int
    running: int
    succeeded: int
    dead: int
    expired: int
    cancelled: int


@dataclass(frozen=True)
class Schedule:
    """A schedule, which makes jobs again and again."""

    name: str
    version: int
    group: str
    cron: str
    time_zone: str
    overlap: str
    jitter: str
    catch_up: str
    catch_up_all: bool
    paused: bool
    #: How many jobs it has made, by the clock, by hand and by backfills.
    runs: int
    #: How many of its runs made no job; its history says which.
    skipped: int
    #: What runs: a job as it is posted.
    job: Mapping[str, Any]
    #: At most ten; none while it is paused or broken.
    next_runs: tuple[datetime, ...]
    created_at: datetime
    updated_at: datetime
    #: The same times on the clocks of its time zone, with their offset, as the API writes them.
    next_runs_local: tuple[str, ...] = ()
    last_run: Optional[datetime] = None
    start: Optional[datetime] = None
    end: Optional[datetime] = None
    max_runs: Optional[int] = None
    #: How many more jobs ``max_runs`` lets it make.
    runs_left: Optional[int] = None
    #: Why the newest run made no job, if it did not.
    last_skip: Optional[str] = None
    broken: Optional[str] = None


@dataclass(frozen=True)
class ScheduleRun:
    """A run of a schedule, or several that were skipped one after the other for the same reason."""

    #: When it was due, without jitter; of several, the last one.
    tick: datetime
    #: The id of its job.
    job: Optional[str] = None
    #: Why it made no job on its time, in a word and in a sentence.
    skipped: Optional[str] = None
    reason: Optional[str] = None
    #: When the first of several was due, and how many they are.
    first: Optional[datetime] = None
    count: Optional[int] = None


@dataclass(frozen=True)
class Backfill:
    """What a backfill made: of ``ticks`` runs in the range, ``created`` jobs."""

    ticks: int
    created: int


@dataclass(frozen=True)
class Bulk:
    """How far a change of many jobs has come."""

    #: None for a dry run.
    id: Optional[str]
    action: str
    group: str
    #: How many jobs there were when it was asked for, how many were changed, and how many were in another state by then.
    total: int
    done: int
    skipped: int
    finished: bool
    created_at: datetime
    finished_at: Optional[datetime]


@dataclass(frozen=True)
class Lease:
    """A leased job."""

    #: Names the lease.
    token: str
    #: When it ends, unless it is extended.
    expires_at: datetime
    #: Which try this is, from 1.
    attempt: int
    job: Job
    #: The payload: the JSON value, a text, or bytes.
    payload: Any
    #: Which of them: ``json``, ``text`` or ``bytes``.
    form: str

    @classmethod
    def of(cls, doc: Mapping[str, Any]) -> Lease:
        """The lease that a JSON object means. Raises KeyError if a field is missing."""
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
    """Where a job stands after its lease was ended, and when it is tried again, if it is."""

    state: str
    next_run_at: Optional[datetime]


@dataclass(frozen=True)
class Event:
    """Something that happened. Which fields are set depends on the kind."""

    #: Rises for ever; to be given back as ``last_event_id``.
    id: str
    #: ``push``, ``pop``, ``complete``, ``retry``, …; ``gap`` says that events before this one are missing. More may be added.
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
    #: Of a receiver that is left alone, or is back: scheme, host and port.
    origin: Optional[str] = None
    #: The version of the group's policy that it is about.
    binding: Optional[int] = None
    metadata: Metadata = field(default_factory=dict)


@dataclass(frozen=True)
class KeyVersion:
    """One value of a key."""

    version: int
    kind: str
    usable: bool
    created_at: datetime
    #: When it ends; None for the newest, and for those that stay until they are removed.
    expires_at: Optional[datetime] = None
    #: In base64: what verifies an ``ed25519`` key's signatures.
    public_key: Optional[str] = None


@dataclass(frozen=True)
class Key:
    """A key that signers use; its secret never comes back."""

    name: str
    kind: str
    #: Of the newest.
    version: int
    #: False if the server's master key is not the one that it was encrypted under.
    usable: bool
    created_at: datetime
    updated_at: datetime
    #: All that have not expired, newest first. More than one: the key is being rotated.
    versions: tuple[KeyVersion, ...] = ()
    #: The names of the groups that may use it; None if all may.
    groups: Optional[tuple[str, ...]] = None


@dataclass(frozen=True)
class Token:
    """An API token."""

    id: str
    name: str
    #: ``viewer``, ``producer`` or ``admin``.
    role: str
    tenant: str
    operator: bool
    created_at: datetime
    #: When it ends; None if it is valid until it is revoked.
    expires_at: Optional[datetime] = None
    #: When it was last used, to the hour.
    last_used_at: Optional[datetime] = None
    #: The token itself: in the answer to its making, and never again.
    token: Optional[str] = field(default=None, repr=False)


@dataclass(frozen=True)
class Plugin:
    """A component that policies are made of."""

    name: str
    version: str
    digest: str
    roles: tuple[str, ...]
    summary: str
    size: int
    builtin: bool
    created_at: datetime
    #: ``validated``: what does not get that far is not kept.
    state: str
    #: When that was found out; of the server's own, when it started.
    validated_at: datetime
    #: Which of the tenant's signers had signed it, if it had any.
    signed_by: Optional[str] = None
    #: Why it should no longer be bound, if it should not.
    deprecated: Optional[str] = None
    #: A JSON Schema; in the answer about a single plugin.
    config_schema: Optional[Mapping[str, Any]] = None


@dataclass(frozen=True)
class Tenant:
    """A tenant, what its groups inherit, and what they may use together, and whose plugins it takes."""

    name: str
    defaults: Mapping[str, Any]
    quota: Mapping[str, Any]
    #: Whose plugins it takes: a name and an Ed25519 public key in PEM each. Anybody's who may upload, if there is none.
    plugin_signers: tuple[Mapping[str, str], ...]
    #: How many ``groups``, ``plugins`` and ``plugin_bytes`` it has.
    usage: Mapping[str, int]
    created_at: datetime


@dataclass(frozen=True)
class ChangedTenant(Tenant):
    """A tenant after a change, with the names of what is different: ``defaults.sign``, ``quota.rate``."""

    #: What was there before and is not any more.
    removed: tuple[str, ...] = ()
    added: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()


@dataclass(frozen=True)
class Identity:
    """Who is asking, and for which tenant."""

    #: The name of the token, or its id if it has no name; None where no token is asked for.
    token: Optional[str]
    role: str
    #: Whether it manages tenants, too.
    operator: bool
    tenant: str
    #: What the tenant's groups may use together.
    quota: Mapping[str, Any]
    #: How many ``groups``, ``plugins`` and ``plugin_bytes`` it has.
    usage: Mapping[str, int]
    #: What its groups inherit from it.
    defaults: Mapping[str, Any]


@dataclass(frozen=True)
class Node:
    """A node that shares the server's database, or did so a few minutes ago."""

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
