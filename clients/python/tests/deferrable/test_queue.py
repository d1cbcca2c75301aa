"""The queue interface, with real leases."""

from __future__ import annotations

import base64
import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from deferred import counts, delays, errors_of, popped, queue_of, waiting
from support import Server, until

from carillon import Client, Lease, Problem
from carillon.deferrable.backend import Backend, CarillonBackendFactory, CarillonQueue, MissingGroup

#: The shortest lease that the server gives, in seconds.
SHORTEST = 1


@pytest.fixture
def queue(backend: Backend) -> CarillonQueue:
    return queue_of(backend)


def take(queue: CarillonQueue) -> tuple[Lease, Any]:
    envelope, item = queue.pop()
    assert envelope is not None
    return envelope, item


@pytest.mark.parametrize("item", [{"a": 1}, {"delay": None, "b": [None]}, {"delay": 0}, [1], "text", 0, "", False, {}])
def test_an_item_comes_back_equal(queue: CarillonQueue, item: Any) -> None:
    queue.push(item)
    assert popped(queue) == item
    assert queue.pop() == (None, None)


def test_what_is_no_item_is_refused(queue: CarillonQueue) -> None:
    for wrong in (None, {1}, {"a": b""}, {"delay": "soon"}, {"delay": True}):
        with pytest.raises(TypeError):
            queue.push(wrong)
        with pytest.raises(TypeError):
            queue.push_batch([{"fine": True}, wrong])
    assert queue.stats() == {"available": 0, "in_flight": 0, "delayed": 0}


def test_the_attributes_of_the_queue(backend: Backend) -> None:
    for queue in (queue_of(backend), errors_of(backend)):
        assert (queue.FIFO, queue.SUPPORTS_DELAY, queue.RECLAIMS_TO_BACK_OF_QUEUE) == (True, True, True)
        assert (queue.MAX_PUSH_BATCH_SIZE, queue.MAX_POP_BATCH_SIZE, queue.MAX_COMPLETE_BATCH_SIZE) == (1000, 1000, 1000)


def test_items_come_in_the_order_in_which_they_became_available(queue: CarillonQueue, backend: Backend) -> None:
    queue.push({"n": "later", "delay": 0.3})
    queue.push({"n": "now"})
    until("both are available", lambda: counts(backend) == (2, 0, 0))
    assert [popped(queue)["n"] for _ in range(2)] == ["now", "later"]
    for number in range(5):
        queue.push({"n": number})
    assert [popped(queue)["n"] for _ in range(5)] == [0, 1, 2, 3, 4]


def test_what_a_lost_lease_gives_back_comes_behind_what_is_available(queue: CarillonQueue, backend: Backend) -> None:
    queue.push({"n": 1})
    queue.push({"n": 2})
    envelope, item = take(queue)
    assert item == {"n": 1}
    assert queue.touch(envelope, SHORTEST)
    until("the lease has ended", lambda: counts(backend) == (2, 0, 0))
    assert [popped(queue)["n"], popped(queue)["n"]] == [2, 1]


def test_a_delayed_item_is_not_available_before_its_time(queue: CarillonQueue, backend: Backend, client: Client) -> None:
    queue.push({"delay": 900})
    queue.push({"delay": 0.4})
    queue.push({"delay": -5})
    assert delays(client, backend) == [900, pytest.approx(0.4, abs=0.002), 0]
    assert popped(queue) == {"delay": -5}
    assert queue.pop() == (None, None)
    assert counts(backend) == (0, 0, 2)
    # Without a pop in between.
    until("it is available", lambda: counts(backend) == (1, 0, 1))
    assert popped(queue) == {"delay": 0.4}


def test_pop_waits_for_the_first_item(client: Client, name: str) -> None:
    backend = CarillonBackendFactory(client, wait_seconds=10).create_backend_for_group(name)
    backend.queue.push({"delay": 0.3})
    assert popped(queue_of(backend)) == {"delay": 0.3}


def test_pop_of_the_error_queue_does_not_wait(client: Client, name: str) -> None:
    backend = CarillonBackendFactory(client, wait_seconds=10).create_backend_for_group(name)
    assert errors_of(backend).times.wait_seconds == 0
    assert backend.error_queue.pop() == (None, None)


def test_an_item_in_flight_is_nobody_elses(queue: CarillonQueue, backend: Backend) -> None:
    queue.push({"a": 1})
    envelope, _ = take(queue)
    assert queue.pop() == (None, None)
    assert counts(backend) == (0, 1, 0)
    assert queue.complete(envelope)
    assert counts(backend) == (0, 0, 0)


