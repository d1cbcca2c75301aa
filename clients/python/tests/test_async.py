"""The client for asyncio does what the other one does."""

from __future__ import annotations

import asyncio
import inspect
import pydoc
from datetime import timedelta
from typing import Any

import pytest
from support import Receiver, Server

import unasync
from carillon import AsyncClient, Client, Problem, _calls, client

NOUNS = [noun for noun in vars(AsyncClient("http://127.0.0.1:9")) if not noun.startswith("_")]


def methods(owner: type) -> dict[str, Any]:
    return {name: value for name, value in vars(owner).items() if not name.startswith("_")}


def parameters(function: Any) -> list[inspect.Parameter]:
    return [each for each in inspect.signature(function).parameters.values() if each.name != "self"]


@pytest.mark.parametrize("noun", NOUNS)
def test_both_clients_have_the_same_verbs(noun: str) -> None:
    title = noun.title()
    sync, other = methods(getattr(client, title)), methods(getattr(client, f"Async{title}"))
    assert list(sync) == list(other)
    for verb, method in sync.items():
        assert parameters(method) == parameters(other[verb])
        assert method.__doc__ == other[verb].__doc__
        assert method.__doc__


@pytest.mark.parametrize("noun", NOUNS)
def test_a_verb_has_the_parameters_and_the_result_of_its_call(noun: str) -> None:
    module = vars(_calls).get(noun, _calls.admin)
    for verb, method in methods(getattr(client, f"Async{noun.title()}")).items():
        call = call_of(module, noun, verb)
        assert parameters(method) == parameters(call), verb
        result = method.__annotations__["return"].replace("AsyncIterator", "Page")
        assert f"Call[{result}]" == call.__annotations__["return"], verb


def call_of(module: Any, noun: str, verb: str) -> Any:
    """The function of ``_calls``: named as the verb, and in the module of several nouns with the noun behind it."""
    if module is not _calls.admin:
        return getattr(module, f"{verb}_" if verb == "list" else verb)
    singular = noun.removesuffix("s")
    special = {
        ("keys", "delete_version"): "delete_key_version",
        ("plugins", "versions"): "list_plugin_versions",
        ("plugins", "component"): "get_component",
        ("tokens", "whoami"): "whoami",
    }
    return getattr(module, special.get((noun, verb), f"{verb}_{noun if verb == 'list' else singular}"))


def test_help_shows_the_signature_of_a_verb() -> None:
    text = pydoc.plain(pydoc.render_doc(Client("http://127.0.0.1:9").jobs.create))
    assert "create(group: 'str', *, idempotency_key: 'Optional[str]' = None, **fields: 'Unpack[JobFields]') -> 'Job'" in text
    assert "Creates a job" in text


def test_the_modules_for_threads_are_those_generated() -> None:
    committed = {path.name: path.read_text(encoding="utf-8") for path in (unasync.PACKAGE / "_sync").glob("*.py")}
    assert committed == unasync.generated()


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
