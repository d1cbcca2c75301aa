"""Events: who is told what, and in which order. What is told when is in ``test_running`` and ``test_debounce``."""

from __future__ import annotations

from typing import Any

import pytest
from deferred import CALLS, Recorder, counts, note, queue_of

from carillon.deferrable import Deferrable
from carillon.deferrable.backend import Backend


class Teller:
    """Writes down its name when something is pushed, and how many items are available then."""

    def __init__(self, name: str, app: Deferrable) -> None:
        self.name = name
        self.app = app

    def on_push(self, item: Any) -> None:
        CALLS.append((self.name, item["method"], queue_of(self.app).stats()["available"]))


def test_consumers_are_called_in_the_order_of_registration_after_the_operation(app: Deferrable) -> None:
    for name in ("one", "two"):
        app.register_event_consumer(Teller(name, app))
    app.deferrable(note).later()
    assert CALLS == [("one", "deferred:note", 1), ("two", "deferred:note", 1)]


def test_a_consumer_without_the_handler_is_passed_over(app: Deferrable) -> None:
    app.register_event_consumer(Teller("one", app))
    app.register_event_consumer(object())
    app.run_once()
    assert CALLS == []


def test_clear_forgets_all_consumers(app: Deferrable, events: Recorder) -> None:
    app.clear_event_consumers()
    app.deferrable(note).later()
    app.run_once()
    assert events.seen == []


class Broken:
    def on_push(self, item: Any) -> None:
        raise LookupError("push")

    def on_pop(self, item: Any) -> None:
        raise LookupError("pop")


def test_what_a_consumer_raises_is_raised(app: Deferrable, backend: Backend) -> None:
    app.register_event_consumer(Broken())
    with pytest.raises(LookupError, match="push"):
        app.deferrable(note).later()
    assert counts(backend) == (1, 0, 0)
    with pytest.raises(LookupError, match="pop"):
        app.run_once()
    assert counts(backend) == (0, 1, 0)
    assert CALLS == []


def test_items_that_are_pushed_to_the_queue_directly_are_not_told(app: Deferrable, events: Recorder) -> None:
    queue_of(app).push({"a": 1})
    assert events.seen == []


def test_a_completed_item_is_told_as_it_was_pushed_on(app: Deferrable, events: Recorder) -> None:
    from deferred import divide

    app.deferrable(error_classes=[ZeroDivisionError], max_attempts=2, use_exponential_backoff=False)(divide).later()
    app.run_once()
    assert events.item("complete") == events.item("retry")
    app.run_once()
    assert events.item("complete") == events.item("error")
