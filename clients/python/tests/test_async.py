"""The client for asyncio does what the other one does."""

from __future__ import annotations

import asyncio
import inspect
from datetime import timedelta

import pytest
from support import Receiver, Server

from carillon import AsyncClient, Client, Problem, client


def test_both_clients_have_the_same_verbs(server: Server) -> None:
    nouns = [noun for noun in vars(Client(server.url)) if not noun.startswith("_")]
    assert nouns == [noun for noun in vars(AsyncClient(server.url)) if not noun.startswith("_")]
    assert "jobs" in nouns
    for noun in nouns:
        title = noun.title()
        sync, other = getattr(client, title), getattr(client, f"Async{title}")
        verbs = [verb for verb in vars(sync) if not verb.startswith("_")]
        assert verbs == [verb for verb in vars(other) if not verb.startswith("_")]
        for verb in verbs:
            mine, theirs = getattr(sync, verb), getattr(other, verb)
            assert mine.__wrapped__ is theirs.__wrapped__
            assert inspect.signature(mine) == inspect.signature(theirs)
            assert mine.__doc__


def test_a_verb_shows_its_signature(server: Server) -> None:
    with Client(server.url) as sync:
        assert list(inspect.signature(sync.jobs.get).parameters) == ["id", "group"]


def test_jobs_are_made_listed_and_changed(server: Server, group: str, receiver: Receiver) -> None:
    async def work() -> None:
        async with AsyncClient(server.url) as client:
            made = await asyncio.gather(*(client.jobs.create(group, name=str(n), run_at="+1h") for n in range(5)))
            assert {job.id for job in made} == {job.id async for job in client.jobs.list(group, page_size=2)}
            assert (await client.jobs.cancel(made[0].id)).state == "cancelled"
            assert (await client.jobs.edit(made[1].id, url=receiver.url("/a"), payload="x")).request is not None
            await client.jobs.run(made[1].id)
            await asyncio.to_thread(receiver.arrived, "/a")
            batch = await client.jobs.create_many(group, [{"name": "b", "run_at": timedelta(hours=1)}])
            assert (await client.jobs.get("b", group=group)).id == batch.ids[0]
            with pytest.raises(Problem) as caught:
                await client.jobs.get("nobody")
            assert caught.value.status == 404

    asyncio.run(work())


def test_groups_schedules_and_leases(server: Server, name: str) -> None:
    async def work() -> None:
        async with AsyncClient(server.url) as client:
            await client.groups.put(name)
            await client.schedules.put(name, group=name, cron="@daily", job={"payload": 1})
            await client.schedules.run(name)
            (lease,) = await client.leases.take(name, wait=5)
            assert lease.payload == 1
            assert await client.leases.extend(lease, "1h") > lease.expires_at
            assert (await client.leases.complete(lease)).state == "succeeded"
            assert (await client.groups.stats(name)).succeeded == 1
            await client.schedules.delete(name)

    asyncio.run(work())
