"""A client of Carillon, which makes HTTP callbacks on time.

``carillon.flask`` helps Flask applications to be called back, ``carillon.deferrable`` defers functions to workers.
"""

from carillon._calls.groups import Filter, GroupFields
from carillon._calls.jobs import FollowUp, JobFields, Limits
from carillon._calls.schedules import ScheduleFields
from carillon._events import AsyncEvents, Events
from carillon.client import AsyncClient, Client
from carillon.models import (
    Attempt,
    AttemptError,
    Backfill,
    Batch,
    Bulk,
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

__all__ = [
    "AsyncClient",
    "AsyncEvents",
    "Attempt",
    "AttemptError",
    "Backfill",
    "Batch",
    "Bulk",
    "Client",
    "Decision",
    "Ended",
    "Event",
    "Events",
    "Filter",
    "FollowUp",
    "Group",
    "GroupFields",
    "Header",
    "Job",
    "JobFields",
    "Key",
    "KeyVersion",
    "Lease",
    "Limits",
    "Metadata",
    "Node",
    "Period",
    "Plugin",
    "Problem",
    "Request",
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
