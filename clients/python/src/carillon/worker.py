"""The worker: leases deferred items and runs their functions, until it is stopped. ``carillon worker module:app`` starts one.

The main thread leases items, at most one per free slot. Each slot runs one function at a time. A heartbeat thread renews the leases of
running items, so that the server does not give them to another worker. After the first SIGTERM or SIGINT the worker leases nothing more
and ends when the running functions have ended. A second signal ends the program at once; the server leases the interrupted items again
when their leases have expired.

While the server is unavailable, the worker repeats its request with growing pauses. If the server refuses (a missing group, a token
without the right), the worker ends.
"""

from __future__ import annotations

import logging
import os
import queue
import signal
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from types import FrameType
from typing import Any, Optional

import httpx

from carillon.deferrable import Deferrable
from carillon.deferrable.backend import CarillonQueue, MissingGroup, is_passing
from carillon.models import Lease
from carillon.problem import Problem

#: How long one request waits for items, in seconds. An idle worker takes up to this long to stop.
WAIT_SECONDS = 3.0

#: The first and the longest pause between two requests to an unavailable server, in seconds.
_FIRST_PAUSE, _LONGEST_PAUSE = 0.25, 10.0

_LOG = logging.getLogger("carillon.worker")


class Worker:
    """Runs the functions deferred to ``app``, ``concurrency`` at a time.

    Items are leased for ``lease_seconds`` (by default the queue's own setting), and leases are renewed every ``heartbeat_seconds`` (by
    default a third of that). With a ``concurrency`` above 1, functions and the app's event and metadata consumers run in several threads.

    Raises TypeError for an app whose queue is not Carillon's, and ValueError for a number that is out of range.
    """

    def __init__(
        self,
        app: Deferrable,
        *,
        concurrency: int = 1,
        lease_seconds: Optional[float] = None,
        heartbeat_seconds: Optional[float] = None,
        wait_seconds: float = WAIT_SECONDS,
    ) -> None:
        own = app.backend.queue
        if not isinstance(own, CarillonQueue):
            raise TypeError(f"a worker needs a queue of Carillon's, not {own!r}")
        lease = own.times.lease_seconds if lease_seconds is None else lease_seconds
        heartbeat = lease / 3 if heartbeat_seconds is None else heartbeat_seconds
        if concurrency < 1:
            raise ValueError("concurrency is at least 1")
        if wait_seconds <= 0:
            raise ValueError("a worker waits for more than 0 seconds, or it would ask without end")
        if not 0 < heartbeat < lease:
            raise ValueError(f"the heartbeat ({heartbeat} s) has to come before the lease ({lease} s) ends")
        self._app = app
        self._queue = own.with_times(replace(own.times, lease_seconds=lease, wait_seconds=wait_seconds))
        self._concurrency = concurrency
        self._heartbeat = heartbeat
        self._running: dict[str, Lease] = {}
        self._stopping = False
        # True: a slot has become free. False: `stop` was called. `put` is safe in a signal handler.
        self._events: queue.SimpleQueue[bool] = queue.SimpleQueue()
        self._free = concurrency

    def run(self) -> None:
        """Runs items until ``stop`` is called and the running functions have ended.

        Raises Problem or MissingGroup, after the running functions have ended, if the server refuses to lease items.
        """
        ended = threading.Event()
        heartbeat = threading.Thread(target=self._renew_leases, args=(ended,), name="carillon-heartbeat", daemon=True)
        heartbeat.start()
        try:
            with ThreadPoolExecutor(self._concurrency, "carillon-worker") as pool:
                try:
                    self._fetch(pool)
                finally:
                    if self._running:
                        _LOG.info("%d functions are still running", len(self._running))
        finally:
            ended.set()
            heartbeat.join()

    def stop(self) -> None:
        """Makes ``run`` return when the running functions have ended. Safe in any thread and in a signal handler."""
        self._stopping = True
        self._events.put(False)

    def run_until_signal(self) -> None:
        """Runs items until SIGTERM or SIGINT; a second signal ends the program at once. For the main thread only."""

        def stop(number: int, _frame: Optional[FrameType]) -> None:
            # Logging takes a lock that the interrupted code may hold.
            if self._stopping:
                os.write(2, b"carillon worker: stopped at once; what was running comes again\n")
                os._exit(128 + number)
            os.write(2, b"carillon worker: stopping when what is running has ended; once more to stop at once\n")
            self.stop()

        before = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            self.run()
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _fetch(self, pool: ThreadPoolExecutor) -> None:
        pause = 0.0
        while not self._stopping:
            if self._free == 0:
                self._poll_events()
                continue
            try:
                popped = self._queue.pop_batch(min(self._free, CarillonQueue.MAX_POP_BATCH_SIZE))
            except (Problem, MissingGroup, httpx.TransportError) as error:
                if not is_passing(error):
                    raise
                pause = self._wait_for_server(error, pause)
                continue
            if pause:
                _LOG.info("the server is back")
                pause = 0.0
            self._begin(pool, popped)
            self._poll_events(timeout_seconds=0)

    def _begin(self, pool: ThreadPoolExecutor, popped: list[tuple[Lease, Any]]) -> None:
        if not popped:
            self._process(None, None)
        for lease, item in popped:
            if self._stopping:
                self._give_back(lease)
                continue
            self._free -= 1
            self._running[lease.token] = lease
            pool.submit(self._run, lease, item)

    def _run(self, lease: Lease, item: Any) -> None:
        try:
            self._process(lease, item)
        finally:
            del self._running[lease.token]
            self._events.put(True)

    def _process(self, lease: Optional[Lease], item: Any) -> None:
        """Processes an item, and logs what the app's consumers, the server or a function's SystemExit raise: the worker goes on."""
        try:
            self._app.process(lease, item)
        except BaseException:
            _LOG.exception("an item is left to the end of its lease" if lease else "an event consumer failed")

    def _give_back(self, lease: Lease) -> None:
        try:
            self._queue.release(lease)
        except (Problem, httpx.TransportError) as error:
            _LOG.warning("an item could not be given back, and comes again when its lease has ended: %s", error)

    def _wait_for_server(self, error: Exception, pause: float) -> float:
        """Waits longer than ``pause`` seconds, and returns how long."""
        told = getattr(error, "retry_after", None) or 0.0
        following = max(min(pause * 2 or _FIRST_PAUSE, _LONGEST_PAUSE), told)
        _LOG.warning("no items from the server, asking again in %s s: %s", following, error or type(error).__name__)
        self._poll_events(timeout_seconds=following)
        return following

    def _poll_events(self, timeout_seconds: Optional[float] = None) -> None:
        """Handles the queued events; waits for the first one, by default without a limit."""
        try:
            is_free = self._events.get(timeout=timeout_seconds) if timeout_seconds != 0 else self._events.get_nowait()
            while True:
                self._free += is_free
                is_free = self._events.get_nowait()
        except queue.Empty:
            pass

    def _renew_leases(self, ended: threading.Event) -> None:
        """Renews the leases of running items until ``ended`` is set."""
        while not ended.wait(self._heartbeat):
            for lease in list(self._running.values()):
                self._renew_lease(lease)

    def _renew_lease(self, lease: Lease) -> None:
        try:
            is_held = self._queue.touch(lease, self._queue.times.lease_seconds)
        except Exception as error:
            _LOG.warning("a lease could not be extended: %s", error or type(error).__name__)
            return
        if not is_held and lease.token in self._running:
            _LOG.warning("the lease of a running function has ended: the item comes again (job %s)", lease.job.id)
