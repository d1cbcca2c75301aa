"""The clients: ``Client`` for threads, ``AsyncClient`` for asyncio. They have the same verbs with the same arguments.

Every verb raises ``Problem`` if the server refuses the request, and ``httpx.TransportError`` if the server cannot be reached or does not
answer in time. No request is repeated automatically; an ``idempotency_key`` makes it safe to repeat the creation of a job.
"""

from carillon._async.admin import AsyncAudit, AsyncKeys, AsyncNodes, AsyncPlugins, AsyncTenants, AsyncTokens
from carillon._async.client import AsyncClient
from carillon._async.groups import AsyncGroups
from carillon._async.jobs import AsyncJobs
from carillon._async.leases import AsyncLeases
from carillon._async.policies import AsyncPolicies
from carillon._async.schedules import AsyncSchedules
from carillon._sync.admin import Audit, Keys, Nodes, Plugins, Tenants, Tokens
from carillon._sync.client import Client
from carillon._sync.groups import Groups
from carillon._sync.jobs import Jobs
from carillon._sync.leases import Leases
from carillon._sync.policies import Policies
from carillon._sync.schedules import Schedules

__all__ = [
    "AsyncAudit",
    "AsyncClient",
    "AsyncGroups",
    "AsyncJobs",
    "AsyncKeys",
    "AsyncLeases",
    "AsyncNodes",
    "AsyncPlugins",
    "AsyncPolicies",
    "AsyncSchedules",
    "AsyncTenants",
    "AsyncTokens",
    "Audit",
    "Client",
    "Groups",
    "Jobs",
    "Keys",
    "Leases",
    "Nodes",
    "Plugins",
    "Policies",
    "Schedules",
    "Tenants",
    "Tokens",
]
