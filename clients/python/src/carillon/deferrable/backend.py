"""Queues of items: two pull groups of a Carillon server, a main one and one for errors, with Deferrable's queue interface.

A popped item is leased: no other consumer gets it until it is completed, or its lease expires; ``touch`` extends the lease. The server
stores the leases durably. After ten consecutive expired leases of an item, the server makes its job dead and copies it to the error queue.
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

#: Identifies a popped item in the queue.
Envelope = Any

#: Interval between requests for the progress of a flush of more than 1,000 items, in seconds.
_FLUSH_POLL_SECONDS = 0.1

#: Interval between attempts of ``complete``, in seconds.
_COMPLETE_RETRY_SECONDS = 0.25

_LOG = logging.getLogger("carillon.deferrable")


class Queue(Protocol):
    """Interface of the queues that ``Deferrable`` uses."""

    def push(self, item: Any) -> Any:
        """Stores an item. An item with a ``delay`` becomes available after that many seconds."""

    def pop(self) -> tuple[Optional[Envelope], Any]:
        """Returns an envelope and the next item, or (None, None)."""

    def touch(self, envelope: Envelope, seconds: float = 10) -> Any:
        """Makes the item's lease end ``seconds`` from now."""

    def complete(self, envelope: Envelope) -> bool:
        """Removes the item; returns False if its lease has expired."""


@runtime_checkable
class DebouncingQueue(Protocol):
    """A queue that can debounce."""

    def push_debounced(self, item: Any, *, key: str, seconds: float, always_delay: bool = False) -> Optional[float]:
        """Pushes an item unless a waiting one with the same key stands for it. Returns its delay in seconds, or None if it was dropped."""


@dataclass(frozen=True)
class Times:
    """Durations of a queue."""

    #: Duration of a lease.
    lease_seconds: float = 30
    #: Time that ``pop`` waits for the first item.
    wait_seconds: float = 0
    #: Time for which ``complete`` repeats its request while the server is unavailable.
    patience_seconds: float = 10


@dataclass(frozen=True)
class Backend:
    """A main queue and its error queue."""

    group: Optional[str]
    queue: Queue
    error_queue: Queue


class MissingGroup(RuntimeError):
    """A queue's group does not exist, and the client's token may not create it."""


class CarillonBackendFactory:
    """Creates backends that share a client.

    ``lease_seconds``: duration of a popped item's lease, 1 to 43,200.
    ``wait_seconds``: time that ``pop`` waits for the first item, at most 20 by the server's defaults. The error queue does not wait.
    ``patience_seconds``: time for which ``complete`` repeats its request while the server is unavailable, because an item that has run but
    is not completed runs again.
    """

    def __init__(self, client: Client, *, lease_seconds: float = 30, wait_seconds: float = 3, patience_seconds: float = 10) -> None:
        self._client = client
        self._times = Times(lease_seconds, wait_seconds, patience_seconds)

    def create_backend_for_group(self, group: Optional[str] = None) -> Backend:
        """Returns the backend of the groups ``deferrable_GROUP`` and ``deferrable_GROUP_error``; by default without ``_GROUP``.

        No request is sent: missing groups are created on their first use, which needs an administrator's token.

        Raises ValueError for a group whose queue would be the error queue of another group.
        """
        if group is not None and (group == "error" or group.endswith("_error")):
            raise ValueError(f"{group!r} would share a queue with the errors of another group: they end in _error")
        name = "deferrable" if group is None else f"deferrable_{group}"
        error_name = f"{name}_error"
        queue = CarillonQueue(self._client, name, self._times, dead_letters=error_name)
        return Backend(group, queue, CarillonQueue(self._client, error_name, replace(self._times, wait_seconds=0)))


