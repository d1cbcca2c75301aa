"""Events: what happens, as it happens, with nothing missed when a connection breaks."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest
from support import Answer, Proxy, Receiver, Server

from carillon import AsyncClient, Client, Event, Problem
from carillon._sse import Message, Parser


@pytest.fixture
def proxy(server: Server) -> Iterator[Proxy]:
    proxy = Proxy(server.port)
    yield proxy
    proxy.close()


def kinds(events: Iterator[Event], count: int) -> list[str]:
    return [next(events).kind for _ in range(count)]


def test_events_come_from_when_the_stream_was_opened(client: Client, group: str) -> None:
    client.jobs.create(group, name="before")
    with client.events(group=group) as events:
        job = client.jobs.create(group, name="after", metadata={"k": "v"})
        event = next(events)
        assert (event.kind, event.job, event.name, event.group, event.metadata) == ("push", job.id, "after", group, {"k": "v"})
        assert event.at >= job.created_at
        client.leases.take(group, limit=2)
        assert {next(events).kind, next(events).kind} == {"pop"}
    assert list(events) == []


def test_events_are_filtered(client: Client, group: str) -> None:
    other = client.jobs.create(group)
    job = client.jobs.create(group)
    with client.events(kinds=["complete", "pop"], job=job.id) as events:
        for lease in client.leases.take(group, limit=2):
            client.leases.complete(lease)
        assert kinds(events, 2) == ["pop", "complete"]
    assert other.id != job.id
    with client.events(group=group, kinds="push") as events:
        client.leases.take(group)
        client.jobs.create(group)
        assert next(events).kind == "push"


def test_a_broken_connection_is_taken_up_behind_the_last_event(client: Client, group: str, proxy: Proxy) -> None:
    with Client(proxy.url) as relayed, relayed.events(group=group, kinds="push") as events:
        client.jobs.create(group, name="1")
        assert next(events).name == "1"
        opened = proxy.accepted
        proxy.cut()
        client.jobs.create_many(group, [{"name": "2"}, {"name": "3"}])
        assert [next(events).name, next(events).name] == ["2", "3"]
        assert proxy.accepted == opened + 1


def test_a_connection_that_breaks_before_the_first_event_misses_nothing(client: Client, group: str, proxy: Proxy) -> None:
    with Client(proxy.url) as relayed, relayed.events(group=group) as events:
        proxy.cut()
        client.jobs.create(group, name="1")
        assert next(events).name == "1"


def test_a_stream_is_taken_up_by_id(client: Client, group: str) -> None:
    with client.events(group=group) as events:
        client.jobs.create_many(group, [{"name": str(n)} for n in range(3)])
        assert next(events).name == "0"
        seen = events.last_event_id
    with client.events(group=group, last_event_id=seen) as events:
        assert [next(events).name, next(events).name] == ["1", "2"]


def test_what_a_restart_has_lost_is_a_gap(fresh_server: Server) -> None:
    with Client(fresh_server.url) as client:
        client.groups.put("g")
        with client.events() as events:
            client.jobs.create("g", name="first")
            assert next(events).name == "first"
            fresh_server.kill()
            fresh_server.start()
            client.jobs.create("g", name="second")
            assert next(events).kind == "gap"
            event = next(events)
            assert (event.kind, event.name) == ("push", "second")


def test_a_stream_that_is_refused_is_a_problem(client: Client) -> None:
    with pytest.raises(Problem) as caught:
        client.events(group="nobody-has-this")
    assert caught.value.status == 404
    with pytest.raises(Problem) as caught:
        client.events(last_event_id="x")
    assert caught.value.status == 400


def test_a_stream_ends_when_its_group_is_no_more(client: Client, name: str, proxy: Proxy) -> None:
    client.groups.put(name)
    with Client(proxy.url) as relayed, relayed.events(group=name) as events:
        client.groups.delete(name)
        proxy.cut()
        with pytest.raises(Problem) as caught:
            next(events)
        assert caught.value.status == 404
        assert list(events) == []


def test_a_message_that_broke_off_is_read_anew(receiver: Receiver) -> None:
    """What stands in for the server ends the stream in the middle of a message."""
    event = b'event: push\nid: 2\ndata: {"id": "2", "kind": "push", "at": "2026-11-21T10:00:00Z", "name": "whole"}\n\n'
    receiver.script("/v1/events", Answer(200, b"retry: 1\nid: 1\n\n" + event[:60]), Answer(200, event))
    with Client(receiver.url("/")) as client, client.events() as events:
        assert next(events).name == "whole"
        assert events.last_event_id == "2"
    assert [arrival.headers.get("last-event-id") for arrival in receiver.all("/v1/events")][:2] == [None, "1"]


def test_events_for_asyncio(client: Client, group: str, proxy: Proxy) -> None:
    async def follow() -> list[str]:
        names = []
        async with AsyncClient(proxy.url) as relayed, relayed.events(group=group, kinds="push") as events:
            await relayed.jobs.create(group, name="1")
            async for event in events:
                names.append(str(event.name))
                if len(names) == 1:
                    proxy.cut()
                    client.jobs.create(group, name="2")
                else:
                    break
        return names

    assert asyncio.run(asyncio.wait_for(follow(), 20)) == ["1", "2"]


def test_refused_events_for_asyncio(server: Server) -> None:
    async def follow() -> None:
        async with AsyncClient(server.url) as client:
            async for _ in client.events(group="nobody-has-this"):
                pass

    with pytest.raises(Problem):
        asyncio.run(asyncio.wait_for(follow(), 20))


STREAM = b": hello\nretry: 250\nid: 7\n\nevent: push\nid: 8\ndata: one\ndata: two\xe2\x80\xa8\n\nid: 9\ndata: cut"


@pytest.mark.parametrize("end", [b"\n", b"\r", b"\r\n"])
@pytest.mark.parametrize("size", [1, 2, 3, 1000])
def test_a_stream_is_read_whatever_its_pieces(end: bytes, size: int) -> None:
    stream, parser = STREAM.replace(b"\n", end), Parser()
    messages = [message for at in range(0, len(stream), size) for message in parser.feed(stream[at : at + size])]
    assert messages == [Message("push", "one\ntwo\u2028")]
    assert (parser.last_id, parser.retry_ms) == ("8", 250)
