"""The client: one attribute per noun."""

from __future__ import annotations

from collections.abc import Iterable
from types import TracebackType
from typing import Optional, Union

import httpx

from carillon._async.admin import AsyncAudit, AsyncKeys, AsyncNodes, AsyncPlugins, AsyncTenants, AsyncTokens
from carillon._async.groups import AsyncGroups
from carillon._async.jobs import AsyncJobs
from carillon._async.leases import AsyncLeases
from carillon._async.policies import AsyncPolicies
from carillon._async.schedules import AsyncSchedules
from carillon._async.sender import AsyncSender
from carillon._events import AsyncEvents, parameters
from carillon._http import TIMEOUT, Path
from carillon.times import Period


class AsyncClient(AsyncSender):
    """Client of the server at ``url``, such as ``http://127.0.0.1:7070``, for asyncio. Tasks can share it.

    ``token``: sent as a Bearer token. User information in the URL (``http://:TOKEN@host``) is sent as Basic authentication instead.
    ``tenant``: for operators who act for another tenant.
    ``timeout``: for each step of a request, which is connecting, sending, or waiting for the next bytes of the response.
    ``ca_file``: certificate authorities in PEM that are trusted in addition. Default: the file that ``CARILLON_CA_FILE`` names.
    ``client_cert``: the client's certificate and private key in PEM, for a server that asks for them; or ``CARILLON_CLIENT_CERT``.
    """

    def __init__(
        self,
        url: str,
        token: Optional[str] = None,
        *,
        tenant: Optional[str] = None,
        timeout: Period = TIMEOUT,
        ca_file: Optional[Path] = None,
        client_cert: Optional[Path] = None,
        transport: Optional[httpx.AsyncBaseTransport] = None,
    ) -> None:
        super().__init__(url, token, tenant, timeout, ca_file, client_cert, transport)
        self.jobs = AsyncJobs(self)
        self.groups = AsyncGroups(self)
        self.policies = AsyncPolicies(self)
        self.schedules = AsyncSchedules(self)
        self.leases = AsyncLeases(self)
        self.keys = AsyncKeys(self)
        self.plugins = AsyncPlugins(self)
        self.tokens = AsyncTokens(self)
        self.tenants = AsyncTenants(self)
        self.nodes = AsyncNodes(self)
        self.audit = AsyncAudit(self)

    @property
    def url(self) -> str:
        """The server's URL, without user information and without a trailing slash."""
        return self._endpoint.base

    def events(
        self,
        *,
        group: Optional[str] = None,
        kinds: Union[str, Iterable[str], None] = None,
        job: Optional[str] = None,
        last_event_id: Optional[str] = None,
    ) -> AsyncEvents:
        """Follows events from now on, or those after ``last_event_id``. ``AsyncEvents`` says when it connects.

        A broken connection is resumed after the last event; an event ``gap`` says that events are missing.
        """
        return AsyncEvents(self._http, self._endpoint, parameters(group, kinds, job), last_event_id)

    async def aclose(self) -> None:
        """Closes the connections."""
        await self._http.aclose()

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(self, kind: Optional[type[BaseException]], error: object, trace: Optional[TracebackType]) -> None:
        await self.aclose()