def test_an_item_whose_lease_ends_comes_again_and_its_first_envelope_is_worth_nothing(queue: CarillonQueue, backend: Backend) -> None:
    queue.push({"a": 1})
    first, _ = take(queue)
    assert queue.touch(first, SHORTEST)
    second, item = until("it comes again", lambda: next(iter(queue.pop_batch(1)), None))
    assert item == {"a": 1}
    assert (first.attempt, second.attempt) == (1, 2)
    assert queue.complete(first) is False
    assert queue.touch(first) is False
    assert queue.release(first) is False
    assert counts(backend) == (0, 1, 0)
    assert queue.complete(second) is True
    assert queue.complete(second) is False
    assert counts(backend) == (0, 0, 0)


def test_touch_extends_a_lease(client: Client, name: str) -> None:
    backend = CarillonBackendFactory(client, lease_seconds=2, wait_seconds=0).create_backend_for_group(name)
    queue = queue_of(backend)
    queue.push({"n": "touched"})
    queue.push({"n": "left"})
    touched = take(queue)[0]
    assert queue.touch(touched, 60) is True
    left = take(queue)[0]
    until("the other lease has ended", lambda: counts(backend) == (1, 1, 0))
    assert popped(queue) == {"n": "left"}
    assert queue.complete(left) is False
    assert queue.complete(touched) is True


def test_touch_is_for_ten_seconds_if_it_does_not_say(queue: CarillonQueue, client: Client) -> None:
    queue.push({"a": 1})
    envelope, _ = take(queue)
    before = client.leases.extend(envelope, 60)
    assert queue.touch(envelope)
    until_then = before - client.leases.extend(envelope, 10)
    assert 45 < until_then.total_seconds() <= 50


def test_an_envelope_that_never_was_is_cleanly_refused(queue: CarillonQueue) -> None:
    queue.push({"a": 1})
    envelope, _ = take(queue)
    parts = base64.urlsafe_b64decode(envelope.token + "=" * (-len(envelope.token) % 4))
    # The 24th byte is the last one of the number of the lease.
    other = base64.urlsafe_b64encode(parts[:23] + bytes([parts[23] ^ 1]) + parts[24:]).decode().rstrip("=")
    for token in ("x", other, "A" * len(envelope.token)):
        forged = dataclasses.replace(envelope, token=token)
        assert (queue.complete(forged), queue.touch(forged), queue.release(forged)) == (False, False, False)
    assert queue.complete(envelope)


def test_completing_out_of_order_removes_the_right_one(queue: CarillonQueue, backend: Backend, client: Client) -> None:
    for number in range(3):
        queue.push({"n": number})
    envelopes = [take(queue)[0] for _ in range(3)]
    assert queue.complete(envelopes[1])
    states = [client.jobs.get(envelope.job.id).state for envelope in envelopes]
    assert states == ["running", "succeeded", "running"]
    assert counts(backend) == (0, 2, 0)


def test_a_released_item_is_available_at_once(queue: CarillonQueue) -> None:
    queue.push({"a": 1})
    envelope, _ = take(queue)
    assert queue.release(envelope)
    again, _ = take(queue)
    assert again.attempt == 1


def test_batches(queue: CarillonQueue, backend: Backend) -> None:
    batch = [{"n": number} for number in range(5)]
    assert queue.push_batch(batch) == [(item, True) for item in batch]
    assert queue.push_batch([]) == []
    assert queue.pop_batch(0) == []
    popped = queue.pop_batch(3)
    assert [item for _, item in popped] == batch[:3]
    popped += queue.pop_batch(10)
    assert [item for _, item in popped] == batch
    assert queue.pop_batch(10) == []
    envelopes = [envelope for envelope, _ in popped]
    assert queue.complete(envelopes[2])
    assert queue.complete_batch(envelopes) == [(envelope, envelope is not envelopes[2]) for envelope in envelopes]
    assert counts(backend) == (0, 0, 0)


def test_items_of_a_batch_are_delayed_each_for_itself(queue: CarillonQueue, backend: Backend) -> None:
    queue.push_batch([{"n": 1}, {"n": 2, "delay": 900}])
    assert counts(backend) == (1, 0, 1)


