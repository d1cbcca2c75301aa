"""The README of Deferrable, section by section: its own snippets, in Python 3, and what it promises beside them."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import pytest
from deferred import CALLS, delays, divide, errors_of, look_up, module, note, popped, queue_of, run_all_now, waiting
from readme import blocks
from readme import run as execute
from support import Server

from carillon import Client
from carillon.deferrable import Deferrable
from carillon.deferrable.backend import Backend, CarillonBackendFactory


def run(name: str, source: str, **given: Any) -> Any:
    """Runs a snippet as a module; ``ran`` is what its functions may write into."""
    return module(name, source, CALLS=CALLS, **given)


def test_quick_start(client: Client, name: str) -> None:
    snippet = """
# Set up your Deferrable instance, which we'll call `stats`
from carillon.deferrable import Deferrable
from carillon.deferrable.backend import CarillonBackendFactory

factory = CarillonBackendFactory(client, wait_seconds=0)
stats_backend = factory.create_backend_for_group(group)
stats = Deferrable(backend=stats_backend)

# Register a function for deferrable execution through your Deferrable instance
@stats.deferrable
def run_some_stats(team_id):
    CALLS.append(team_id)

# In your producer code, call .later() on that function to push it to the queue
assert run_some_stats.later("5f43a1") is None
assert CALLS == []

# In your consumer, call .run_once() on the Deferrable instance to pop a queued job and run it
stats.run_once()
"""
    made = run(f"quick_{name}", snippet, client=client, group=name)
    assert CALLS == ["5f43a1"]
    assert queue_of(made["stats"]).stats() == {"available": 0, "in_flight": 0, "delayed": 0}
    assert errors_of(made["stats"]).stats() == {"available": 0, "in_flight": 0, "delayed": 0}


def test_push_pop_complete(backend: Backend) -> None:
    queue = queue_of(backend)
    my_item = {"a": 1}
    queue.push(my_item)
    popped_envelope, popped_item = queue.pop()
    assert my_item == popped_item
    assert popped_envelope is not None
    queue.complete(popped_envelope)
    assert queue.pop() == (None, None)


def test_backends_of_one_factory_work_on_separate_queues(client: Client, name: str) -> None:
    factory = CarillonBackendFactory(client, wait_seconds=0)
    stats_backend = factory.create_backend_for_group(f"{name}-stats")
    tournaments_backend = factory.create_backend_for_group(f"{name}-tournaments")
    stats_backend.queue.push({"for": "stats"})
    assert tournaments_backend.queue.pop() == (None, None)
    assert stats_backend.error_queue.pop() == (None, None)
    assert popped(queue_of(stats_backend)) == {"for": "stats"}


def test_the_backend_is_a_public_attribute(backend: Backend) -> None:
    assert Deferrable(backend=backend).backend is backend


def test_calling_a_deferrable_function_runs_it_here_and_now(app: Deferrable) -> None:
    registered = app.deferrable(note)
    assert registered is note
    assert registered(1, two=2) == "noted"
    assert CALLS == [((1,), {"two": 2})]
    assert app.backend.queue.pop() == (None, None)


def test_three_attempts_then_the_error_queue(app: Deferrable, name: str, client: Client) -> None:
    snippet = """
# This will be requeued twice after it fails, for a total of three attempts before
# being sent to the error queue
@deferrable_instance.deferrable(error_classes=[ZeroDivisionError], max_attempts=3)
def divide():
    CALLS.append("divide")
    return 1 / 0
"""
    made = run(f"retry_{name}", snippet, deferrable_instance=app)
    made["divide"].later()
    for attempt in (1, 2, 3):
        run_all_now(client, app)
        app.run_once()
        assert len(CALLS) == attempt
        assert errors_of(app).stats()["available"] == (attempt == 3)
    assert waiting(client, app) == []
    assert popped(errors_of(app))["error"]["error_type"] == "ZeroDivisionError"


def test_an_error_that_is_not_listed_goes_to_the_error_queue_at_once(app: Deferrable) -> None:
    app.deferrable(error_classes=[ZeroDivisionError])(look_up).later()
    app.run_once()
    assert CALLS == ["missing"]
    assert popped(errors_of(app))["error"]["error_type"] == "KeyError"
    assert queue_of(app).pop() == (None, None)


def test_max_attempts_is_five_by_default(app: Deferrable) -> None:
    app.deferrable(error_classes=[ZeroDivisionError], use_exponential_backoff=False)(divide).later()
    for _ in range(9):
        app.run_once()
    assert len(CALLS) == 5
    assert popped(errors_of(app))["attempts"] == 4


def test_retries_are_delayed_by_an_exponential_backoff(app: Deferrable, client: Client) -> None:
    app.deferrable(error_classes=[ZeroDivisionError])(divide).later()
    app.run_once()
    for seconds in (4, 6, 10, 18):
        assert delays(client, app) == [pytest.approx(seconds, abs=0.01)]
        app.run_once()  # Not before its time.
        assert queue_of(app).stats() == {"available": 0, "in_flight": 0, "delayed": 1}
        run_all_now(client, app)
        app.run_once()
    assert len(CALLS) == 5


def test_without_backoff_a_retry_is_available_at_once(app: Deferrable, name: str, client: Client) -> None:
    snippet = """
@deferrable_instance.deferrable(use_exponential_backoff=False, error_classes=[ValueError])
def job_without_backoff():
    CALLS.append("tried")
    raise ValueError
