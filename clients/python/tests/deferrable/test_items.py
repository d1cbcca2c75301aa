"""Items: their keys, and the arithmetic of retries, times to live and errors."""

from __future__ import annotations

import socket
import uuid
from typing import Any

import pytest
from deferred import divide, errors_of, note, popped, queue_of

from carillon.deferrable import Deferrable, items
from carillon.deferrable.backend import Backend

NOW = 1_795_168_800.25


def test_an_item_has_the_keys_of_deferrable(backend: Backend, name: str) -> None:
    app = Deferrable(backend, clock=lambda: NOW)
    decorate = app.deferrable(error_classes=[ZeroDivisionError], max_attempts=3, delay_seconds=1.5, ttl_seconds=60)
    decorate(note).later(1, [2], z=3, a={"k": None})
    (job,) = queue_of(app)._client.jobs.list(queue_of(app).name)
    queue_of(app)._client.jobs.run(job.id)
    assert popped(queue_of(app)) == {
        "method": "deferred:note",
        "serializer": "json",
        "args": [1, [2]],
        "kwargs": [["a", {"k": None}], ["z", 3]],
        "group": name,
        "error_classes": ["builtins:ZeroDivisionError"],
        "attempts": 0,
        "max_attempts": 3,
        "first_push_time": NOW,
        "last_push_time": NOW,
        "original_delay_seconds": 1.5,
        "original_debounce_seconds": 0,
        "original_debounce_always_delay": False,
        "use_exponential_backoff": True,
        "delay": 1.5,
        "original_delay": 1.5,
        "ttl_seconds": 60,
        "item_queued_timestamp": NOW,
    }


def test_an_item_without_ttl_and_metadata_has_no_keys_of_theirs(app: Deferrable) -> None:
    app.deferrable(note).later()
    assert {"ttl_seconds", "item_queued_timestamp", "metadata", "error"}.isdisjoint(popped(queue_of(app)))


def test_the_backoff_is_two_and_a_power_of_two_seconds_up_to_900() -> None:
    waits = [items.backoff_seconds(attempts) for attempts in range(1, 13)]
    assert waits == [4, 6, 10, 18, 34, 66, 130, 258, 514, 900, 900, 900]
    assert items.backoff_seconds(10**9) == 900


def item(**changes: Any) -> dict[str, Any]:
    return {"method": "m:f", "serializer": "json", "args": [], "kwargs": [], "attempts": 0, "max_attempts": 5, **changes}


def test_a_retried_item_has_one_more_attempt_and_the_delay_of_that() -> None:
    first = item(delay=30, use_exponential_backoff=True, first_push_time=1, last_push_time=1)
    again = items.retried(first, NOW)
    assert (again["attempts"], again["delay"], again["last_push_time"]) == (1, 4, NOW + 4)
    assert again["first_push_time"] == 1
    assert items.retried(item(attempts=8, use_exponential_backoff=True), NOW)["delay"] == 514
    assert first["attempts"] == 0


def test_a_retried_item_without_backoff_has_no_delay_at_all() -> None:
    again = items.retried(item(delay=30, use_exponential_backoff=False), NOW)
    assert "delay" not in again
    assert again["last_push_time"] == NOW


@pytest.mark.parametrize(("max_attempts", "executions"), [(0, 1), (1, 1), (2, 2), (5, 5)])
def test_max_attempts_is_the_number_of_executions(max_attempts: int, executions: int) -> None:
    last = [items.is_last_attempt(item(attempts=attempts, max_attempts=max_attempts)) for attempts in range(executions)]
    assert last == [False] * (executions - 1) + [True]


def test_an_item_is_expired_when_more_than_its_ttl_has_passed() -> None:
    young = item(ttl_seconds=300, item_queued_timestamp=NOW)
    assert not items.is_expired(young, NOW + 300)
    assert items.is_expired(young, NOW + 300.001)
    assert not items.is_expired(item(ttl_seconds=0, item_queued_timestamp=0), NOW)
    assert not items.is_expired(item(ttl_seconds=None, item_queued_timestamp=0), NOW)
    assert not items.is_expired(item(), NOW)


def test_the_ttl_is_not_restarted_by_retries_and_delays() -> None:
    again = items.retried(item(ttl_seconds=3, item_queued_timestamp=NOW, use_exponential_backoff=True), NOW + 2)
    assert not items.is_expired(again, NOW + 3)
    assert items.is_expired(again, NOW + 3.5)


def test_an_item_of_the_error_queue_says_what_went_wrong(backend: Backend) -> None:
    app = Deferrable(backend, clock=lambda: NOW)
    app.deferrable(divide).later(0)
    app.run_once()
    done = popped(errors_of(app))
    error = done["error"]
    assert set(error) == {"error_type", "error_text", "traceback", "hostname", "ts", "id"}
    assert (error["error_type"], error["error_text"]) == ("ZeroDivisionError", "division by zero")
    assert "in divide" in error["traceback"]
    assert "1 / by" in error["traceback"]
    assert (error["hostname"], error["ts"], done["last_push_time"]) == (socket.gethostname(), NOW, NOW)
    assert uuid.UUID(error["id"]).version == 1
    assert "delay" not in done
    assert (done["method"], done["args"], done["original_delay"]) == ("deferred:divide", [0], 0)


class Wordy(Exception):
    def __str__(self) -> str:
        return "\ud800" + "x" * 100_000


class Speechless(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no words")


def test_an_error_that_cannot_be_written_down_as_it_is_is_written_down_otherwise() -> None:
    wordy = items.failed(item(), Wordy(), NOW)["error"]["error_text"]
    assert wordy.startswith("\\ud800xxx")
    assert len(wordy) < 20_000
    assert items.failed(item(), Speechless(), NOW)["error"]["error_text"] == "its text cannot be made: RuntimeError"


@pytest.mark.parametrize(
    "bad",
    [
        17,
        "text",
        [],
        {},
        item(method=None),
        item(args={}),
        item(kwargs=1),
        item(attempts="0"),
        item(max_attempts=None),
        item(error_classes="builtins:ValueError"),
        item(error_classes=[1]),
        item(metadata=[1]),
        item(ttl_seconds="1"),
        item(ttl_seconds=1),
    ],
)
def test_what_is_not_the_item_of_a_call_is_recognized(bad: Any) -> None:
    with pytest.raises(items.BadItem):
        items.check(bad)
    assert items.check(item()) == item()


def test_a_call_that_no_consumer_could_make_is_refused_where_it_is_made(app: Deferrable) -> None:
    later: Any = app.deferrable(divide).later
    with pytest.raises(TypeError, match="unexpected"):
        later(bye=1)
    with pytest.raises(TypeError, match="too many"):
        later(1, 2)
    assert queue_of(app).stats() == {"available": 0, "in_flight": 0, "delayed": 0}
