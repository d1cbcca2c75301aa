"""Where items are kept: two pull groups of a Carillon server, a main one and one for errors, behind Deferrable's queue interface.

A popped item is leased: nobody else gets it until it is completed, or until its lease, which can be extended (``touch``), has ended. The
server keeps the leases, over its restarts, too. If ten leases of an item in a row end without a word, the server gives it up and copies it
to the error queue.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Callable, Optional, Protocol, TypeVar, Union, runtime_checkable

import httpx

from carillon.deferrable.serialization import JsonSerializer
from carillon.models import Job, Lease
from carillon.problem import Problem

if TYPE_CHECKING:
    from carillon import Client, JobFields

T = TypeVar("T")

#: What a queue hands out with an item, and wants back.
Envelope = Any

#: How often the end of a flush of more than a thousand items is asked for, in seconds.
_FLUSH_POLL_SECONDS = 0.1

#: How often ``complete`` tries, in seconds.
_PATIENCE_POLL_SECONDS = 0.25

_LOG = logging.getLogger("carillon.deferrable")


class Queue(Protocol):
    """What ``Deferrable`` needs of a queue."""

    def push(self, item: Any) -> Any:
        """Keeps an item; not available for its ``delay`` in seconds, if it has one."""

    def pop(self) -> tuple[Optional[Envelope], Any]:
        """The next item under an envelope, or (None, None)."""

    def touch(self, envelope: Envelope, seconds: float = 10) -> Any:
        """Keeps the item from others for so long from now."""

    def complete(self, envelope: Envelope) -> bool:
        """Removes the item; False if it had been handed to somebody else."""


@runtime_checkable
class DebouncingQueue(Protocol):
    """A queue that can leave out what a waiting item will do."""

    def push_debounced(self, item: Any, *, key: str, seconds: float, always_delay: bool = False) -> Optional[float]:
        """Pushes an item, at most one of a key available in so many seconds. Returns its delay in seconds; None if it is left out."""


@dataclass(frozen=True)
class Times:
    """How a queue deals with time, in seconds."""

    #: How long a popped item is leased.
    lease_seconds: float = 30
    #: How long ``pop`` waits for the first item.
    wait_seconds: float = 0
    #: For how long ``complete`` tries to reach the server.
    patience_seconds: float = 10


@dataclass(frozen=True)
class Backend:
    """A main queue and an error queue that belong together."""

    group: Optional[str]
    queue: Queue
    error_queue: Queue


class MissingGroup(RuntimeError):
    """A queue's group does not exist, and the client's token may not make it."""


class CarillonBackendFactory:
    """Makes backends that share a client.

    A popped item is leased for ``lease_seconds`` (1 to 43,200), and ``pop`` waits up to ``wait_seconds`` for the first one (at most 20 by
    the server's defaults); on the error queue it does not wait. ``patience_seconds`` is for how long ``complete`` goes on trying to reach
    a server that is away for a moment, because an item that is done but not completed is run again.
    """

    def __init__(self, client: Client, *, lease_seconds: float = 30, wait_seconds: float = 3, patience_seconds: float = 10) -> None:
        self._client = client
        self._times = Times(lease_seconds, wait_seconds, patience_seconds)

    def create_backend_for_group(self, group: Optional[str] = None) -> Backend:
        """The backend of the groups ``deferrable_GROUP`` and ``deferrable_GROUP_error``; without ``group``, ``deferrable`` and so on.

        Nothing is sent: the groups are made when they are first used and do not exist, which needs an administrator's token.

        Raises ValueError for a group whose queue would be another one's error queue.
        """
        if group is not None and (group == "error" or group.endswith("_error")):
            raise ValueError(f"{group!r} would share a queue with the errors of another group: they end in _error")
        name = "deferrable" if group is None else f"deferrable_{group}"
        error_name = f"{name}_error"
        queue = CarillonQueue(self._client, name, self._times, dead_letters=error_name)
        return Backend(group, queue, CarillonQueue(self._client, error_name, replace(self._times, wait_seconds=0)))


class CarillonQueue:
    """A pull group as a queue of items: JSON values other than None. Tuples come back as lists.

    What the server refuses is a ``carillon.Problem``; no answer from it is an ``httpx.TransportError``. Can be used by many threads.
    """

    #: Items come in the order in which they become available; those of a lease that ended, behind what is available then.
    FIFO = True
    SUPPORTS_DELAY = True
    RECLAIMS_TO_BACK_OF_QUEUE = True
    MAX_PUSH_BATCH_SIZE = 1000
    MAX_POP_BATCH_SIZE = 1000
    MAX_COMPLETE_BATCH_SIZE = 1000

    def __init__(self, client: Client, name: str, times: Times, *, dead_letters: Optional[str] = None) -> None:
        #: The group on the server.
        self.name = name
        self.times = times
        self._client = client
        self._dead_letters = dead_letters

    def with_times(self, times: Times) -> CarillonQueue:
        """The same queue with other times."""
        return CarillonQueue(self._client, self.name, times, dead_letters=self._dead_letters)

    def push(self, item: Any) -> None:
        """Keeps an item; when this returns, it is safe. An object's ``delay`` is how many seconds it is not available for.

        Raises TypeError or ValueError for what JSON cannot hold.
        """
        job = _job(item)
        self._with_group(lambda: self._client.jobs.create(self.name, **job))

    def push_debounced(self, item: Any, *, key: str, seconds: float, always_delay: bool = False) -> Optional[float]:
        """Pushes an item unless one with the same key waits, in one step of the server's; at most one becomes available in ``seconds``.

        The key is the tenant's, whatever the queue. Returns the item's delay in seconds, 0 if it is available now; None if it is left out.
        """
        job = self._with_group(
            lambda: self._client.jobs.create(
                self.name,
                payload=_value(item),
                debounce_seconds=seconds,
                debounce_key=key,
                debounce_always_delay=always_delay,
            )
        )
        return None if job.instead == "debounced" else _delay_of(job)

    def push_batch(self, items: Sequence[Any]) -> list[tuple[Any, bool]]:
        """Pushes items; says of each whether it was taken. What the server refuses of one, does not keep back the others.

        Raises ValueError for more than ``MAX_PUSH_BATCH_SIZE``, and before anything is sent as ``push`` does.
        """
        _check_size(len(items), self.MAX_PUSH_BATCH_SIZE)
        jobs = [_job(item) for item in items]
        if not jobs:
            return []
        try:
            self._with_group(lambda: self._client.jobs.create_many(self.name, jobs))
        except Problem as problem:
            # The batch is all or none: one item, or all of them together, may be too large.
            if problem.status not in (413, 422):
                raise
            return [(item, self._was_taken(job)) for item, job in zip(items, jobs)]
        return [(item, True) for item in items]

    def pop(self) -> tuple[Optional[Lease], Any]:
        """The next item under its envelope, which is the lease; (None, None) if none came in time."""
        popped = self.pop_batch(1)
        return popped[0] if popped else (None, None)

    def pop_batch(self, size: int) -> list[tuple[Lease, Any]]:
        """Up to ``size`` items that are available together; none if none came in time. Raises ValueError for a size that is too large."""
        _check_size(size, self.MAX_POP_BATCH_SIZE)
        if size < 1:
            return []
        leases = self._with_group(
            lambda: self._client.leases.take(self.name, limit=size, wait=self.times.wait_seconds, lease=self.times.lease_seconds)
        )
        return [(lease, lease.payload) for lease in leases]

    def touch(self, envelope: Union[Lease, str], seconds: float = 10) -> bool:
        """Lets the lease end so many seconds from now (1 to 43,200); False if it has ended before."""
        return _held(lambda: self._client.leases.extend(envelope, seconds))

    def complete(self, envelope: Union[Lease, str]) -> bool:
        """Removes the item, whatever else was popped before or after it; False if its lease has ended or never was.

        Tries again while the server cannot be reached, for as long as the queue's patience lasts.
        """
        until = time.monotonic() + self.times.patience_seconds
        while True:
            try:
                return _held(lambda: self._client.leases.complete(envelope))
            except (Problem, httpx.TransportError) as error:
                if time.monotonic() >= until or not is_passing(error):
                    raise
                _LOG.info("an item could not be completed, which is tried again: %s", error)
            time.sleep(_PATIENCE_POLL_SECONDS)

    def complete_batch(self, envelopes: Sequence[Lease]) -> list[tuple[Lease, bool]]:
        """Completes items one after the other. Raises ValueError for more than ``MAX_COMPLETE_BATCH_SIZE``."""
        _check_size(len(envelopes), self.MAX_COMPLETE_BATCH_SIZE)
        return [(envelope, self.complete(envelope)) for envelope in envelopes]

    def release(self, envelope: Union[Lease, str]) -> bool:
        """Gives an item back that was not tried: it is available at once; False if its lease has ended."""
        return _held(lambda: self._client.leases.release(envelope))

    def flush(self) -> None:
        """Removes what is available and what is delayed. Returns when that is done.

        What is in flight is as if nobody had flushed: if its lease ends without a word, it comes again.
        """
        bulk = self._with_group(lambda: self._client.groups.flush(self.name, state="scheduled"))
        while not bulk.finished and bulk.id is not None:
            time.sleep(_FLUSH_POLL_SECONDS)
            bulk = self._client.groups.changed(bulk.id)

    def stats(self) -> dict[str, int]:
        """Exactly how many items are ``available``, ``in_flight`` and ``delayed``."""
        stats = self._with_group(lambda: self._client.groups.stats(self.name))
        return {"available": stats.available, "in_flight": stats.in_flight, "delayed": stats.delayed}

    def _was_taken(self, job: JobFields) -> bool:
        try:
            self._client.jobs.create(self.name, **job)
        except Problem as problem:
            if problem.status not in (413, 422):
                raise
            _LOG.error("an item of a batch for %s was refused: %s", self.name, problem)
            return False
        return True

    def _with_group(self, action: Callable[[], T]) -> T:
        """What the action returns; if it finds that the group is missing, the group is made first."""
        try:
            return action()
        except Problem as problem:
            if problem.status != 404 or problem.kind != "not-found":
                raise
        self._make_groups()
        return action()

    def _make_groups(self) -> None:
        try:
            if self._dead_letters is None:
                self._client.groups.put(self.name)
                return
            # One that is there may have settings of its own.
            try:
                self._client.groups.get(self._dead_letters)
            except Problem as problem:
                if problem.status != 404:
                    raise
                self._client.groups.put(self._dead_letters)
            self._client.groups.put(self.name, dead_letters=self._dead_letters)
        except Problem as problem:
            if problem.status != 403:
                raise
            raise MissingGroup(
                f"there is no group {self.name!r}, and this token may not make it: use an administrator's once, or make it with"
                f" `carillon group put {self.name}`"
            ) from problem
        _LOG.info("made the group %s", self.name)


def is_passing(error: Exception) -> bool:
    """Whether the same request may work in a moment: the server was not there, or too busy."""
    return isinstance(error, httpx.TransportError) or (isinstance(error, Problem) and error.status in (408, 429, 500, 502, 503, 504))


def _value(item: Any) -> Any:
    if item is None:
        raise TypeError("None is no item: it would look like an empty queue")
    return JsonSerializer().encode(item, "item")


def _job(item: Any) -> JobFields:
    """The job of an item."""
    value = _value(item)
    delay = value.get("delay") if isinstance(value, dict) else None
    if delay is None:
        return {"payload": value}
    if isinstance(delay, bool) or not isinstance(delay, (int, float)):
        raise TypeError(f"an item's delay is a number of seconds, not {delay!r}")
    return {"payload": value, "run_at": timedelta(seconds=delay)} if delay > 0 else {"payload": value}


def _delay_of(job: Job) -> float:
    return max((job.run_at - job.created_at).total_seconds(), 0)


def _held(action: Callable[[], Any]) -> bool:
    """Whether the lease was still there for the action."""
    try:
        action()
    except Problem as problem:
        if problem.status not in (404, 409):
            raise
        return False
    return True


def _check_size(size: int, most: int) -> None:
    if size > most:
        raise ValueError(f"a batch has at most {most} items, not {size}")
