"""Schedules, which create jobs at recurring times."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Optional

from carillon._async.sender import AsyncVerbs
from carillon._calls import schedules as calls
from carillon._calls.jobs import JobFields
from carillon._calls.schedules import ScheduleFields
from carillon.models import Backfill, Job, Schedule, ScheduleRun
from carillon.times import When

if TYPE_CHECKING:
    from typing_extensions import Unpack


class AsyncSchedules(AsyncVerbs):
    """Schedules, which create jobs at recurring times."""

    async def put(self, name: str, *, group: str, cron: str, job: JobFields, **options: Unpack[ScheduleFields]) -> Schedule:
        """Creates or replaces a schedule that creates ``job`` at the times of ``cron``.

        A paused schedule stays paused unless ``paused`` is given.
        """
        return await self._sender.send(calls.put(name, group=group, cron=cron, job=job, **options))

    async def edit(
        self,
        name: str,
        *,
        group: Optional[str] = None,
        cron: Optional[str] = None,
        job: Optional[JobFields] = None,
        **options: Unpack[ScheduleFields],
    ) -> Schedule:
        """Changes the given parts of a schedule."""
        return await self._sender.send(calls.edit(name, group=group, cron=cron, job=job, **options))

    async def get(self, name: str) -> Schedule:
        """Returns a schedule with its next ten runs."""
        return await self._sender.send(calls.get(name))

    def list(self, *, page_size: Optional[int] = None) -> AsyncIterator[Schedule]:
        """Iterates over the tenant's schedules by name."""
        return self._sender.send_all(calls.list_(page_size=page_size))

    def history(self, name: str, *, page_size: Optional[int] = None) -> AsyncIterator[ScheduleRun]:
        """Iterates over the schedule's past runs, newest first, with their jobs or the reasons why they were skipped."""
        return self._sender.send_all(calls.history(name, page_size=page_size))

    async def delete(self, name: str) -> None:
        """Deletes a schedule. The jobs that it has created stay."""
        return await self._sender.send(calls.delete(name))

    async def pause(self, name: str) -> Schedule:
        """Pauses a schedule: it creates no jobs."""
        return await self._sender.send(calls.pause(name))

    async def resume(self, name: str) -> Schedule:
        """Resumes a paused schedule. Runs that were missed meanwhile are not made up for."""
        return await self._sender.send(calls.resume(name))

    async def run(self, name: str) -> Job:
        """Creates one of the schedule's jobs now, in addition to its runs."""
        return await self._sender.send(calls.run(name))

    async def backfill(self, name: str, start: When, end: When) -> Backfill:
        """Creates the missing jobs of a past range. Both ends belong to the range."""
        return await self._sender.send(calls.backfill(name, start, end))
