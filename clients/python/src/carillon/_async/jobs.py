"""Jobs: create, read and change them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping
from typing import TYPE_CHECKING, Optional

from carillon._async.sender import AsyncVerbs
from carillon._calls import jobs as calls
from carillon._calls.jobs import JobFields
from carillon.models import Attempt, Batch, Job, SentRequest
from carillon.times import When
from carillon.types import JobState

if TYPE_CHECKING:
    from typing_extensions import Unpack


class AsyncJobs(AsyncVerbs):
    """Jobs: create, read and change them."""

    async def create(self, group: str, *, idempotency_key: Optional[str] = None, **fields: Unpack[JobFields]) -> Job:
        """Creates a job and returns it after it is stored durably. ``JobFields`` lists the fields.

        A repeated request with the same ``idempotency_key`` within 24 hours creates nothing and returns the first one's job.
        """
        return await self._sender.send(calls.create(group, idempotency_key=idempotency_key, **fields))

    async def create_many(self, group: str, jobs: Iterable[JobFields], *, idempotency_key: Optional[str] = None) -> Batch:
        """Creates up to 10,000 jobs, all or none. The key holds for the whole batch."""
        return await self._sender.send(calls.create_many(group, jobs, idempotency_key=idempotency_key))

    async def get(self, id: str, *, group: Optional[str] = None) -> Job:
        """Returns a job.

        With ``group``, ``id`` is a name in that group: it selects the newest unfinished job of that name, or else the newest one.
        """
        return await self._sender.send(calls.get(id, group=group))

    def list(
        self,
        group: Optional[str] = None,
        *,
        state: Optional[JobState] = None,
        name: Optional[str] = None,
        name_prefix: Optional[str] = None,
        created_from: Optional[When] = None,
        created_before: Optional[When] = None,
        due_from: Optional[When] = None,
        due_before: Optional[When] = None,
        url: Optional[str] = None,
        url_prefix: Optional[str] = None,
        order_key: Optional[str] = None,
        metadata: Optional[Mapping[str, str]] = None,
        page_size: Optional[int] = None,
    ) -> AsyncIterator[Job]:
        """Iterates over the jobs of a group, or of all groups, newest first.

        Times are absolute. A metadata key in a namespace is written ``namespace.key``.
        """
        call = calls.list_(
            group,
            state=state,
            name=name,
            name_prefix=name_prefix,
            created_from=created_from,
            created_before=created_before,
            due_from=due_from,
            due_before=due_before,
            url=url,
            url_prefix=url_prefix,
            order_key=order_key,
            metadata=metadata,
            page_size=page_size,
        )
        return self._sender.send_all(call)

    def attempts(self, id: str, *, group: Optional[str] = None, page_size: Optional[int] = None) -> AsyncIterator[Attempt]:
        """Iterates over the attempts of a job, oldest first."""
        return self._sender.send_all(calls.attempts(id, group=group, page_size=page_size))

    async def sent_request(self, id: str, number: int, *, group: Optional[str] = None) -> SentRequest:
        """Returns the request that an attempt sent.

        Raises Problem (409) if the request cannot be reconstructed.
        """
        return await self._sender.send(calls.sent_request(id, number, group=group))

    async def payload(self, id: str, *, group: Optional[str] = None) -> bytes:
        """Returns the payload of a job, byte for byte."""
        return await self._sender.send(calls.payload(id, group=group))

    async def copy(self, id: str, *, run_at: Optional[When] = None, group: Optional[str] = None) -> Job:
        """Creates a job with the fields of another one, whatever the state of that one."""
        return await self._sender.send(calls.copy(id, run_at=run_at, group=group))

    async def cancel(self, id: str, *, group: Optional[str] = None) -> Job:
        """Cancels a job.

        A running job becomes cancelled unless its attempt succeeds; until then its ``cancel_requested`` is true.

        Raises Problem (409) if the job has already ended in another state, and Problem (204) if the stored job could not be read and was
        removed instead.
        """
        return await self._sender.send(calls.cancel(id, group=group))

    async def run(self, id: str, *, group: Optional[str] = None) -> Job:
        """Makes a waiting job due now."""
        return await self._sender.send(calls.run(id, group=group))

    async def retry(self, id: str, *, group: Optional[str] = None) -> Job:
        """Revives a dead or expired job with a new series of attempts."""
        return await self._sender.send(calls.retry(id, group=group))

    async def reschedule(self, id: str, run_at: When, *, group: Optional[str] = None) -> Job:
        """Moves a waiting job to another time."""
        return await self._sender.send(calls.reschedule(id, run_at, group=group))

    async def edit(self, id: str, *, group: Optional[str] = None, **changes: Unpack[JobFields]) -> Job:
        """Changes the given fields of a waiting job; None removes a field. With ``group``, ``id`` is a name in that group."""
        return await self._sender.send(calls.edit(id, group=group, **changes))