def test_a_batch_that_is_too_big_is_refused(queue: CarillonQueue) -> None:
    with pytest.raises(ValueError, match="at most 1000"):
        queue.push_batch([{}] * 1001)
    with pytest.raises(ValueError, match="at most 1000"):
        queue.pop_batch(1001)
    with pytest.raises(ValueError, match="at most 1000"):
        queue.complete_batch([None] * 1001)  # type: ignore[list-item]


def test_an_item_that_the_server_refuses_does_not_keep_back_the_others(queue: CarillonQueue, backend: Backend) -> None:
    large = {"text": "x" * (2 << 20)}
    with pytest.raises(Problem) as caught:
        queue.push(large)
    assert caught.value.status == 413
    assert queue.push_batch([{"n": 1}, large, {"n": 2}]) == [({"n": 1}, True), (large, False), ({"n": 2}, True)]
    assert counts(backend) == (2, 0, 0)


def test_flush_removes_what_is_available_and_what_is_delayed(queue: CarillonQueue, backend: Backend) -> None:
    queue.push_batch([{"n": 1}, {"n": 2}, {"n": 3, "delay": 60}])
    envelope, _ = take(queue)
    assert counts(backend) == (1, 1, 1)
    queue.flush()
    assert counts(backend) == (0, 1, 0)
    assert queue.complete(envelope)
    assert errors_of(backend).stats()["available"] == 0


def test_an_item_in_flight_survives_a_flush_when_its_consumer_dies(client: Client, name: str) -> None:
    backend = CarillonBackendFactory(client, lease_seconds=SHORTEST, wait_seconds=0).create_backend_for_group(name)
    queue = queue_of(backend)
    queue.push_batch([{"n": 1}, {"n": 2}, {"n": 3}])
    released, _ = take(queue)
    _, dying = take(queue)
    queue.flush()
    assert counts(backend) == (0, 2, 0)
    assert queue.release(released)
    until("the other lease has ended", lambda: counts(backend) == (2, 0, 0))
    assert dying in [take(queue)[1], take(queue)[1]]


def test_flush_returns_when_more_than_a_thousand_are_gone(queue: CarillonQueue, backend: Backend) -> None:
    for _ in range(3):
        queue.push_batch([{"n": number} for number in range(600)])
    assert counts(backend) == (1800, 0, 0)
    queue.flush()
    assert counts(backend) == (0, 0, 0)


def test_stats_are_exact_without_a_pop(queue: CarillonQueue) -> None:
    assert queue.stats() == {"available": 0, "in_flight": 0, "delayed": 0}
    queue.push_batch([{}, {}, {}, {"delay": 60}])
    envelope, _ = take(queue)
    assert queue.stats() == {"available": 2, "in_flight": 1, "delayed": 1}
    assert queue.touch(envelope, SHORTEST)
    until("the lease has ended", lambda: queue.stats() == {"available": 3, "in_flight": 0, "delayed": 1})


def test_the_error_queue_is_addressed_the_same_way(backend: Backend) -> None:
    errors = errors_of(backend)
    errors.push_batch([{"n": 1}, {"n": 2}])
    envelope, item = take(errors)
    assert item == {"n": 1}
    assert errors.stats() == {"available": 1, "in_flight": 1, "delayed": 0}
    assert errors.touch(envelope, 60)
    assert errors.complete(envelope)
    errors.flush()
    assert errors.stats() == {"available": 0, "in_flight": 0, "delayed": 0}
    assert queue_of(backend).stats() == {"available": 0, "in_flight": 0, "delayed": 0}


def test_the_names_of_the_groups(client: Client) -> None:
    factory = CarillonBackendFactory(client)
    plain, stats = factory.create_backend_for_group(), factory.create_backend_for_group("stats")
    assert (plain.group, stats.group) == (None, "stats")
    assert (queue_of(plain).name, errors_of(plain).name) == ("deferrable", "deferrable_error")
    assert (queue_of(stats).name, errors_of(stats).name) == ("deferrable_stats", "deferrable_stats_error")
    for group in ("error", "stats_error"):
        with pytest.raises(ValueError, match="end in _error"):
            factory.create_backend_for_group(group)


def test_groups_are_made_on_first_use_and_the_server_sends_dead_letters_to_the_error_queue(backend: Backend, client: Client) -> None:
    name = queue_of(backend).name
    with pytest.raises(Problem) as caught:
        client.groups.get(name)
    assert caught.value.status == 404
    assert queue_of(backend).stats()["available"] == 0
    assert client.groups.get(name).dead_letters == f"{name}_error"
    queue_of(backend).push({"n": 1})
    client.leases.fail(take(queue_of(backend))[0], "no use", permanent=True)
    assert popped(errors_of(backend)) == {"n": 1}


