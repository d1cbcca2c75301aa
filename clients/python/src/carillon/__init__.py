"""Client of Carillon, a job scheduler that delivers HTTP callbacks on time.

``carillon.flask`` schedules callbacks to Flask applications, ``carillon.deferrable`` defers functions to workers.
"""

from carillon._calls.groups import Filter
from carillon._calls.jobs import FollowUp, JobFields, Limits
from carillon._calls.schedules import ScheduleFields
from carillon._events import AsyncEvents, Events
from carillon.client import AsyncClient, Client
from carillon.models import (
    Attempt,
    AttemptError,
    AuditEntry,
    Backfill,
    Batch,
    Bulk,
    By,
    Decision,
    Ended,
    Event,
    Group,
    Header,
    Job,
    Key,
    KeyVersion,
    Lease,
    Metadata,
    Node,
    Plugin,
    Request,
    Schedule,
    ScheduleRun,
    SentRequest,
    Stats,
    Tenant,
    Token,
    Verdict,
)
from carillon.problem import Problem
from carillon.times import Period, When
from carillon.types import GroupFields, GroupLimits, GroupTls, JobState, PolicyPlugin, Quota, Role

__all__ = [
    "AsyncClient",
    "AsyncEvents",
    "Attempt",
    "AttemptError",
    "AuditEntry",
    "Backfill",
    "Batch",
    "Bulk",
    "By",
    "Client",
    "Decision",
    "Ended",
    "Event",
    "Events",
    "Filter",
    "FollowUp",
    "Group",
    "GroupFields",
    "GroupLimits",
    "GroupTls",
    "Header",
    "Job",
    "JobFields",
    "JobState",
    "Key",
    "KeyVersion",
    "Lease",
    "Limits",
    "Metadata",
    "Node",
    "Period",
    "Plugin",
    "PolicyPlugin",
    "Problem",
    "Quota",
    "Request",
    "Role",
    "Schedule",
    "ScheduleFields",
    "ScheduleRun",
    "SentRequest",
    "Stats",
    "Tenant",
    "Token",
    "Verdict",
    "When",
]
