"""Debouncing: of equal calls, one becomes available in a window, and none is lost."""

from __future__ import annotations

import logging
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest
from deferred import CALLS, Recorder, delays, divide, look_up, note, popped, queue_of, waiting
from support import Server, until

from carillon import Client
from carillon.deferrable import Deferrable
from carillon.deferrable.backend import Backend, CarillonBackendFactory


@pytest.fixture
def later(app: Deferrable) -> Any:
    return app.deferrable(debounce_seconds=30)(note).later


def test_the_first_is_pushed_now_the_second_later_the_third_left_out(
    later: Any, app: Deferrable, events: Recorder, client: Client, name: str
) -> None:
    for _ in range(3):
        later(name)
    assert delays(client, app) == [0, 30]
    assert events.names == ["debounce_miss", "push", "debounce_miss", "push", "debounce_hit"]
    assert [item["delay"] for _, item in events.seen] == [0, 0, 30, 30, 0]
    assert events.item("push")["original_delay"] == 30


def test_with_always_delay_the_first_waits_and_the_second_is_left_out(app: Deferrable, events: Recorder, client: Client, name: str) -> None:
    later = app.deferrable(debounce_seconds=30, debounce_always_delay=True)(note).later
    later(name)
    later(name)
    assert delays(client, app) == [30]
    assert events.names == ["debounce_miss", "push", "debounce_hit"]
    assert (events.item("push")["delay"], events.item("push")["original_debounce_always_delay"]) == (30, True)


def test_the_order_of_keywords_does_not_matter(later: Any, app: Deferrable, client: Client, name: str) -> None:
    later(name, a=1, b={"x": 1, "y": 2})
    later(name, b={"y": 2, "x": 1}, a=1)
    later(name, b={"x": 1, "y": 2}, a=1)
    assert delays(client, app) == [0, 30]


def test_other_arguments_are_other_calls(later: Any, app: Deferrable, client: Client, name: str) -> None:
    for args, kwargs in [(("1",), {}), ((1,), {}), ((1.0,), {}), ((True,), {}), ((), {"a": 1}), (([1],), {}), ((), {"b": 1})]:
        later(name, *args, **kwargs)
    assert delays(client, app) == [0] * 7


def test_another_function_is_another_call(later: Any, app: Deferrable, client: Client, name: str) -> None:
    later(name)
    app.deferrable(debounce_seconds=30)(look_up).later(name)
    assert delays(client, app) == [0, 0]


def test_equal_calls_of_other_groups_are_the_same(client: Client, name: str) -> None:
    factory = CarillonBackendFactory(client, wait_seconds=0)
    one, other = (Deferrable(factory.create_backend_for_group(f"{name}{letter}")) for letter in "ab")
    one.deferrable(debounce_seconds=30)(note).later(name)
    other.deferrable(debounce_seconds=30)(note).later(name)
    assert (delays(client, one), delays(client, other)) == ([0], [30])


def test_of_many_producers_at_once_one_is_pushed_now_and_one_later(later: Any, app: Deferrable, client: Client, name: str) -> None:
    with ThreadPoolExecutor(8) as pool:
        for made in [pool.submit(later, name) for _ in range(24)]:
            made.result()
    assert len(waiting(client, app)) == 2
    assert sorted(delays(client, app)) == [0, 30]


def test_calls_after_the_delayed_one_has_become_available_are_not_lost(app: Deferrable, client: Client, name: str) -> None:
    # Deferrable would skip the third call: its window went on after the delayed item had become available.
    later = app.deferrable(debounce_seconds=1)(note).later
    later(name)
    later(name)
    until("the delayed one is available", lambda: queue_of(app).stats()["available"] == 2)
    later(name)
    assert len(waiting(client, app)) == 3


def test_a_quiet_window_is_followed_by_a_push_without_delay(app: Deferrable, client: Client, name: str) -> None:
    later = app.deferrable(debounce_seconds=0.2)(note).later
    later(name)
    begun = waiting(client, app)[0].run_at.timestamp()
    until("the window is over", lambda: time.time() > begun + 0.25)
    later(name)
    assert delays(client, app) == [0, 0]


def test_a_flushed_item_leaves_nothing_out(later: Any, app: Deferrable, client: Client, name: str) -> None:
    later(name)
    later(name)
    queue_of(app).flush()
    later(name)
    assert len(waiting(client, app)) == 1


def test_retries_do_not_touch_the_window(app: Any, client: Client, name: str) -> None:
    later = app.deferrable(debounce_seconds=30, error_classes=[TypeError], use_exponential_backoff=False)(divide).later
    later(name)  # 1 / "n7" is a TypeError.
    app.run_once()
    assert delays(client, app) == [0]
    later(name)
    assert delays(client, app) == [0, 30]
    later(name)
    assert delays(client, app) == [0, 30]


def test_a_call_with_pickled_arguments_is_debounced_too(backend: Backend, client: Client, name: str) -> None:
    app = Deferrable(backend, serializer="pickle")
    later = app.deferrable(debounce_seconds=30)(note).later
    for _ in range(3):
        later(name, {1, 2}, a=(1,), b=2)
    later(name, {1, 2}, b=2, a=(1,))
    assert delays(client, backend) == [0, 30]


class Refusing(httpx.HTTPTransport):
    """Loses what is debounced."""

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        if b"debounce_key" in request.read():
            raise httpx.ReadTimeout("lost on the way")
        return super().handle_request(request)


def test_an_error_in_debouncing_is_told_and_the_item_is_pushed_without_delay(
    server: Server, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    with Client(server.url, transport=Refusing()) as client:
        app, events = Deferrable(CarillonBackendFactory(client, wait_seconds=0).create_backend_for_group(name)), Recorder()
        app.register_event_consumer(events)
        app.deferrable(debounce_seconds=30, debounce_always_delay=True)(note).later(name)
        assert events.names == ["debounce_error", "push"]
        assert popped(queue_of(app))["delay"] == 0
    assert "lost on the way" in caplog.text
    assert caplog.records[-1].levelno == logging.ERROR


def test_without_a_server_a_debounced_call_raises_after_all(name: str) -> None:
    with Client("http://127.0.0.1:9") as client:
        app, events = Deferrable(CarillonBackendFactory(client).create_backend_for_group(name)), Recorder()
        app.register_event_consumer(events)
        with pytest.raises(httpx.ConnectError):
            app.deferrable(debounce_seconds=30)(note).later(name)
        assert events.names == ["debounce_error"]
        with pytest.raises(httpx.ConnectError):
            app.deferrable(note).later(name)
    assert CALLS == []