def test_a_group_that_is_there_keeps_its_settings(backend: Backend, client: Client) -> None:
    name = queue_of(backend).name
    client.groups.put(name, limits={"ttl": "1h"})
    queue_of(backend).push({"n": 1})
    errors_of(backend).push({"n": 1})
    assert client.groups.get(name).limits == {"ttl": "1h"}
    client.groups.put(f"{name}_error", limits={"ttl": "2h"})
    other = CarillonBackendFactory(client).create_backend_for_group(f"{backend.group}-other")
    client.groups.put(errors_of(other).name, limits={"ttl": "3h"})
    queue_of(other).push({"n": 1})
    assert client.groups.get(errors_of(other).name).limits == {"ttl": "3h"}


def test_a_name_that_the_server_does_not_take_is_its_problem(client: Client) -> None:
    backend = CarillonBackendFactory(client).create_backend_for_group("no group")
    with pytest.raises(Problem) as caught:
        backend.queue.push({"n": 1})
    assert caught.value.status in (400, 422)


ADMIN = "an-administrator-s-token"


@pytest.fixture
def guarded(tmp_path: Path) -> Iterator[Server]:
    """A server with tokens."""
    server = Server(tmp_path, (), {"CARILLON_AUTH__ADMIN_TOKEN": ADMIN})
    yield server
    server.stop()


def test_a_producers_token_is_enough_once_the_groups_are_there(guarded: Server) -> None:
    with Client(guarded.url, ADMIN) as admin:
        token = admin.tokens.create(name="p", role="producer").token
        with Client(guarded.url, token) as producer:
            queue = queue_of(CarillonBackendFactory(producer, wait_seconds=0).create_backend_for_group("g"))
            for use in (lambda: queue.push({"a": 1}), queue.pop, queue.stats, queue.flush):
                with pytest.raises(MissingGroup, match="`carillon group put deferrable_g`") as caught:
                    use()
                assert isinstance(caught.value.__cause__, Problem)
            queue_of(CarillonBackendFactory(admin).create_backend_for_group("g")).stats()
            queue.push({"a": 1})
            assert popped(queue) == {"a": 1}
    with Client(guarded.url, "not-a-token") as stranger:
        strange = CarillonBackendFactory(stranger).create_backend_for_group("g")
        with pytest.raises(Problem) as refused:
            strange.queue.push({"a": 1})
        assert refused.value.status == 401


def test_leases_outlive_the_server_and_complete_waits_for_it(fresh_server: Server) -> None:
    with Client(fresh_server.url) as client:
        queue = queue_of(CarillonBackendFactory(client, wait_seconds=0).create_backend_for_group("g"))
        queue.push_batch([{"n": 1}, {"n": 2}])
        first, second = take(queue)[0], take(queue)[0]
        fresh_server.kill()
        hasty = queue.with_times(dataclasses.replace(queue.times, patience_seconds=0))
        with pytest.raises(httpx.ConnectError):
            hasty.complete(first)
        fresh_server.start()
        assert queue.complete(first)
        fresh_server.kill()
        calls = []

        class Starter:
            """Starts the server when the first try has failed."""

            def __init__(self, complete: Any) -> None:
                self.complete = complete

            def __call__(self, *args: Any) -> Any:
                calls.append(args)
                if len(calls) == 2:
                    fresh_server.start()
                return self.complete(*args)

        client.leases.complete = Starter(client.leases.complete)  # type: ignore[method-assign, assignment]
        assert queue.complete(second)
        assert len(calls) == 2
        assert client.jobs.get(second.job.id).state == "succeeded"


def test_waiting_items_survive_a_kill(fresh_server: Server) -> None:
    with Client(fresh_server.url) as client:
        backend = CarillonBackendFactory(client, wait_seconds=0).create_backend_for_group("g")
        queue_of(backend).push_batch([{"n": 1}, {"n": 2, "delay": 60}])
        fresh_server.kill()
        fresh_server.start()
        assert counts(backend) == (1, 0, 1)
        assert popped(queue_of(backend)) == {"n": 1}
        assert [job.payload_bytes for job in waiting(client, backend)] == [len('{"n":2,"delay":60}')]
