"""Uses the client that openapi-python-client makes of the description.

Puts a group, makes a job, lists it, reads its attempts, and provokes a typed problem. Arguments: the server's URL, and that of a receiver.
"""

from __future__ import annotations

import sys
import time

from carillon_client import Client
from carillon_client.api.groups import groups_put
from carillon_client.api.jobs import attempts_list, jobs_create, jobs_get, jobs_list
from carillon_client.models import AttemptPage, ChangedGroupView, GroupInput, JobInput, JobPage, JobView, Problem, State

#: How long a job may take to be delivered, in seconds.
_LONGEST = 20.0


def main(server: str, receiver: str) -> None:
    client = Client(base_url=server, raise_on_unexpected_status=True)
    group = groups_put.sync("generated-python", client=client, body=GroupInput())
    assert isinstance(group, ChangedGroupView), group
    assert group.name == "generated-python"

    made = jobs_create.sync("generated-python", client=client, body=JobInput(url=receiver, payload={"a": [1, "b", None]}, run_at="+0s"))
    assert isinstance(made, JobView), made
    end = time.monotonic() + _LONGEST
    job = made
    while job.state not in (State.SUCCEEDED, State.DEAD):
        assert time.monotonic() < end, job
        found = jobs_get.sync(made.id, client=client)
        assert isinstance(found, JobView), found
        job = found
    assert job.state == State.SUCCEEDED, job
    assert job.created_at.tzinfo is not None

    page = jobs_list.sync("generated-python", client=client, limit=10)
    assert isinstance(page, JobPage), page
    assert [item.id for item in page.items] == [made.id]
    attempts = attempts_list.sync(made.id, client=client)
    assert isinstance(attempts, AttemptPage), attempts
    assert [attempt.status for attempt in attempts.items] == [200]

    problem = jobs_create.sync("generated-python", client=client, body=JobInput(url="nonsense"))
    assert isinstance(problem, Problem), problem
    assert (problem.status, problem.pointer, problem.type_) == (422, "/url", "urn:carillon:problem:invalid")


if __name__ == "__main__":
    main(*sys.argv[1:])
