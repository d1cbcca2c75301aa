"""``carillon worker`` as people run it: a program that is stopped, killed, and left without a server."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import deferred
import httpx
import pytest
from deferred import counts, errors_of, module, note, queue_of
from support import DEADLINE, Server, until

from carillon import Client
from carillon.deferrable import Deferrable
from carillon.deferrable.backend import Backend, CarillonBackendFactory
from carillon.worker import Worker

#: An application whose functions write down what they do: a line each into the file ``ran``.
APPLICATION = """
import os, time
from pathlib import Path
from carillon import Client
from carillon.deferrable import Deferrable
from carillon.deferrable.backend import CarillonBackendFactory

client = Client(os.environ["SHOP_SERVER"])
app = Deferrable(CarillonBackendFactory(client, lease_seconds=1.5).create_backend_for_group(os.environ["SHOP_GROUP"]))
HERE = Path(__file__).parent

def tell(line):
    with open(HERE / "ran", "a") as file:
        file.write(line + "\\n")

@app.deferrable
def note(text):
    tell(text)

@app.deferrable
def wait_for(name):
    tell(f"begun {name} {os.getpid()}")
    while not (HERE / name).exists():
        time.sleep(0.01)
    tell(f"ended {name} {os.getpid()}")

@app.deferrable(error_classes=[ZeroDivisionError], max_attempts=2, use_exponential_backoff=False)
def divide():
    tell("divided")
    return 1 / 0

@app.deferrable
def leave():
    tell("left")
    raise SystemExit(3)
"""

#: Another module with a function, which is imported only if the worker is told to.
MORE = """
from shop import app, tell

@app.deferrable
def more():
    tell("more")
