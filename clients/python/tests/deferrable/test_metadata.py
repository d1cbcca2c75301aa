"""Metadata: what producers tell consumers beside a function's arguments."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Any

import pytest
from deferred import CALLS, Recorder, counts, divide, errors_of, note, popped, queue_of

from carillon.deferrable import Deferrable
from carillon.deferrable.backend import Backend
from carillon.deferrable.metadata import MetadataProducerConsumer


class Trace(MetadataProducerConsumer):
    """Produces 1, 2, 3, … and remembers what it consumed."""

    NAMESPACE = "trace"

    def __init__(self) -> None:
        super().__init__()
        self.produced = 0
        self.consumed: list[Any] = []

    def produce_metadata(self) -> Any:
        self.produced += 1
        return {"number": self.produced}

    def consume_metadata(self, metadata: Any) -> None:
        CALLS.append("consumed")
        self.consumed.append(metadata)


class Host(Trace):
    NAMESPACE = "host"

    def produce_metadata(self) -> Any:
        return None


@pytest.fixture
def trace(app: Deferrable) -> Trace:
    trace = Trace()
    app.register_metadata_producer_consumer(trace)
    return trace


def test_what_is_produced_is_consumed_before_the_function_runs(app: Deferrable, trace: Trace) -> None:
    app.deferrable(note).later()
    app.run_once()
    assert trace.consumed == [{"number": 1}]
    assert CALLS == ["consumed", ((), {})]


def test_it_stands_in_the_item_by_namespace(app: Deferrable, trace: Trace) -> None:
    app.register_metadata_producer_consumer(Host())
    app.deferrable(note).later()
    assert popped(queue_of(app))["metadata"] == {"trace": {"number": 1}, "host": None}


def test_every_registered_one_is_called_with_none_if_the_item_has_none(app: Deferrable) -> None:
    app.deferrable(note).later()
    trace, host = Trace(), Host()
    app.register_metadata_producer_consumer(trace)
    app.register_metadata_producer_consumer(host)
    app.run_once()
    assert (trace.consumed, host.consumed) == ([None], [None])


def test_a_namespace_that_nobody_consumes_is_passed_over(backend: Backend, app: Deferrable, trace: Trace) -> None:
    app.deferrable(note).later()
    consumer = Deferrable(backend)
    consumer.deferrable(note)
    consumer.run_once()
    assert trace.consumed == []
    assert CALLS == [((), {})]


def test_it_survives_retries_and_goes_to_the_error_queue(app: Deferrable, trace: Trace) -> None:
    app.deferrable(error_classes=[ZeroDivisionError], max_attempts=2, use_exponential_backoff=False)(divide).later()
    app.run_once()
    app.run_once()
    assert trace.consumed == [{"number": 1}] * 2
    assert trace.produced == 1
    assert popped(errors_of(app))["metadata"] == {"trace": {"number": 1}}


def test_it_is_consumed_before_the_time_to_live_is_looked_at(backend: Backend) -> None:
    now = [0.0]
    app, trace = Deferrable(backend, clock=lambda: now[0]), Trace()
    app.register_metadata_producer_consumer(trace)
    app.deferrable(ttl_seconds=1)(note).later()
    now[0] = 2
    app.run_once()
    assert CALLS == ["consumed"]


class Broken(Trace):
    def consume_metadata(self, metadata: Any) -> None:
        raise LookupError("not understood")


def test_an_item_whose_metadata_are_not_understood_is_left_in_flight(app: Deferrable, backend: Backend, events: Recorder) -> None:
    app.register_metadata_producer_consumer(Broken())
    app.deferrable(error_classes=[LookupError])(note).later()
    with pytest.raises(LookupError, match="not understood"):
        app.run_once()
    assert CALLS == []
    assert events.names == ["push", "pop"]
    assert counts(backend) == (0, 1, 0)
    assert errors_of(app).stats()["available"] == 0


def test_a_namespace_is_needed() -> None:
    class Nameless(Trace):
        NAMESPACE = None  # type: ignore[assignment]

    with pytest.raises(ValueError, match="Nameless has no NAMESPACE"):
        Nameless()


def test_one_that_forgets_to_call_the_constructor_of_its_base_is_found_on_registration(app: Deferrable) -> None:
    class Forgetful(MetadataProducerConsumer):
        def __init__(self) -> None:
            pass

    with pytest.raises(ValueError, match="Forgetful has no NAMESPACE"):
        app.register_metadata_producer_consumer(Forgetful())


def test_a_namespace_is_unique_on_an_instance(app: Deferrable, trace: Trace, backend: Backend) -> None:
    with pytest.raises(ValueError, match="'trace' is registered already"):
        app.register_metadata_producer_consumer(Trace())
    Deferrable(backend).register_metadata_producer_consumer(Trace())


def test_clear_forgets_all_of_them(app: Deferrable, trace: Trace) -> None:
    app.clear_metadata_producer_consumers()
    app.deferrable(note).later()
    app.run_once()
    assert (trace.produced, trace.consumed) == (0, [])
    app.register_metadata_producer_consumer(trace)


def test_metadata_that_json_cannot_hold_are_refused_with_their_place(app: Deferrable) -> None:
    class Clock(Trace):
        def produce_metadata(self) -> Any:
            return {"at": datetime.now(timezone.utc)}

    app.register_metadata_producer_consumer(Clock())
    with pytest.raises(TypeError, match=r"metadata\['trace'\]\['at'\] is of type datetime"):
        app.deferrable(note).later()
    assert queue_of(app).pop() == (None, None)


def test_metadata_are_pickled_with_the_arguments(backend: Backend) -> None:
    class Tuple(Trace):
        def produce_metadata(self) -> Any:
            return (1, 2)

    app, trace = Deferrable(backend, serializer="pickle"), Tuple()
    app.register_metadata_producer_consumer(trace)
    app.deferrable(note).later()
    app.run_once()
    assert trace.consumed == [(1, 2)]


def test_a_call_that_is_left_out_is_asked_for_metadata_all_the_same(app: Deferrable, trace: Trace, name: str) -> None:
    # Deferrable asked after it had decided; here the server decides with the whole item in hand.
    later = app.deferrable(debounce_seconds=30, debounce_always_delay=True)(note).later
    later(name)
    later(name)
    assert trace.produced == 2
