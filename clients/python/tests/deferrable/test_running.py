"""What a consumer does with an item, in which order, and what it tells."""

from __future__ import annotations

import sys
from typing import Any

import pytest
from deferred import (
    CALLS,
    Recorder,
    counts,
    delays,
    divide,
    errors_of,
    interrupt,
    leave,
    look_up,
    module,
    note,
    popped,
    queue_of,
    run_all_now,
)

from carillon import Client
from carillon.deferrable import Deferrable
from carillon.deferrable.backend import Backend


def test_nothing_popped_is_told_as_empty(app: Deferrable, events: Recorder) -> None:
    app.run_once()
    assert events.seen == [("empty", None)]


def test_a_success_is_completed(app: Deferrable, events: Recorder, backend: Backend) -> None:
    app.deferrable(note).later("x", y=1)
    app.run_once()
    assert CALLS == [(("x",), {"y": 1})]
    assert events.names == ["push", "pop", "complete"]
    assert counts(backend) == (0, 0, 0)


def test_an_expired_item_is_completed_without_running(backend: Backend) -> None:
    now = [0.0]
    app, events = Deferrable(backend, clock=lambda: now[0]), Recorder()
    app.register_event_consumer(events)
    app.deferrable(ttl_seconds=5)(note).later()
    now[0] = 6
    app.run_once()
    assert CALLS == []
    assert events.names == ["push", "pop", "expire", "complete"]
    assert counts(backend) == (0, 0, 0)


def test_a_listed_error_is_tried_again(app: Deferrable, events: Recorder, client: Client, backend: Backend) -> None:
    app.deferrable(error_classes=[ArithmeticError])(divide).later()
    app.run_once()
    assert events.names == ["push", "pop", "retry", "complete"]
    assert (events.item("retry")["attempts"], events.item("retry")["delay"]) == (1, 4)
    assert delays(client, app) == [4]
    assert counts(backend) == (0, 0, 1)
    run_all_now(client, app)
    app.run_once()
    assert delays(client, app) == [6]


def test_the_last_failure_goes_to_the_error_queue(app: Deferrable, events: Recorder, backend: Backend) -> None:
    app.deferrable(error_classes=[ZeroDivisionError], max_attempts=2, use_exponential_backoff=False)(divide).later()
    app.run_once()
    app.run_once()
    assert events.names == ["push", "pop", "retry", "complete", "pop", "error", "complete"]
    assert counts(backend) == (0, 0, 0)
    done = popped(errors_of(app))
    assert events.item("error") == done
    assert done["attempts"] == 1


@pytest.mark.parametrize("max_attempts", [0, 1])
def test_one_attempt_is_made_at_least(app: Deferrable, max_attempts: int) -> None:
    app.deferrable(error_classes=[ZeroDivisionError], max_attempts=max_attempts)(divide).later()
    app.run_once()
    assert len(CALLS) == 1
    assert popped(errors_of(app))["error"]["error_type"] == "ZeroDivisionError"


@pytest.mark.parametrize("classes", [None, [], [ZeroDivisionError]])
def test_any_other_error_goes_to_the_error_queue_at_once(app: Deferrable, events: Recorder, classes: Any) -> None:
    app.deferrable(error_classes=classes)(look_up).later()
    app.run_once()
    assert events.names == ["push", "pop", "error", "complete"]
    assert popped(errors_of(app))["error"]["error_type"] == "KeyError"


@pytest.mark.parametrize(("function", "error"), [(leave, SystemExit), (interrupt, KeyboardInterrupt)])
def test_an_interrupted_item_is_left_in_flight(
    app: Deferrable, events: Recorder, backend: Backend, function: Any, error: type[BaseException]
) -> None:
    app.deferrable(error_classes=[Exception])(function).later()
    with pytest.raises(error):
        app.run_once()
    assert events.names == ["push", "pop"]
    assert counts(backend) == (0, 1, 0)
    assert errors_of(app).pop() == (None, None)


def test_an_exit_that_is_listed_is_tried_again(app: Deferrable, events: Recorder) -> None:
    app.deferrable(error_classes=[SystemExit])(leave).later()
    app.run_once()
    assert events.names == ["push", "pop", "retry", "complete"]


def test_the_successor_is_pushed_before_the_item_is_completed(app: Deferrable, backend: Backend) -> None:
    seen: list[Any] = []

    class Watcher:
        def on_retry(self, item: Any) -> None:
            seen.append(("retry", counts(backend)))

        def on_error(self, item: Any) -> None:
            seen.append(("error", counts(backend), errors_of(app).stats()["available"]))

    app.register_event_consumer(Watcher())
    app.deferrable(error_classes=[ZeroDivisionError], max_attempts=2, use_exponential_backoff=False)(divide).later()
    app.run_once()
    app.run_once()
    assert seen == [("retry", (1, 1, 0)), ("error", (0, 1, 0), 1)]


class Base(Exception): ...


class Derived(Base): ...


def fail_derived() -> None:
    raise Derived


def test_error_classes_catch_as_an_except_clause_does(app: Deferrable, events: Recorder) -> None:
    app.deferrable(error_classes=[Base], use_exponential_backoff=False)(fail_derived).later()
    app.run_once()
    assert events.names[-2:] == ["retry", "complete"]