"""


class Shop:
    """A directory with the application, whose functions are deferred by their names, and the workers that run them."""

    def __init__(self, directory: Path, server: Server, group: str) -> None:
        self.directory = directory
        self.server = server
        self.group = group
        self.workers: list[subprocess.Popen[str]] = []
        self.logs: dict[int, list[str]] = {}
        (directory / "shop.py").write_text(APPLICATION)
        (directory / "more.py").write_text(MORE)
        with pytest.MonkeyPatch.context() as patch:
            for key, value in self.own_environment().items():
                patch.setenv(key, value)
            names = module("shop", APPLICATION, __file__=str(directory / "shop.py"))
        self.app: Deferrable = names["app"]
        self.client: Client = names["client"]
        self.functions = names

    def own_environment(self) -> dict[str, str]:
        return {"SHOP_SERVER": self.server.url, "SHOP_GROUP": self.group}

    def later(self, function: str, *args: Any) -> None:
        """Defers a call of a function of the application."""
        self.functions[function].later(*args)

    def work(self, *options: str, app: str = "shop:app", command: Sequence[str] = ("-m", "carillon")) -> subprocess.Popen[str]:
        """Starts a worker; returns when it works."""
        arguments = [sys.executable, *command, "worker", app, "--wait", "0.2", "--heartbeat", "0.2", *options]
        worker = subprocess.Popen(
            arguments,
            cwd=self.directory,
            env={**os.environ, **self.own_environment()},
            stdin=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.workers.append(worker)
        log = self.logs[worker.pid] = []
        threading.Thread(target=lambda: log.extend(iter_lines(worker)), daemon=True).start()
        until("the worker works", lambda: "working on" in self.log(worker) or worker.poll() is not None)
        return worker

    def log(self, worker: subprocess.Popen[str]) -> str:
        return "".join(self.logs[worker.pid])

    def ran(self) -> list[str]:
        """What the functions wrote down."""
        file = self.directory / "ran"
        return file.read_text().splitlines() if file.exists() else []

    def until_ran(self, count: int) -> list[str]:
        return until(f"{count} lines", lambda: (lambda lines: lines if len(lines) >= count else None)(self.ran()))

    def let(self, name: str) -> None:
        """Lets ``wait_for(name)`` end."""
        (self.directory / name).touch()

    def counts(self) -> tuple[int, int, int]:
        return counts(self.app)

    def errors(self) -> list[str]:
        """The types of the errors in the error queue."""
        return [item["error"]["error_type"] for _, item in errors_of(self.app).pop_batch(10)]

    def close(self) -> None:
        for worker in self.workers:
            worker.kill()
            worker.wait(DEADLINE)
        self.client.close()


def iter_lines(worker: subprocess.Popen[str]) -> Iterator[str]:
    assert worker.stderr is not None
    with worker.stderr as lines:
        yield from lines


@pytest.fixture
def backend(client: Client, name: str) -> Backend:
    return CarillonBackendFactory(client).create_backend_for_group(name)


@pytest.fixture(autouse=True)
def _no_calls() -> None:
    deferred.CALLS.clear()


@pytest.fixture
def shop(tmp_path: Path, server: Server, name: str) -> Iterator[Shop]:
    shop = Shop(tmp_path, server, name)
    yield shop
    shop.close()


def ended(worker: subprocess.Popen[str]) -> int:
    return worker.wait(DEADLINE)


def test_a_worker_runs_what_is_deferred(shop: Shop) -> None:
    shop.later("note", "before")
    worker = shop.work()
    shop.later("note", "after")
    assert shop.until_ran(2) == ["before", "after"]
    until("both are completed", lambda: shop.counts() == (0, 0, 0))
    assert worker.poll() is None


def test_a_worker_sends_failures_on(shop: Shop) -> None:
    shop.later("divide")
    worker = shop.work()
    until("it is completed", lambda: shop.counts() == (0, 0, 0) and len(shop.ran()) == 2)
    assert shop.errors() == ["ZeroDivisionError"]
    assert "shop:divide failed and is tried again in 0 s" in shop.log(worker)


def test_a_long_function_keeps_its_lease(shop: Shop) -> None:
    # Its lease lasts 1.5 s, and it runs until another worker has had 2 s to take it away.
    shop.later("wait_for", "door")
    first, _ = shop.work(), shop.work()
    begun = shop.until_ran(1)
    stays_in_flight(shop, 2)
    shop.let("door")
    assert [line.split()[:2] for line in shop.until_ran(2)] == [["begun", "door"], ["ended", "door"]]
    until("it is completed", lambda: shop.counts() == (0, 0, 0))
    assert shop.ran()[0] == begun[0]
    assert "lease" not in shop.log(first)


def test_what_a_killed_worker_was_running_is_run_by_another(shop: Shop) -> None:
    shop.later("wait_for", "door")
    first = shop.work()
    assert shop.until_ran(1) == [f"begun door {first.pid}"]
    second = shop.work()
    first.kill()
    assert ended(first) == -signal.SIGKILL
    assert shop.until_ran(2)[1] == f"begun door {second.pid}"
    shop.let("door")
    assert shop.until_ran(3)[2] == f"ended door {second.pid}"
    until("it is completed", lambda: shop.counts() == (0, 0, 0))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_lets_what_runs_end_and_takes_no_more(shop: Shop, number: signal.Signals) -> None:
    shop.later("wait_for", "door")
    worker = shop.work()
    shop.until_ran(1)
    shop.later("note", "not any more")
    worker.send_signal(number)
    until("it has understood", lambda: "stopping when what is running has ended" in shop.log(worker))
    assert worker.poll() is None
    shop.let("door")
    assert ended(worker) == 0
    assert shop.ran()[-1] == f"ended door {worker.pid}"
    assert shop.counts() == (1, 0, 0)


def test_a_long_function_keeps_its_lease_while_the_worker_waits_for_its_end(shop: Shop) -> None:
    shop.later("wait_for", "door")
    worker = shop.work()
    shop.until_ran(1)
    worker.terminate()
    stays_in_flight(shop, 2)
    shop.let("door")
    assert ended(worker) == 0
    assert shop.counts() == (0, 0, 0)


def stays_in_flight(shop: Shop, seconds: float) -> None:
    """Looks for so long whether the one item is still in flight."""
    begun = time.monotonic()
    while time.monotonic() < begun + seconds:
        assert shop.counts() == (0, 1, 0)
        time.sleep(0.05)


def test_a_second_signal_ends_it_at_once_and_the_item_comes_again(shop: Shop) -> None:
    shop.later("wait_for", "door")
    worker = shop.work()
    shop.until_ran(1)
    worker.send_signal(signal.SIGTERM)
    until("it has understood", lambda: "once more to stop at once" in shop.log(worker))
    worker.send_signal(signal.SIGTERM)
    assert ended(worker) == 128 + signal.SIGTERM
    assert shop.counts() == (0, 1, 0)
    until("its lease has ended", lambda: shop.counts() == (1, 0, 0))


def test_an_idle_worker_stops_when_it_is_told_to(shop: Shop) -> None:
    worker = shop.work()
    worker.send_signal(signal.SIGTERM)
    assert ended(worker) == 0


def test_several_functions_run_at_a_time(shop: Shop) -> None:
    for name in "abcd":
        shop.later("wait_for", name)
    shop.work("--concurrency", "3")
    assert sorted(line.split()[1] for line in shop.until_ran(3)) == ["a", "b", "c"]
    assert shop.counts() == (1, 3, 0)
    shop.let("b")
    assert [line.split()[:2] for line in shop.until_ran(5)[3:]] == [["ended", "b"], ["begun", "d"]]
    for name in "acd":
        shop.let(name)
    until("all are completed", lambda: shop.counts() == (0, 0, 0))


def test_a_function_that_exits_leaves_its_item_to_the_lease_and_the_worker_goes_on(shop: Shop) -> None:
    shop.later("leave")
    worker = shop.work()
    shop.until_ran(1)
    shop.later("note", "still here")
    until("the next one runs", lambda: "still here" in shop.ran())
    until("the first comes again", lambda: shop.ran().count("left") == 2)
    assert "an item is left to the end of its lease" in shop.log(worker)
    assert worker.poll() is None


def test_a_function_of_another_module_needs_import(shop: Shop) -> None:
    shop.later("note", "first")
    names = module("more", MORE.replace("from shop import app, tell", ""), app=shop.app)
    names["more"].later()
    worker = shop.work()
    until("it goes to the error queue", lambda: shop.errors() == ["UnknownFunction"])
    worker.terminate()
    assert ended(worker) == 0
    names["more"].later()
    shop.work("--import", "more")
    assert shop.until_ran(2) == ["first", "more"]


def test_a_worker_waits_for_a_server_that_is_away(tmp_path: Path, fresh_server: Server) -> None:
    shop = Shop(tmp_path, fresh_server, "away")
    try:
        shop.later("note", "one")
        worker = shop.work()
        shop.until_ran(1)
        until("it is completed", lambda: shop.counts() == (0, 0, 0))
        fresh_server.kill()
        until("it is missed", lambda: "no items from the server, asking again in 0.5 s" in shop.log(worker))
        fresh_server.start()
        shop.later("note", "two")
        assert shop.until_ran(2) == ["one", "two"]
        assert "the server is back" in shop.log(worker)
        fresh_server.kill()
        until("it is missed again", lambda: shop.log(worker).count("no items from the server, asking again in 0.25 s") == 2)
        worker.terminate()
        assert ended(worker) == 0
    finally:
        shop.close()


def test_a_producer_that_is_run_as_a_program_is_understood_by_a_worker(shop: Shop) -> None:
    text = (shop.directory / "shop.py").read_text() + "\nif __name__ == '__main__':\n    note.later('from a program')\n"
    (shop.directory / "shop.py").write_text(text)
    for command in (["shop.py"], ["-m", "shop"]):
        environment = {**os.environ, **shop.own_environment()}
        subprocess.run([sys.executable, *command], cwd=shop.directory, env=environment, check=True, timeout=DEADLINE)
    shop.work()
    assert shop.until_ran(2) == ["from a program"] * 2


def test_a_worker_that_is_refused_ends_with_an_error(shop: Shop) -> None:
    source = (shop.directory / "shop.py").read_text().replace('os.environ["SHOP_GROUP"]', '"no group"')
    (shop.directory / "shop.py").write_text(source)
    worker = shop.work()
    assert ended(worker) == 1
    until("it says why", lambda: "is not a name for a group" in shop.log(worker))


def test_a_worker_can_be_run_by_a_program(backend: Backend) -> None:
    app = Deferrable(backend)
    app.deferrable(note).later(1)
    worker = Worker(app, wait_seconds=0.1)

    class Stopper:
        def on_complete(self, item: Any) -> None:
            worker.stop()

    app.register_event_consumer(Stopper())
    worker.run()
    assert deferred.CALLS == [((1,), {})]
    assert counts(app) == (0, 0, 0)
    assert [thread for thread in threading.enumerate() if thread.name.startswith("carillon-")] == []


class Late(httpx.HTTPTransport):
    """Tells the worker to stop when an item is on its way to it."""

    worker: Worker

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        response = super().handle_request(request)
        if request.url.path.endswith("/leases"):
            self.worker.stop()
        return response


def test_what_comes_after_the_worker_was_told_to_stop_is_given_back(server: Server, name: str) -> None:
    transport = Late()
    with Client(server.url, transport=transport) as client:
        app = Deferrable(CarillonBackendFactory(client).create_backend_for_group(name))
        app.deferrable(note).later(1)
        transport.worker = Worker(app)
        transport.worker.run()
        assert deferred.CALLS == []
        assert counts(app) == (1, 0, 0)
        envelope, _ = queue_of(app).pop()
        assert envelope is not None
        assert envelope.attempt == 1


def test_an_event_consumer_that_fails_does_not_end_the_worker(backend: Backend, caplog: pytest.LogCaptureFixture) -> None:
    app = Deferrable(backend)
    worker = Worker(app, wait_seconds=0.05)
    told = []

    class Broken:
        def on_empty(self, item: Any) -> None:
            told.append(item)
            if len(told) == 2:
                worker.stop()
            raise LookupError("no reason")

    app.register_event_consumer(Broken())
    worker.run()
    assert told == [None, None]
    assert "an event consumer failed" in caplog.text


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"concurrency": 0}, "at least 1"),
        ({"wait_seconds": 0}, "more than 0"),
        ({"lease_seconds": 5, "heartbeat_seconds": 5}, "before the lease"),
        ({"heartbeat_seconds": 0}, "before the lease"),
    ],
)
def test_numbers_that_cannot_be_meant_are_refused(backend: Backend, options: Any, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        Worker(Deferrable(backend), **options)
