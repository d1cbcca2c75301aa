"""What ``@deferrable`` and ``.later()`` take, and what they refuse."""

from __future__ import annotations

import functools
from collections import deque
from typing import Any

import pytest
from deferred import CALLS, delays, note, queue_of, run_all_now, waiting

from carillon import Client
from carillon.deferrable import Deferrable
from carillon.deferrable.backend import Backend


def test_later_returns_none(app: Any) -> None:
    assert app.deferrable(note).later() is None


def test_the_decorator_takes_all_parameters_of_deferrable(app: Deferrable) -> None:
    decorate = app.deferrable(
        error_classes=(ValueError, OSError),
        max_attempts=7,
        delay_seconds=0,
        debounce_seconds=0,
        debounce_always_delay=False,
        ttl_seconds=0,
        use_exponential_backoff=False,
    )
    decorate(note).later()
    _, item = queue_of(app).pop()
    assert item["error_classes"] == ["builtins:OSError", "builtins:ValueError"]
    assert (item["max_attempts"], item["use_exponential_backoff"]) == (7, False)


def test_a_function_that_is_registered_without_options_has_the_defaults_of_the_instance(backend: Backend) -> None:
    app = Deferrable(backend, None, [KeyError], 9)
    app.deferrable(note).later()
    _, item = queue_of(app).pop()
    assert (item["error_classes"], item["max_attempts"]) == (["builtins:KeyError"], 9)
    app.deferrable(error_classes=[], max_attempts=0)(note).later()
    _, item = queue_of(app).pop()
    assert (item["error_classes"], item["max_attempts"]) == ([], 0)


@pytest.mark.parametrize("option", ["delay_seconds", "debounce_seconds", "ttl_seconds"])
def test_a_period_can_be_a_function_that_is_called_once_for_each_later(app: Any, option: str, name: str) -> None:
    asked = []

    def seconds() -> int:
        asked.append(option)
        return 2

    later = app.deferrable(**{option: seconds})(note).later
    assert asked == []
    later(name)
    assert asked == [option]
    later(name)
    assert asked == [option, option]


def test_a_period_that_is_none_is_none(app: Deferrable, client: Client) -> None:
    app.deferrable(delay_seconds=None, debounce_seconds=lambda: None, ttl_seconds=None)(note).later()
    assert delays(client, app) == [0]


def test_a_delay_that_would_be_over_is_none(app: Deferrable, client: Client) -> None:
    app.deferrable(delay_seconds=lambda: -0.5)(note).later()
    app.deferrable(debounce_seconds=lambda: -0.5)(note).later()
    assert delays(client, app) == [0, 0]


def test_delay_and_debounce_cannot_go_together(app: Deferrable) -> None:
    with pytest.raises(ValueError, match="cannot go together"):
        app.deferrable(delay_seconds=1, debounce_seconds=1)
    with pytest.raises(ValueError, match="cannot go together"):
        app.deferrable(delay_seconds=lambda: 1, debounce_seconds=lambda: 1)


def test_debounce_always_delay_needs_debounce(app: Deferrable) -> None:
    with pytest.raises(ValueError, match="needs debounce_seconds"):
        app.deferrable(debounce_always_delay=True)


def test_debounce_needs_a_queue_that_debounces() -> None:
    class Memory:
        def __init__(self) -> None:
            self.items: deque[Any] = deque()

        def push(self, item: Any) -> None:
            self.items.append(item)

        def pop(self) -> tuple[Any, Any]:
            return (object(), self.items.popleft()) if self.items else (None, None)

        def touch(self, envelope: Any, seconds: float = 10) -> None: ...

        def complete(self, envelope: Any) -> bool:
            return True

    app = Deferrable(Backend("memory", Memory(), Memory()))
    with pytest.raises(ValueError, match="push_debounced"):
        app.deferrable(debounce_seconds=1)
    # Everything else works with any queue.
    app.deferrable(note).later(1)
    app.run_once()
    assert CALLS == [((1,), {})]


@pytest.mark.parametrize("option", ["delay_seconds", "debounce_seconds"])
def test_a_delay_or_a_window_is_at_most_900_seconds(app: Any, client: Client, option: str, name: str) -> None:
    for seconds in (900.5, 901):
        with pytest.raises(ValueError, match="at most 900"):
            app.deferrable(**{option: seconds})(note).later(name)
    assert waiting(client, app) == []
    app.deferrable(**{option: 900})(note).later(name)
    assert delays(client, app) == [900 if option == "delay_seconds" else 0]


@pytest.mark.parametrize("option", ["delay_seconds", "debounce_seconds"])
def test_a_delay_or_a_window_is_at_most_the_ttl(app: Any, client: Client, option: str, name: str) -> None:
    with pytest.raises(ValueError, match="longer than ttl_seconds"):
        app.deferrable(ttl_seconds=29, **{option: 30})(note).later(name)
    assert waiting(client, app) == []
    app.deferrable(ttl_seconds=30, **{option: 30})(note).later(name)
    assert len(waiting(client, app)) == 1


@pytest.mark.parametrize(("value", "error"), [("30", TypeError), (True, TypeError), (float("nan"), ValueError), (float("inf"), ValueError)])
def test_a_period_that_is_no_number_is_refused(app: Deferrable, value: Any, error: type[Exception]) -> None:
    for option in ("delay_seconds", "debounce_seconds", "ttl_seconds"):
        with pytest.raises(error, match=option):
            app.deferrable(**{option: value})(note).later()


def test_only_functions_at_the_top_level_of_a_module_can_be_deferred(app: Deferrable) -> None:
    def inner() -> None: ...

    for function in (inner, lambda: None, Deferrable.run_once):
        with pytest.raises(ValueError, match="top level"):
            app.deferrable(function)


async def coroutine() -> None: ...


def test_what_is_no_plain_function_cannot_be_deferred(app: Any) -> None:
    for thing in (functools.partial(note), 17, "note", len, Deferrable):
        with pytest.raises(TypeError, match="only functions"):
            app.deferrable(thing)
    with pytest.raises(TypeError, match="coroutine"):
        app.deferrable(coroutine)


def test_error_classes_are_exception_classes(app: Any) -> None:
    for classes in ([ValueError()], ["ValueError"], [int]):
        with pytest.raises(TypeError, match="exception classes"):
            app.deferrable(error_classes=classes)


def test_an_unknown_serializer_is_refused(backend: Backend) -> None:
    with pytest.raises(ValueError, match="json, pickle"):
        Deferrable(backend, serializer="marshal")


def test_a_delayed_item_does_not_run_before_its_time_and_then_does(app: Deferrable, client: Client) -> None:
    app.deferrable(delay_seconds=60)(note).later("x")
    app.run_once()
    assert CALLS == []
    run_all_now(client, app)
    app.run_once()
    assert CALLS == [(("x",), {})]