def test_the_error_classes_of_the_item_decide_not_those_of_the_consumer(backend: Backend) -> None:
    producer, consumer, events = Deferrable(backend), Deferrable(backend), Recorder()
    producer.deferrable(error_classes=[ZeroDivisionError])(divide).later()
    consumer.deferrable(error_classes=[], max_attempts=1)(divide)
    consumer.register_event_consumer(events)
    consumer.run_once()
    assert events.names == ["pop", "retry", "complete"]
    assert events.item("retry")["max_attempts"] == 5


def test_process_is_for_consumers_that_pop_and_touch_themselves(app: Deferrable, backend: Backend) -> None:
    app.deferrable(note).later(1)
    envelope, item = queue_of(app).pop()
    assert envelope is not None
    assert queue_of(app).touch(envelope, 60)
    app.process(envelope, item)
    assert CALLS == [((1,), {})]
    assert counts(backend) == (0, 0, 0)


def test_an_item_whose_lease_has_ended_is_not_told_as_complete(app: Deferrable, events: Recorder) -> None:
    app.deferrable(note).later(1)
    envelope, item = queue_of(app).pop()
    assert envelope is not None
    assert queue_of(app).release(envelope)
    app.process(envelope, item)
    assert events.names == ["push", "pop"]
    app.run_once()
    assert events.names == ["push", "pop", "pop", "complete"]


@pytest.mark.parametrize("strange", [17, "text", {"a": 1}, {"method": "deferred:note"}, ["x"]])
def test_what_is_no_call_goes_to_the_error_queue(app: Deferrable, events: Recorder, backend: Backend, strange: Any) -> None:
    queue_of(app).push(strange)
    app.run_once()
    assert events.names == ["pop", "error", "complete"]
    assert counts(backend) == (0, 0, 0)
    done = popped(errors_of(app))
    assert done["error"]["error_type"] == "BadItem"
    assert {key: done[key] for key in strange} == strange if isinstance(strange, dict) else done["item"] == strange


def test_bytes_that_somebody_put_there_go_to_the_error_queue_too(app: Deferrable, client: Client) -> None:
    assert queue_of(app).pop() == (None, None)
    client.jobs.create(queue_of(app).name, payload_bytes=b"\xff\x00")
    app.run_once()
    assert popped(errors_of(app))["item"] == "ff00"


def test_a_function_that_is_not_registered_is_not_run(app: Deferrable, backend: Backend) -> None:
    # The item is as good as it gets, and the function exists; but it was registered elsewhere.
    Deferrable(backend).deferrable(note).later()
    app.run_once()
    assert CALLS == []
    error = popped(errors_of(app))["error"]
    assert error["error_type"] == "UnknownFunction"
    assert "deferred:note is not registered here" in error["error_text"]


@pytest.mark.parametrize("method", ["os:system", "builtins:eval", "subprocess:call", "note", ":", "deferred:note.__call__"])
def test_an_item_cannot_name_a_function_to_import(app: Deferrable, backend: Backend, method: str) -> None:
    app.deferrable(note).later("true")
    item = {**popped(queue_of(app)), "method": method}
    queue_of(app).push(item)
    app.run_once()
    assert CALLS == []
    assert popped(errors_of(app))["error"]["error_type"] == "UnknownFunction"


LAZY = """
from deferred import CALLS
import {shared} as shared

@shared.app.deferrable
def work(n):
    CALLS.append(n)

def not_registered(n):
    CALLS.append("never")
"""


@pytest.fixture
def lazy(tmp_path: Any, name: str, backend: Backend, monkeypatch: pytest.MonkeyPatch) -> Deferrable:
    """A consumer which may import the package ``lazy_NAME``, whose module ``tasks`` registers a function with it."""
    app = Deferrable(backend, imports=[f"lazy_{name}"])
    shared = module(f"shared_{name}", "", app=app)
    monkeypatch.setitem(sys.modules, f"shared_{name}", type("Shared", (), dict(shared)))
    for package in (f"lazy_{name}", f"lazy_{name}_not"):
        (tmp_path / package).mkdir()
        (tmp_path / package / "tasks.py").write_text(LAZY.format(shared=f"shared_{name}"))
    monkeypatch.syspath_prepend(str(tmp_path))
    return app


def call(method: str) -> dict[str, Any]:
    return {"method": method, "serializer": "json", "args": [1], "kwargs": [], "attempts": 0, "max_attempts": 1}


def test_a_module_below_imports_is_imported_when_it_is_needed(lazy: Deferrable, name: str) -> None:
    queue_of(lazy).push(call(f"lazy_{name}.tasks:work"))
    assert f"lazy_{name}.tasks" not in sys.modules
    lazy.run_once()
    assert CALLS == [1]


def test_a_module_beside_imports_is_not_imported(lazy: Deferrable, name: str) -> None:
    queue_of(lazy).push(call(f"lazy_{name}_not.tasks:work"))
    lazy.run_once()
    assert CALLS == []
    assert f"lazy_{name}_not.tasks" not in sys.modules
    assert popped(errors_of(lazy))["error"]["error_type"] == "UnknownFunction"


def test_what_an_imported_module_does_not_register_is_not_run(lazy: Deferrable, name: str) -> None:
    queue_of(lazy).push(call(f"lazy_{name}.tasks:not_registered"))
    lazy.run_once()
    assert CALLS == []
    assert popped(errors_of(lazy))["error"]["error_type"] == "UnknownFunction"


def test_a_module_that_is_missing_is_an_error_of_the_item(lazy: Deferrable, name: str) -> None:
    queue_of(lazy).push(call(f"lazy_{name}.gone:work"))
    lazy.run_once()
    assert popped(errors_of(lazy))["error"]["error_type"] == "ModuleNotFoundError"
