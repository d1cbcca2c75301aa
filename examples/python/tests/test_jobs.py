"""Jobs, as they are made, looked at and changed with a client."""

from __future__ import annotations

from support import Receiver, until

from carillon import Client


def test_a_job_is_delivered(client: Client, group: str, receiver: Receiver) -> None:
    job = client.jobs.create(group, url=receiver.url("/bell"), payload={"user": "Zoë"}, name="hello")
    assert (job.group, job.name, job.attempt_count) == (group, "hello", 0)
    (arrival,) = receiver.arrived("/bell")
    assert arrival.json() == {"user": "Zoë"}
    assert arrival.headers["idempotency-key"] == job.id
    until("it succeeds", lambda: client.jobs.get(job.id).state == "succeeded")
