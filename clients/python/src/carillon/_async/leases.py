"""Leases: how consumers pull jobs that have no URL, and report the results.

With an expired lease, every verb raises Problem (409); with an unknown one, 404.
"""

from __future__ import annotations

from datetime import datetime
from typing import Optional, Union

from carillon._async.sender import AsyncVerbs
from carillon._calls import leases as calls
from carillon.models import Ended, Lease
from carillon.times import Period


class AsyncLeases(AsyncVerbs):
    """Leases: how consumers pull jobs that have no URL, and report the results."""

    async def take(self, group: str, *, limit: int = 1, wait: Optional[Period] = None, lease: Optional[Period] = None) -> list[Lease]:
        """Leases up to ``limit`` jobs (1 to 1000) for ``lease`` (1 s to 12 h, 30 s by default).

        If no job is available, the server waits up to ``wait`` for the first one, and then returns an empty list.
        """
        return await self._sender.send(calls.take(group, limit=limit, wait=wait, lease=lease))

    async def extend(self, lease: Union[str, Lease], duration: Optional[Period] = None) -> datetime:
        """Makes a lease end ``duration`` from now (30 s by default). Returns the new end."""
        return await self._sender.send(calls.extend(lease, duration))

    async def complete(self, lease: Union[str, Lease]) -> Ended:
        """Completes the leased job."""
        return await self._sender.send(calls.complete(lease))

    async def fail(
        self,
        lease: Union[str, Lease],
        error: Optional[str] = None,
        *,
        permanent: bool = False,
        retry_after: Optional[Period] = None,
    ) -> Ended:
        """Fails the attempt: the group's retry policy decides whether and when the job is tried again.

        The first 4 KiB of ``error`` are stored. ``permanent`` makes the job dead at once.
        """
        return await self._sender.send(calls.fail(lease, error, permanent=permanent, retry_after=retry_after))

    async def release(self, lease: Union[str, Lease]) -> Ended:
        """Returns an untried job: it is available again at once, and the attempt does not count."""
        return await self._sender.send(calls.release(lease))
