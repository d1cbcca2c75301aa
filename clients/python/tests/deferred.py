"""Functions for tests to defer, which remember that they ran, and helpers to look at what is in the queues."""

from __future__ import annotations

import copy
import sys
import types
from collections.abc import Mapping
from datetime import timedelta
from typing import Any, Callable

from carillon import Client, Job
from carillon.deferrable import Deferrable
from carillon.deferrable.backend import CarillonQueue

#: What ran, with what.
CALLS: list[Any] = []


def note(*args: Any, **kwargs: Any) -> str:
    CALLS.append((args, kwargs))
    return "noted"


def divide(by: float = 0) -> float:
    CALLS.append(by)
    return 1 / by


def look_up(key: str = "missing") -> Any:
    CALLS.append(key)
    nothing: dict[str, None] = {}
    return nothing[key]


def leave(code: int = 3) -> None:
    CALLS.append(code)
    sys.exit(code)


def interrupt() -> None:
    CALLS.append("interrupted")
    raise KeyboardInterrupt


class Recorder:
    """An event consumer that remembers every event, and the item as it was then."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, Any]] = []

    @property
    def names(self) -> list[str]:
        return [name for name, _ in self.seen]

    def item(self, name: str) -> Any:
        """The item of the newest event of that name."""
        return [item for event, item in self.seen if event == name][-1]

    def __getattr__(self, attribute: str) -> Callable[[Any], None]:
        if not attribute.startswith("on_"):
            raise AttributeError(attribute)
        return lambda item: self.seen.append((attribute[3:], copy.deepcopy(item)))


def queue_of(app_or_backend: Any) -> CarillonQueue:
    """The main queue."""
    backend = app_or_backend.backend if isinstance(app_or_backend, Deferrable) else app_or_backend
    assert isinstance(backend.queue, CarillonQueue)
    return backend.queue


def errors_of(app_or_backend: Any) -> CarillonQueue:
    """The error queue."""
    backend = app_or_backend.backend if isinstance(app_or_backend, Deferrable) else app_or_backend
    assert isinstance(backend.error_queue, CarillonQueue)
    return backend.error_queue


def popped(queue: CarillonQueue) -> Any:
    """The next item; there is one, and it is completed."""
    envelope, item = queue.pop()
    assert envelope is not None
    assert queue.complete(envelope)
    return item


def waiting(client: Client, app_or_backend: Any) -> list[Job]:
    """The jobs of the main queue that wait, oldest first."""
    queue_of(app_or_backend).stats()  # Makes its group, if nothing has been pushed.
    return list(client.jobs.list(queue_of(app_or_backend).name, state="scheduled"))[::-1]


def delays(client: Client, app_or_backend: Any) -> list[float]:
    """By how many seconds each of them was delayed when it was pushed."""
    return [(job.run_at - job.created_at) / timedelta(seconds=1) for job in waiting(client, app_or_backend)]


def run_all_now(client: Client, app_or_backend: Any) -> None:
    """Makes what is delayed available."""
    for job in waiting(client, app_or_backend):
        client.jobs.run(job.id)


def counts(app_or_backend: Any) -> tuple[int, int, int]:
    """Available, in flight, delayed."""
    stats = queue_of(app_or_backend).stats()
    return stats["available"], stats["in_flight"], stats["delayed"]


def module(name: str, source: str, **given: Any) -> Mapping[str, Any]:
    """Runs the text of a module and returns its names."""
    made = types.ModuleType(name)
    vars(made).update(given)
    exec(compile(source, f"<{name}>", "exec"), vars(made))
    return vars(made)
