"""Jobs, as they are made, looked at and changed with a client."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from support import Answer, Receiver, until

from carillon import Client, Job, Problem

#: Nowhere, and not before the tests are over.
LATER = timedelta(hours=1)


def waiting(client: Client, group: str, **fields: object) -> Job:
    """A job that waits for its time."""
    return client.jobs.create(group, url="http://127.0.0.1:9/", run_at=LATER, **fields)  # type: ignore[arg-type]


def test_a_job_is_delivered(client: Client, group: str, receiver: Receiver) -> None:
    job = client.jobs.create(group, url=receiver.url("/bell"), payload={"user": "Zoë"}, name="hello")
    assert (job.group, job.name, job.attempt_count, job.instead) == (group, "hello", 0, None)
    assert job.request is not None
    assert job.request.method == "POST"
    assert ("Content-Type", "application/json") in job.request.headers
    (arrival,) = receiver.arrived("/bell")
    assert arrival.json() == {"user": "Zoë"}
    assert arrival.headers["idempotency-key"] == job.id
    ended = until("it succeeds", lambda: (lambda job: job if job.is_finished else None)(client.jobs.get(job.id)))
    assert (ended.state, ended.attempt_count, ended.last_status) == ("succeeded", 1, 200)
    assert ended.finished_at is not None
    assert ended.finished_at.tzinfo is timezone.utc


@pytest.mark.parametrize(
    ("given", "body"),
    [
        ({"payload": [1, "é", None]}, '[1,"é",null]'.encode()),
        ({"payload": "text"}, b'"text"'),
        ({"payload_text": "plain — text"}, "plain — text".encode()),
        ({"payload_bytes": b"\x00\xff"}, b"\x00\xff"),
        ({}, b""),
    ],
)
def test_a_payload_is_json_text_or_bytes(client: Client, group: str, receiver: Receiver, given: dict[str, object], body: bytes) -> None:
    client.jobs.create(group, url=receiver.url("/p"), **given)  # type: ignore[arg-type]
    assert receiver.arrived("/p")[0].body == body


def test_method_headers_and_metadata_are_sent(client: Client, group: str, receiver: Receiver) -> None:
    client.jobs.create(
        group,
        url=receiver.url("/x?y=1"),
        method="PUT",
        headers={"X-One": "1"},
        metadata={"plan": "free", "billing": {"invoice": "17"}},
        metadata_headers=True,
    )
    (arrival,) = receiver.arrived("/x?y=1")
    assert arrival.method == "PUT"
    assert arrival.headers["x-one"] == "1"
    assert arrival.headers["carillon-metadata-plan"] == "free"
    assert arrival.headers["carillon-metadata-billing-invoice"] == "17"


def test_a_time_is_absolute_or_from_now(client: Client, group: str) -> None:
    at = datetime(2030, 1, 2, 3, 4, 5, 678000, tzinfo=timezone(timedelta(hours=2)))
    url = "http://127.0.0.1:9/"
    assert client.jobs.create(group, url=url, run_at=at).run_at == at
    assert client.jobs.create(group, url=url, run_at=at.timestamp()).run_at == at
    assert client.jobs.create(group, url=url, run_at="2030-01-02T01:04:05.678Z").run_at == at
    for ahead in (timedelta(minutes=2), "+2m"):
        job = client.jobs.create(group, url=url, run_at=ahead)
        assert job.run_at - job.created_at == timedelta(minutes=2)


def test_limits_are_periods(client: Client, group: str) -> None:
    job = waiting(client, group, limits={"ttl": timedelta(days=1), "timeout": 2.5, "max_delay": "10m"})
    assert job.deadline == job.run_at + timedelta(minutes=10)


def test_a_failing_job_is_tried_again_and_tells_of_it(client: Client, group: str, receiver: Receiver) -> None:
    receiver.script("/f", Answer(503, b"busy"), Answer(200, b"thanks"))
    job = client.jobs.create(group, url=receiver.url("/f"))
    until("it succeeds", lambda: client.jobs.get(job.id).state == "succeeded")
    first, second = client.jobs.attempts(job.id)
    assert (first.number, first.status, first.response_body, first.spent) == (1, 503, "busy", True)
    assert first.verdict is not None
    assert first.verdict.outcome == "retryable"
    assert first.decision is not None
    assert (first.decision.state, first.decision.next_run_at is None) == ("scheduled", False)
    assert second.decision is not None
    assert (second.response_body, second.decision.state) == ("thanks", "succeeded")
    assert second.started_at >= first.finished_at
    assert [attempt.number for attempt in client.jobs.attempts(job.id, page_size=1)] == [1, 2]


def test_a_connection_that_fails_is_an_error_of_the_attempt(client: Client, name: str) -> None:
    client.groups.put(name, retry={"plugin": "backoff", "config": {"kind": "fixed", "base": "10ms", "max_attempts": 1}})
    job = client.jobs.create(name, url="http://127.0.0.1:9/")
    until("it is dead", lambda: client.jobs.get(job.id).state == "dead")
    (attempt,) = client.jobs.attempts(job.id)
    assert attempt.status is None
    assert attempt.error is not None
    assert attempt.error.code == "send.connect"


def test_many_jobs_at_once(client: Client, group: str, receiver: Receiver) -> None:
    batch = client.jobs.create_many(group, [{"url": receiver.url("/many"), "payload": n, "name": f"j{n}"} for n in range(25)])
    assert (len(set(batch.ids)), batch.instead) == (25, 0)
    arrivals = receiver.arrived("/many", 25)
    assert sorted(arrival.json() for arrival in arrivals) == list(range(25))


def test_one_bad_job_of_a_batch_is_pointed_at_and_none_is_made(client: Client, group: str) -> None:
    with pytest.raises(Problem) as caught:
        client.jobs.create_many(group, [{"url": "http://127.0.0.1:9/"}, {"url": "nowhere"}])
    assert (caught.value.status, caught.value.pointer) == (422, "/jobs/1/url")
    assert list(client.jobs.list(group)) == []


def test_an_idempotency_key_makes_one_job(client: Client, group: str) -> None:
    first = client.jobs.create(group, url="http://127.0.0.1:9/", run_at="+1h", idempotency_key="k1")
    again = client.jobs.create(group, url="http://127.0.0.1:9/", run_at="+1h", idempotency_key="k1")
    assert again.id == first.id
    assert len(list(client.jobs.list(group))) == 1
    with pytest.raises(Problem) as caught:
        client.jobs.create(group, url="http://127.0.0.1:9/other", run_at="+1h", idempotency_key="k1")
    assert (caught.value.status, caught.value.kind) == (409, "idempotency-key-reused")
    batch = client.jobs.create_many(group, [{"run_at": LATER}], idempotency_key="k2")
    assert client.jobs.create_many(group, [{"run_at": LATER}], idempotency_key="k2") == batch


def test_a_dedupe_key_answers_the_job_that_there_is(client: Client, group: str) -> None:
    first = waiting(client, group, dedupe_key="d", dedupe_window=timedelta(minutes=1))
    again = waiting(client, group, dedupe_key="d", dedupe_window=timedelta(minutes=1))
    assert (again.id, again.instead) == (first.id, "duplicate")
    assert client.jobs.create_many(group, [{"dedupe_key": "d"}, {"run_at": LATER}]).instead == 1


def test_a_debounced_job_waits_or_is_skipped(client: Client, group: str, name: str) -> None:
    made = [client.jobs.create(group, debounce_seconds=60, debounce_key=name) for _ in range(3)]
    assert [job.instead for job in made] == [None, None, "debounced"]
    assert made[1].run_at - made[0].run_at >= timedelta(seconds=59)
    assert made[2].id == made[1].id
    first = client.jobs.create(group, debounce_seconds=60, debounce_key=f"{name}-delay", debounce_always_delay=True)
    assert first.run_at - first.created_at >= timedelta(seconds=60)


def test_a_list_goes_through_all_pages(client: Client, group: str) -> None:
    client.jobs.create_many(group, [{"run_at": LATER, "name": f"a{n}", "metadata": {"odd": str(n % 2)}} for n in range(7)])
    assert [job.name for job in client.jobs.list(group, page_size=3)] == [f"a{n}" for n in reversed(range(7))]
    assert [job.name for job in client.jobs.list(group, name="a3")] == ["a3"]
    assert len(list(client.jobs.list(group, name_prefix="a", state="scheduled", metadata={"odd": "1"}))) == 3
    now = datetime.now(timezone.utc)
    assert list(client.jobs.list(group, created_from=now + LATER)) == []
    assert len(list(client.jobs.list(group, created_before=now + LATER))) == 7


def test_a_job_has_a_name_in_its_group(client: Client, group: str) -> None:
    job = waiting(client, group, name="a / strange? name")
    assert client.jobs.get("a / strange? name", group=group).id == job.id
    assert client.jobs.cancel("a / strange? name", group=group).state == "cancelled"


def test_what_can_be_done_to_a_job(client: Client, group: str, receiver: Receiver) -> None:
    job = waiting(client, group)
    at = datetime(2030, 1, 1, tzinfo=timezone.utc)
    assert client.jobs.reschedule(job.id, at).run_at == at
    edited = client.jobs.edit(job.id, url=receiver.url("/edited"), payload={"n": 2}, name="new", priority=9)
    assert (edited.name, edited.priority, edited.run_at) == ("new", 9, at)
    assert client.jobs.edit(job.id, name=None).name is None
    client.jobs.run(job.id)
    assert receiver.arrived("/edited")[0].json() == {"n": 2}
    other = waiting(client, group)
    assert client.jobs.cancel(other.id).state == "cancelled"
    assert client.jobs.cancel(other.id).state == "cancelled"
    with pytest.raises(Problem) as caught:
        client.jobs.run(other.id)
    assert caught.value.status == 409


def test_a_dead_letter_is_retried(client: Client, name: str, receiver: Receiver) -> None:
    client.groups.put(name, retry={"plugin": "backoff", "config": {"kind": "fixed", "base": "10ms", "max_attempts": 1}})
    receiver.script("/d", Answer(500), Answer(200))
    job = client.jobs.create(name, url=receiver.url("/d"))
    until("it is dead", lambda: client.jobs.get(job.id).state == "dead")
    client.jobs.retry(job.id)
    until("it succeeds", lambda: client.jobs.get(job.id).state == "succeeded")


def test_jobs_follow_from_success_and_failure(client: Client, group: str, receiver: Receiver) -> None:
    other = client.groups.put(f"{group}-other").name
    job = client.jobs.create(
        group,
        url=receiver.url("/first"),
        on_success={"url": receiver.url("/second"), "payload": 2, "group": other, "run_at": timedelta(milliseconds=20)},
        on_failure={"url": receiver.url("/never")},
    )
    assert receiver.arrived("/second")[0].json() == 2
    (second,) = client.jobs.list(other)
    assert second.parent == job.id
    assert receiver.all("/never") == []


def test_policy_and_order_key_are_taken(client: Client, group: str) -> None:
    job = waiting(client, group, order_key="o", policy={"retry": {"max_attempts": 2}})
    assert job.order_key == "o"


@pytest.mark.parametrize(
    ("fields", "error"),
    [
        ({"urll": "x"}, TypeError),
        ({"limits": {"ttll": 1}}, TypeError),
        ({"on_success": {"urll": "x"}}, TypeError),
        ({"group": "g"}, TypeError),
        ({"run_at": datetime(2030, 1, 1)}, ValueError),
        ({"run_at": True}, TypeError),
        ({"run_at": float("nan")}, ValueError),
        ({"payload": float("inf")}, ValueError),
        ({"payload": {1, 2}}, TypeError),
        ({"payload_bytes": "text"}, TypeError),
        ({"limits": {"ttl": -1}}, ValueError),
    ],
)
def test_what_cannot_be_meant_is_not_sent(client: Client, group: str, fields: dict[str, object], error: type[Exception]) -> None:
    with pytest.raises(error):
        client.jobs.create_many(group, [fields])  # type: ignore[list-item]
    assert list(client.jobs.list(group)) == []


def test_what_was_meant_is_said(client: Client) -> None:
    misspelt: dict[str, Any] = {"runat": 1}
    with pytest.raises(TypeError, match="did you mean 'run_at'"):
        client.jobs.create("g", **misspelt)
    with pytest.raises(TypeError, match="payload_bytes"):
        client.jobs.create("g", payload=b"bytes")
