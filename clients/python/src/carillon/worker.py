"""Runs deferred functions until it is told to stop: ``carillon worker module:app``.

One thread asks for items, as many at once as there are free slots; each slot runs one function at a time; one more thread extends the
leases of what runs, so that a long function is not given to somebody else. The first SIGTERM or SIGINT lets running functions finish and
takes no more; a second one ends the program at once, and what it was running comes again when its leases have ended, as after a kill -9.

A server that is away is asked again, ever more slowly. One that refuses (no such group, a token without the right) ends the worker.
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

#: How long a worker waits for items in one request, in seconds; a stop of an idle one takes as long.
WAIT_SECONDS = 3.0

#: The first and the longest pause between two tries to reach the server, in seconds.
_FIRST_PAUSE, _LONGEST_PAUSE = 0.25, 10.0

_LOG = logging.getLogger("carillon.worker")


class Worker:
    """Runs what is deferred to ``app``, ``concurrency`` functions at a time.

    Items are leased for ``lease_seconds`` (the queue's own by default), and leases are extended every ``heartbeat_seconds`` (a third of
    that). With more than one function at a time, they and the app's event and metadata consumers run in several threads.

    Raises TypeError for an app whose queue is not Carillon's, and ValueError for numbers that cannot be meant.
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
        # True for a slot that has become free, False to look up: a signal came. `put` is safe in a signal's handler.
        self._news: queue.SimpleQueue[bool] = queue.SimpleQueue()
        self._free = concurrency

    def run(self) -> None:
        """Works until ``stop`` is called, and everything that runs has ended.

        Raises Problem or MissingGroup, after what runs has ended, if the server refuses to hand out items.
        """
        silence = threading.Event()
        heart = threading.Thread(target=self._beat, args=(silence,), name="carillon-heartbeat", daemon=True)
        heart.start()
        try:
            with ThreadPoolExecutor(self._concurrency, "carillon-worker") as pool:
                try:
                    self._fetch(pool)
                finally:
                    if self._running:
                        _LOG.info("%d functions are still running", len(self._running))
        finally:
            silence.set()
            heart.join()

    def stop(self) -> None:
        """Lets ``run`` return when what runs has ended. Can be called by any thread, and by a signal's handler."""
        self._stopping = True
        self._news.put(False)

    def run_until_signal(self) -> None:
        """As ``run``, in the main thread, and with SIGTERM and SIGINT for ``stop``. A second signal ends the program at once."""

        def stop(number: int, _frame: Optional[FrameType]) -> None:
            # No logging here: the handler may have come in the middle of it.
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
                self._look_up()
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
            self._look_up(at_most=0)

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
            self._news.put(True)

    def _process(self, lease: Optional[Lease], item: Any) -> None:
        """What is raised here is an event or metadata consumer's, the server's, or a function's SystemExit; the worker goes on."""
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
        """Waits; returns for how long."""
        told = getattr(error, "retry_after", None) or 0.0
        following = max(min(pause * 2 or _FIRST_PAUSE, _LONGEST_PAUSE), told)
        _LOG.warning("no items from the server, asking again in %s s: %s", following, error or type(error).__name__)
        self._look_up(at_most=following)
        return following

    def _look_up(self, at_most: Optional[float] = None) -> None:
        """Counts the slots that have become free. Waits for news if there is none, so many seconds at most."""
        try:
            news = self._news.get(timeout=at_most) if at_most != 0 else self._news.get_nowait()
            while True:
                self._free += news
                news = self._news.get_nowait()
        except queue.Empty:
            pass

    def _beat(self, silence: threading.Event) -> None:
        while not silence.wait(self._heartbeat):
            for lease in list(self._running.values()):
                try:
                    held = self._queue.touch(lease, self._queue.times.lease_seconds)
                except Exception as error:
                    _LOG.warning("a lease could not be extended: %s", error or type(error).__name__)
                    continue
                if not held and lease.token in self._running:
                    _LOG.warning("the lease of a running function has ended: the item comes again (job %s)", lease.job.id)
