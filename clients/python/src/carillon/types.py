"""Types of values that requests and responses share: enumerations, and the documents of policies.

A ``Literal`` has the values of this version of the API. Responses are not checked against it: a value that a later server adds is
returned as it is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import Enum
from typing import Any, Final, Literal, Optional, TypedDict


class Unchanged(Enum):
    """Type of UNCHANGED."""

    UNCHANGED = "unchanged"


#: Value of an argument for which None has a meaning of its own: what it names stays as it is.
UNCHANGED: Final = Unchanged.UNCHANGED

#: State of a job; all but the first two are final.
JobState = Literal["scheduled", "running", "succeeded", "dead", "expired", "cancelled"]

#: What a judge says of a response.
Outcome = Literal["success", "retryable", "permanent"]

#: Part of a policy.
Role = Literal["encode", "sign", "judge", "retry", "observe"]

#: Rights of an API token; each includes those before it.
AccessRole = Literal["viewer", "producer", "admin"]

#: Author of a change in the audit log: the bearer of a token, a client without one, the configuration, the server itself.
ActorKind = Literal["token", "anonymous", "configuration", "system"]

#: Result in the audit log. ``requested``: recorded before it took effect.
AuditOutcome = Literal["done", "requested", "forbidden", "unauthenticated"]

#: Fault in the audit log.
ChainFault = Literal["changed", "missing", "truncated"]

#: Kind of a key: a shared secret, a private key that signs, or the value of a header.
KeyKind = Literal["secret", "ed25519", "header", "tls-client"]

#: Version of its group's policy that a job follows: the one in force, or the one that was in force when the job was accepted.
Pin = Literal["group", "job"]

#: What happens when a schedule's run comes while an earlier job is unfinished.
Overlap = Literal["skip", "queue", "cancel", "allow"]

#: Reason why a schedule's run created no job.
SkipReason = Literal["overlap", "too_late", "superseded", "max_runs", "ended", "group_missing", "group_broken", "paused"]

#: Bulk change of jobs.
BulkAction = Literal["cancel", "run", "reschedule", "redrive", "purge"]

#: Change of the version in force.
MoveAction = Literal["bind", "promote", "rollback", "canary", "unquarantine"]

#: State of a plugin's version.
PluginState = Literal["validated"]

#: Reason why another job than the posted one was returned.
Instead = Literal["duplicate", "debounced"]

#: Form of a payload.
PayloadForm = Literal["json", "text", "bytes"]

#: Version that omitted fields of a proposed policy are taken from.
PolicyBase = Literal["active"]


class PolicyPlugin(TypedDict, total=False):
    """A plugin in a role of a policy."""

    #: ``name``, or ``name@version`` for a plugin of the tenant's own. Without it, the inherited plugin gets another config.
    plugin: Optional[str]
    #: In the form of the plugin's own schema.
    config: Any
    #: Names of the keys that it may use; for ``sign`` only.
    keys: Optional[Sequence[str]]
    #: The group of the jobs that it may request; for ``observe`` only.
    jobs: Optional[str]


class RoleFields(TypedDict, total=False):
    """The roles of a policy; omitted ones are inherited. None removes an inherited signer or observer."""

    #: In order.
    encode: Optional[Sequence[PolicyPlugin]]
    sign: Optional[PolicyPlugin]
    judge: Optional[PolicyPlugin]
    retry: Optional[PolicyPlugin]
    observe: Optional[PolicyPlugin]


class PolicyFields(RoleFields, total=False):
    """A version of a policy."""

    #: Reason given by the author of the version.
    why: Optional[str]


class GroupLimits(TypedDict, total=False):
    """Limits of a group. Durations are texts as the API reads them, such as ``10s``."""

    #: Attempts that run at once.
    concurrency: Optional[int]
    #: Attempts that run at once against one receiver (scheme, host, port). Default: ``concurrency``.
    host_concurrency: Optional[int]
    #: Attempts that start in a period: ``100/s``, ``600/min``, ``5000/h``.
    rate: Optional[str]
    #: Attempts that may start at once after a pause. Default: the count of ``rate``.
    burst: Optional[int]
    #: Duration of one request.
    timeout: Optional[str]
    #: Time from the acceptance of a job until it expires. Retries do not restart it.
    ttl: Optional[str]
    #: Time after its due time within which an attempt may still start.
    max_delay: Optional[str]
    #: Redirects that a delivery follows, 0 to 10. Default: 0, which makes the redirect itself the response.
    redirects: Optional[int]
    #: Whether a redirect may lead from ``https`` to ``http``. Default: false, which makes such a redirect a failure.
    redirects_to_http: Optional[bool]
    #: Share of the started attempts, compared with the tenant's other groups that have due jobs: 1 (the default) to 100.
    weight: Optional[int]
    #: Bytes of a response's body that are stored with the attempt.
    recorded_body: Optional[int]


class GroupTls(TypedDict, total=False):
    """TLS to receivers."""

    #: Name of a key of the kind ``tls-client``, whose certificate is shown to receivers that ask for one.
    client_key: Optional[str]


class GroupFields(RoleFields, total=False):
    """A group's own settings; omitted ones come from its tenant and from the server. docs/concepts/policies.md has the rules."""

    #: Headers of every request whose values are keys of the kind ``header``: header to name of the key.
    auth_headers: Optional[Mapping[str, str]]
    tls: Optional[GroupTls]
    limits: Optional[GroupLimits]
    #: The group that copies of dead jobs go to.
    dead_letters: Optional[str]
    pin: Optional[Pin]
    #: Whether a quarantine of the version in force puts the version before it in force again. Default: true.
    rollback_on_quarantine: Optional[bool]


class EgressQuota(TypedDict, total=False):
    """Networks and ports to which a tenant's requests may go, of those that the server allows."""

    #: Networks such as ``203.0.113.0/24``, and no others.
    allow: Optional[Sequence[str]]
    #: Networks that are refused, even if they are in ``allow``.
    deny: Optional[Sequence[str]]
    #: Ports such as ``443`` or ``8000-8999``, and no others.
    ports: Optional[Sequence[str]]


class Quota(TypedDict, total=False):
    """What all groups of a tenant may use together, and what the tenant may store."""

    #: Attempts that run at once.
    concurrency: Optional[int]
    #: Attempts that start in a period: ``100/s``, ``600/min``, ``5000/h``.
    rate: Optional[str]
    #: Attempts that may start at once after a pause. Default: the count of ``rate``.
    burst: Optional[int]
    #: Share of the started attempts, compared with other tenants that have due jobs: 1 (the default) to 100.
    weight: Optional[int]
    #: Versions of plugins of its own.
    plugins: Optional[int]
    #: Bytes of the components of these versions.
    plugin_bytes: Optional[int]
    #: Unfinished jobs.
    jobs: Optional[int]
    schedules: Optional[int]
    groups: Optional[int]
    keys: Optional[int]
    tokens: Optional[int]
    #: Bytes of the documents of all groups, versions of policies and schedules.
    config_bytes: Optional[int]
    #: Changes of many jobs that are under way.
    bulks: Optional[int]
    #: Seconds for which the compiler may run for its uploads within an hour, on each node.
    compile_seconds: Optional[int]
    #: Bytes of the payloads, documents and attempts of all stored jobs.
    stored_bytes: Optional[int]
    #: Networks and ports to which requests may go. It narrows what the server allows.
    egress: Optional[EgressQuota]
