"""Jobs that consumers pull."""

from __future__ import annotations

import threading
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from support import until

from carillon import Client, Problem


@pytest.mark.parametrize(
    ("given", "payload", "form"),
    [
        ({"payload": {"a": [1, None]}}, {"a": [1, None]}, "json"),
        ({"payload_text": "täxt"}, "täxt", "text"),
        ({"payload_bytes": b"\xff\x00"}, b"\xff\x00", "bytes"),
        ({}, "", "text"),
    ],
)
def test_a_lease_has_the_payload(client: Client, group: str, given: dict[str, Any], payload: object, form: str) -> None:
    job = client.jobs.create(group, **given)
    (lease,) = client.leases.take(group)
    assert (lease.payload, lease.form, lease.attempt, lease.job.id) == (payload, form, 1, job.id)


def test_take_complete(client: Client, group: str) -> None:
    client.jobs.create_many(group, [{"payload": n} for n in range(5)])
    leases = client.leases.take(group, limit=3, lease=timedelta(minutes=2))
    assert [lease.payload for lease in leases] == [0, 1, 2]
    ahead = leases[0].expires_at - datetime.now(timezone.utc)
    assert timedelta(seconds=100) < ahead <= timedelta(minutes=2)
    assert client.leases.complete(leases[1]).state == "succeeded"
    assert client.leases.complete(leases[0].token).state == "succeeded"
    assert client.groups.stats(group).in_flight == 1
    with pytest.raises(Problem) as caught:
        client.leases.complete(leases[0])
    assert caught.value.status == 409


def test_a_failure_is_for_the_retry_policy(client: Client, group: str) -> None:
    job = client.jobs.create(group)
    (lease,) = client.leases.take(group)
    failed = client.leases.fail(lease, "ouch", retry_after="1h")
    assert failed.state == "scheduled"
    assert failed.next_run_at is not None
    assert failed.next_run_at > datetime.now(timezone.utc) + timedelta(minutes=50)
    (attempt,) = client.jobs.attempts(job.id)
    assert attempt.error is not None
    assert "ouch" in attempt.error.message
    client.jobs.run(job.id)
    (lease,) = client.leases.take(group)
    assert lease.attempt == 2
    assert client.leases.fail(lease, permanent=True).state == "dead"


def test_a_released_job_is_unspent(client: Client, group: str) -> None:
    client.jobs.create(group)
    (lease,) = client.leases.take(group)
    assert client.leases.release(lease).state == "scheduled"
    (again,) = client.leases.take(group)
    assert again.attempt == 1


def test_a_lease_is_extended(client: Client, group: str) -> None:
    client.jobs.create(group)
    (lease,) = client.leases.take(group, lease=30)
    extended = client.leases.extend(lease, timedelta(hours=1))
    assert extended - lease.expires_at > timedelta(minutes=59)
    assert client.leases.extend(lease) < extended


def test_a_lease_that_ends_gives_the_job_back(client: Client, group: str) -> None:
    client.jobs.create(group)
    (lease,) = client.leases.take(group, lease=1)
    again = until("it comes again", lambda: client.leases.take(group, wait=1))
    assert again[0].job.id == lease.job.id
    with pytest.raises(Problem) as caught:
        client.leases.complete(lease)
    assert caught.value.status == 409


def test_an_unknown_lease_is_unknown(client: Client) -> None:
    with pytest.raises(Problem) as caught:
        client.leases.complete("never-was-one")
    assert caught.value.status == 404


@pytest.mark.parametrize("wait", ["15s", 15, timedelta(seconds=15)])
def test_a_consumer_waits_for_a_job_longer_than_a_request_may_take(client: Client, group: str, wait: Any) -> None:
    producer = threading.Timer(1.0, lambda: client.jobs.create(group, payload="late"))
    with Client(client.url, timeout=0.5) as impatient:
        producer.start()
        (lease,) = impatient.leases.take(group, wait=wait)
    producer.join()
    assert lease.payload == "late"
    assert client.leases.take(group, wait=0) == []