class CarillonQueue:
    """A pull group as a queue of items, which are JSON values other than None. Tuples are returned as lists. Threads can share it.

    Its methods raise ``carillon.Problem`` if the server refuses, and ``httpx.TransportError`` if it cannot be reached.
    """

    #: Items are popped in the order in which they become available. An expired lease moves its item to the end.
    FIFO = True
    SUPPORTS_DELAY = True
    RECLAIMS_TO_BACK_OF_QUEUE = True
    MAX_PUSH_BATCH_SIZE = 1000
    MAX_POP_BATCH_SIZE = 1000
    MAX_COMPLETE_BATCH_SIZE = 1000

    def __init__(self, client: Client, name: str, times: Times, *, dead_letters: Optional[str] = None) -> None:
        #: Name of the group.
        self.name = name
        self.times = times
        self._client = client
        self._dead_letters = dead_letters

    def with_times(self, times: Times) -> CarillonQueue:
        """Returns the same queue with other durations."""
        return CarillonQueue(self._client, self.name, times, dead_letters=self._dead_letters)

    def push(self, item: Any) -> None:
        """Stores an item durably. An object with a ``delay`` becomes available after that many seconds.

        Raises TypeError or ValueError for a value that JSON cannot hold.
        """
        job = _job(item)
        self._with_group(lambda: self._client.jobs.create(self.name, **job))

    def push_debounced(self, item: Any, *, key: str, seconds: float, always_delay: bool = False) -> Optional[float]:
        """Pushes an item unless one with the same key waits, atomically. At most one becomes available in ``seconds``.

        All queues of a tenant share the keys. Returns the item's delay in seconds, or None if it was dropped.
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
        """Pushes items, and returns each with whether the server accepted it.

        Raises ValueError for more than ``MAX_PUSH_BATCH_SIZE`` items, and what ``push`` raises, before anything is sent.
        """
        _check_size(len(items), self.MAX_PUSH_BATCH_SIZE)
        jobs = [_job(item) for item in items]
        if not jobs:
            return []
        try:
            self._with_group(lambda: self._client.jobs.create_many(self.name, jobs))
        except Problem as problem:
            # The server accepts all jobs or none: one of them is invalid or too large, or all of them together are too large.
            if problem.status not in (413, 422):
                raise
            return [(item, self._was_taken(job)) for item, job in zip(items, jobs)]
        return [(item, True) for item in items]

    def pop(self) -> tuple[Optional[Lease], Any]:
        """Returns a lease and its item, or (None, None) if no item became available in time."""
        popped = self.pop_batch(1)
        return popped[0] if popped else (None, None)

    def pop_batch(self, size: int) -> list[tuple[Lease, Any]]:
        """Returns up to ``size`` leases with their items; an empty list if no item became available in time.

        Raises ValueError for a size above ``MAX_POP_BATCH_SIZE``.
        """
        _check_size(size, self.MAX_POP_BATCH_SIZE)
        if size < 1:
            return []
        leases = self._with_group(
            lambda: self._client.leases.take(self.name, limit=size, wait=self.times.wait_seconds, lease=self.times.lease_seconds)
        )
        return [(lease, lease.payload) for lease in leases]

    def touch(self, envelope: Union[Lease, str], seconds: float = 10) -> bool:
        """Makes the lease end ``seconds`` (1 to 43,200) from now; returns False if it has expired."""
        return _held(lambda: self._client.leases.extend(envelope, seconds))

    def complete(self, envelope: Union[Lease, str]) -> bool:
        """Removes the item; returns False if its lease has expired or is unknown.

        While the server is unavailable, the request is repeated for ``patience_seconds``.
        """
        until = time.monotonic() + self.times.patience_seconds
        while True:
            try:
                return _held(lambda: self._client.leases.complete(envelope))
            except (Problem, httpx.TransportError) as error:
                if time.monotonic() >= until or not is_passing(error):
                    raise
                _LOG.info("an item could not be completed, which is tried again: %s", error)
            time.sleep(_COMPLETE_RETRY_SECONDS)

    def complete_batch(self, envelopes: Sequence[Lease]) -> list[tuple[Lease, bool]]:
        """Completes items one by one, and returns each with the result of ``complete``.

        Raises ValueError for more than ``MAX_COMPLETE_BATCH_SIZE`` items.
        """
        _check_size(len(envelopes), self.MAX_COMPLETE_BATCH_SIZE)
        return [(envelope, self.complete(envelope)) for envelope in envelopes]

    def release(self, envelope: Union[Lease, str]) -> bool:
        """Returns an untried item to the queue, where it is available at once; returns False if its lease has expired."""
        return _held(lambda: self._client.leases.release(envelope))

    def flush(self) -> None:
        """Removes all available and delayed items, and waits until that is done.

        Items in flight stay: if their leases expire, they are available again.
        """
        bulk = self._with_group(lambda: self._client.groups.flush(self.name, state="scheduled"))
        while not bulk.finished and bulk.id is not None:
            time.sleep(_FLUSH_POLL_SECONDS)
            bulk = self._client.groups.changed(bulk.id)

    def stats(self) -> dict[str, int]:
        """Returns the exact counts of ``available``, ``in_flight`` and ``delayed`` items."""
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
        """Returns the result of the action. If the group is missing, creates it and repeats the action."""
        try:
            return action()
        except Problem as problem:
            if problem.status != 404 or problem.kind != "not-found":
                raise
        self._create_groups()
        return action()

    def _create_groups(self) -> None:
        try:
            if self._dead_letters is None:
                self._client.groups.put(self.name)
                return
            # An existing group may have settings of its own, which `put` would replace.
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
    """Whether the same request may succeed soon: the server is unavailable or overloaded."""
    return isinstance(error, httpx.TransportError) or (isinstance(error, Problem) and error.status in (408, 429, 500, 502, 503, 504))


def _value(item: Any) -> Any:
    if item is None:
        raise TypeError("None is no item: it would look like an empty queue")
    return JsonSerializer().encode(item, "item")


def _job(item: Any) -> JobFields:
    """Returns the job that stores an item."""
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
    """Runs an action on a lease; returns False if the lease has expired."""
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