"""
    made = run(f"backoff_{name}", snippet, deferrable_instance=app)
    made["job_without_backoff"].later()
    app.run_once()
    assert delays(client, app) == [0]
    app.run_once()
    assert CALLS == ["tried", "tried"]


def test_ttl(backend: Backend, name: str) -> None:
    now = [1_000_000.0]
    app = Deferrable(backend, clock=lambda: now[0])
    snippet = """
@deferrable_instance.deferrable(ttl_seconds=300)
def send_time_sensitive_message(message):
    CALLS.append(message)

# Once this push completes, the TTL window begins. If
# 300 seconds pass before the job is processed, the
# consumer will abort the job without actually running it.
send_time_sensitive_message.later("in time")
send_time_sensitive_message.later("too late")
"""
    run(f"ttl_{name}", snippet, deferrable_instance=app)
    now[0] += 300
    app.run_once()
    now[0] += 0.001
    app.run_once()
    assert CALLS == ["in time"]
    assert queue_of(app).stats() == {"available": 0, "in_flight": 0, "delayed": 0}
    assert errors_of(app).pop() == (None, None)


def test_delay(app: Deferrable, name: str, client: Client) -> None:
    snippet = """
@deferrable_instance.deferrable(delay_seconds=30)
def do_this_after_30_seconds():
    CALLS.append("done")
"""
    made = run(f"delay_{name}", snippet, deferrable_instance=app)
    made["do_this_after_30_seconds"].later()
    assert delays(client, app) == [30]
    assert queue_of(app).stats()["delayed"] == 1
    app.run_once()
    assert CALLS == []


def test_debounce(backend: Backend, name: str, client: Client) -> None:
    snippet = """
deferrable_instance = Deferrable(backend=my_backend)

@deferrable_instance.deferrable(debounce_seconds=30)
def actually_queue_this_at_most_once_every_30_seconds():
    CALLS.append("ran")

actually_queue_this_at_most_once_every_30_seconds.later() # queued for immediate execution
actually_queue_this_at_most_once_every_30_seconds.later() # delayed by 30 seconds
actually_queue_this_at_most_once_every_30_seconds.later() # skipped, since we are already going to run one 30 seconds from now
"""
    made = run(f"debounce_{name}", snippet, my_backend=backend, Deferrable=Deferrable)
    assert delays(client, backend) == [0, 30]
    for _ in range(3):
        made["deferrable_instance"].run_once()
    assert CALLS == ["ran"]


def test_debounce_always_delay(backend: Backend, name: str, client: Client) -> None:
    snippet = """
deferrable_instance = Deferrable(backend=my_backend)

@deferrable_instance.deferrable(debounce_seconds=30, debounce_always_delay=True)
def always_delay_this():
    CALLS.append("ran")

always_delay_this.later() # delayed by 30 seconds
always_delay_this.later() # skipped
"""
    run(f"always_{name}", snippet, my_backend=backend, Deferrable=Deferrable)
    assert delays(client, backend) == [30]


def test_a_redis_client_is_accepted_and_not_used(backend: Backend, name: str) -> None:
    with pytest.warns(DeprecationWarning, match="redis_client"):
        run(
            f"redis_{name}",
            "deferrable_instance = Deferrable(backend=my_backend, redis_client=my_redis_client)",
            my_backend=backend,
            my_redis_client=object(),
            Deferrable=Deferrable,
        )


def test_metadata(app: Deferrable, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    snippet = """
import socket
from carillon.deferrable.metadata import MetadataProducerConsumer

class HostnameMetadataProducerConsumer(MetadataProducerConsumer):
    NAMESPACE = "hostname"

    def produce_metadata(self):
        return socket.gethostname()

    def consume_metadata(self, metadata):
       print("Item was produced on host {}".format(metadata))

deferrable_instance.register_metadata_producer_consumer(HostnameMetadataProducerConsumer())

@deferrable_instance.deferrable
def work():
    CALLS.append("worked")

work.later()
deferrable_instance.run_once()
"""
    run(f"metadata_{name}", snippet, deferrable_instance=app)
    assert CALLS == ["worked"]
    assert capsys.readouterr().out == f"Item was produced on host {socket.gethostname()}\n"


def test_events(app: Deferrable, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    snippet = """
class MyEventConsumer(object):
    def on_push(self, item):
        print("Pushed {}".format(item["args"]))

deferrable_instance.register_event_consumer(MyEventConsumer())

@deferrable_instance.deferrable
def work(*args):
    CALLS.append(args)

work.later(1, "two")
deferrable_instance.run_once()
"""
    run(f"events_{name}", snippet, deferrable_instance=app)
    assert capsys.readouterr().out == "Pushed [1, 'two']\n"
    assert CALLS == [(1, "two")]


def test_the_blocks_of_our_own_page_run(fresh_server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    page = Path(__file__).resolve().parents[2] / "docs" / "deferrable.md"
    names: dict[str, Any] = {"__name__": "shop"}
    found = blocks(page)
    assert len(found) == 6
    for block in found:
        execute(block.replace("http://127.0.0.1:7070", fresh_server.url), page, names)
    lines = capsys.readouterr().out.splitlines()
    assert lines == ["stats of 5f43a1", "stats of 5f43a1", "shop:divide division by zero", "Pushed shop:run_some_stats"]
    queue_of(names["stats"])._client.close()
