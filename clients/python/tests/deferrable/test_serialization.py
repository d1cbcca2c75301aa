"""Arguments on their way: JSON, or pickled where both sides ask for it."""

from __future__ import annotations

import collections
import enum
import uuid
from datetime import datetime, timezone
from decimal import Decimal
from typing import Any

import pytest
from deferred import CALLS, Recorder, counts, errors_of, note, popped, queue_of

from carillon.deferrable import Deferrable
from carillon.deferrable.backend import Backend
from carillon.deferrable.serialization import JsonSerializer


@pytest.mark.parametrize(
    "value",
    [
        None,
        True,
        0,
        -1.5,
        1e300,
        2**200,
        "",
        "Zoë 🔔 \x00 \u2028",
        [],
        [1, [2, {"a": []}]],
        {},
        {"": {"é": None}},
    ],
)
def test_json_values_arrive_as_they_were(app: Deferrable, value: Any) -> None:
    app.deferrable(note).later(value, key=value)
    app.run_once()
    assert [((value,), {"key": value})] == CALLS
    assert repr(CALLS[0][0][0]) == repr(value)


class Colour(enum.IntEnum):
    RED = 1


@pytest.mark.parametrize(
    ("value", "arrives"),
    [((1, (2,)), [1, [2]]), (Colour.RED, 1), (collections.OrderedDict(b=1, a=(2,)), {"b": 1, "a": [2]})],
)
def test_relatives_of_json_values_arrive_as_these(app: Deferrable, value: Any, arrives: Any) -> None:
    app.deferrable(note).later(value)
    app.run_once()
    assert [((arrives,), {})] == CALLS
    assert type(CALLS[0][0][0]) is type(arrives)


@pytest.mark.parametrize(
    ("value", "place"),
    [
        (datetime.now(timezone.utc), r"args\[0\] is of type datetime"),
        (b"bytes", r"args\[0\] is of type bytes"),
        ({1}, r"args\[0\] is of type set"),
        (Decimal(1), r"args\[0\] is of type Decimal"),
        ({"a": [0, uuid.uuid4()]}, r"args\[0\]\['a'\]\[1\] is of type UUID"),
        ({1: 2}, r"args\[0\] has the key 1"),
        (float("nan"), r"args\[0\] is nan"),
        (float("inf"), r"args\[0\] is inf"),
        ("\ud800", r"args\[0\] is not text"),
        ({"\ud800": 1}, r"args\[0\] is not text"),
    ],
)
def test_what_json_cannot_hold_is_refused_with_its_place(app: Deferrable, value: Any, place: str) -> None:
    with pytest.raises((TypeError, ValueError), match=place):
        app.deferrable(note).later(value)
    with pytest.raises((TypeError, ValueError)):
        app.deferrable(note).later(key=value)
    assert queue_of(app).pop() == (None, None)


def test_a_circle_is_refused() -> None:
    circle: list[Any] = []
    circle.append(circle)
    with pytest.raises(ValueError, match="nested deeper than 100"):
        JsonSerializer().encode(circle, "args")


def test_the_deepest_arguments_that_are_taken_arrive(app: Deferrable) -> None:
    deep: Any = "bottom"
    for _ in range(97):
        deep = [deep]
    app.deferrable(note).later(deep)
    app.run_once()
    assert [((deep,), {})] == CALLS


def test_what_is_changed_after_the_call_is_not_changed_in_the_item(app: Deferrable) -> None:
    class Changer:
        def on_push(self, item: Any) -> None:
            CALLS.append(item["args"])

    app.register_event_consumer(Changer())
    names = ["a"]
    app.deferrable(note).later(names)
    names.append("b")
    assert CALLS == [[["a"]]]


class Point(tuple[int, int]):
    """Something that JSON knows nothing of."""


def test_pickle_carries_what_json_cannot(backend: Backend) -> None:
    app = Deferrable(backend, serializer="pickle")
    value = (1, {2, 3}, Point((4, 5)), b"\x00", {6: 7}, datetime(2026, 1, 1, tzinfo=timezone.utc))
    app.deferrable(note).later(*value, point=Point((8, 9)))
    app.run_once()
    assert [(value, {"point": Point((8, 9))})] == CALLS
    assert type(CALLS[0][0][2]) is Point


def test_what_cannot_be_pickled_is_refused_with_its_place(backend: Backend) -> None:
    app = Deferrable(backend, serializer="pickle")
    with pytest.raises(TypeError, match="args cannot be pickled"):
        app.deferrable(note).later(lambda: None)


def test_a_consumer_with_pickle_takes_json_too(backend: Backend) -> None:
    Deferrable(backend).deferrable(note).later(1)
    consumer = Deferrable(backend, serializer="pickle")
    consumer.deferrable(note)
    consumer.run_once()
    assert CALLS == [((1,), {})]


def spring() -> str:
    CALLS.append("unpickled")
    return "sprung"


class Trap:
    """Leaves a trace when it is unpickled."""

    def __reduce__(self) -> Any:
        return (spring, ())


def test_the_trap_works(backend: Backend) -> None:
    app = Deferrable(backend, serializer="pickle")
    app.deferrable(note).later(Trap())
    app.run_once()
    assert CALLS == ["unpickled", (("sprung",), {})]


@pytest.mark.parametrize("claimed", ["pickle", "json"])
def test_a_consumer_that_did_not_ask_for_pickle_never_unpickles(backend: Backend, claimed: str) -> None:
    producer = Deferrable(backend, serializer="pickle")
    producer.deferrable(note).later(Trap(), a=Trap())
    queue_of(backend).push({**popped(queue_of(backend)), "serializer": claimed})
    consumer, events = Deferrable(backend), Recorder()
    consumer.deferrable(note)
    consumer.register_event_consumer(events)
    consumer.run_once()
    assert CALLS == []
    assert events.names == ["pop", "error", "complete"]
    assert counts(backend) == (0, 0, 0)
    done = popped(errors_of(backend))
    if claimed == "pickle":
        assert done["error"]["error_type"] == "BadItem"
        assert "this consumer was not given serializer='pickle'" in done["error"]["error_text"]


@pytest.mark.parametrize("claimed", [None, "yaml", 1, ["json"]])
def test_an_unknown_serializer_is_an_error_of_the_item(app: Deferrable, claimed: Any) -> None:
    app.deferrable(note).later()
    queue_of(app).push({**popped(queue_of(app)), "serializer": claimed})
    app.run_once()
    assert CALLS == []
    assert popped(errors_of(app))["error"]["error_type"] == "BadItem"
