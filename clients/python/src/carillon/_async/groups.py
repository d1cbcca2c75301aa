"""Groups, and bulk changes of their jobs."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any, Optional

from carillon._async.sender import AsyncVerbs
from carillon._calls import groups as calls
from carillon._calls.groups import Filter
from carillon._calls.jobs import JobFields
from carillon.models import Bulk, ChangedGroup, Group, Stats
from carillon.times import When
from carillon.types import BulkAction, GroupFields

if TYPE_CHECKING:
    from typing_extensions import Unpack


class AsyncGroups(AsyncVerbs):
    """Groups, and bulk changes of their jobs."""

    async def put(self, group: str, *, why: Optional[str] = None, **fields: Unpack[GroupFields]) -> ChangedGroup:
        """Creates a group, or replaces all of its own settings; ``removed`` of the result lists what is gone.

        A changed policy becomes a new version of the group's policy.

        Raises Problem (422) if the group signs its requests and ``sign`` is omitted: ``sign=None`` ends signing.
        """
        return await self._sender.send(calls.put(group, why=why, **fields))

    async def edit(self, group: str, *, why: Optional[str] = None, **fields: Unpack[GroupFields]) -> ChangedGroup:
        """Changes the given settings of a group; None removes a setting, own or inherited."""
        return await self._sender.send(calls.edit(group, why=why, **fields))

    async def get(self, group: str, *, effective: bool = False) -> Group:
        """Returns the group's own settings; with ``effective``, the settings in force and the layer that each comes from."""
        return await self._sender.send(calls.get(group, effective=effective))

    def list(self, *, page_size: Optional[int] = None) -> AsyncIterator[Group]:
        """Iterates over the tenant's groups by name."""
        return self._sender.send_all(calls.list_(page_size=page_size))

    async def delete(self, group: str) -> None:
        """Deletes a group with its jobs.

        Raises Problem (409) while it has unfinished jobs, or a schedule uses it.
        """
        return await self._sender.send(calls.delete(group))

    async def pause(self, group: str) -> Group:
        """Pauses a group: its jobs wait."""
        return await self._sender.send(calls.pause(group))

    async def resume(self, group: str) -> Group:
        """Resumes a paused group."""
        return await self._sender.send(calls.resume(group))

    async def stats(self, group: str) -> Stats:
        """Counts the group's jobs by state, exactly."""
        return await self._sender.send(calls.stats(group))

    async def flush(self, group: str, *, dry_run: bool = False, **which: Unpack[Filter]) -> Bulk:
        """Cancels all waiting jobs that match the filter, delayed or not."""
        return await self._sender.send(calls.flush(group, dry_run=dry_run, **which))

    async def redrive(self, group: str, *, dry_run: bool = False, **which: Unpack[Filter]) -> Bulk:
        """Revives the dead and expired jobs that match the filter."""
        return await self._sender.send(calls.redrive(group, dry_run=dry_run, **which))

    async def purge(self, group: str, *, dry_run: bool = False, **which: Unpack[Filter]) -> Bulk:
        """Deletes dead jobs that match the filter, or with ``state`` jobs in another final state."""
        return await self._sender.send(calls.purge(group, dry_run=dry_run, **which))

    async def change(
        self,
        group: str,
        action: BulkAction,
        *,
        run_at: Optional[When] = None,
        dry_run: bool = False,
        **which: Unpack[Filter],
    ) -> Bulk:
        """Starts a bulk change of the jobs that match the filter. ``reschedule`` needs ``run_at``.

        Up to 1,000 jobs are changed before this returns. With more, ``finished`` is false and ``changed`` returns the progress.
        """
        return await self._sender.send(calls.change(group, action, run_at=run_at, dry_run=dry_run, **which))

    async def changed(self, id: str) -> Bulk:
        """Returns the progress of a bulk change, for up to a week after its end."""
        return await self._sender.send(calls.changed(id))

    def changes(self, *, page_size: Optional[int] = None) -> AsyncIterator[Bulk]:
        """Iterates over the tenant's bulk changes, oldest first."""
        return self._sender.send_all(calls.changes(page_size=page_size))

    async def simulate(self, group: str, job: JobFields, **options: Any) -> dict[str, Any]:
        """Predicts a job's request and attempts, in the API's form; nothing is sent or stored.

        The options are those of the API: ``failures``, ``responses``, ``policy``, ``seed``, ``now``.
        """
        return await self._sender.send(calls.simulate(group, job, **options))
