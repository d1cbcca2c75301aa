"""Streams of events that reconnect after the last event when the connection breaks.

A stream ends only with ``close()``, or with a Problem if the server refuses. While the server is unavailable, the stream reconnects with
growing pauses; events that the server has dropped by then are reported as an event ``gap``.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections import deque
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import AsyncExitStack, ExitStack
from types import TracebackType
from typing import Any, Optional, Union

import httpx

from carillon._http import Endpoint, problem_of
from carillon._sse import Message, Parser
from carillon.models import Event, read
from carillon.problem import Problem

#: Silence after which the connection counts as broken, in seconds; the server sends something every 15 seconds.
_SILENCE_SECONDS = 45.0

#: The first pause before a reconnection, unless the server sets another one, and the longest pause; in seconds.
_FIRST_PAUSE_SECONDS = 1.0
_MAX_PAUSE_SECONDS = 30.0


class _Position:
    """Position of a client in the stream; it does no input or output."""

    def __init__(self, endpoint: Endpoint, params: dict[str, str], last_event_id: Optional[str]) -> None:
        self._endpoint, self._params = endpoint, params
        #: Id of the newest event that was returned, or of the position where the stream began.
        self.last_event_id = last_event_id
        self._parser = Parser()
        self._pending: deque[Event] = deque()
        self._pause_seconds = _FIRST_PAUSE_SECONDS
        self._failures = 0

    def _request(self) -> dict[str, Any]:
        """Returns the request that opens the stream, or resumes it after the last event."""
        headers = {"Accept": "text/event-stream"}
        if self.last_event_id is not None:
            headers["Last-Event-ID"] = self.last_event_id
        self._parser = Parser()
        timeout = httpx.Timeout(self._endpoint.timeout, read=_SILENCE_SECONDS)
        url = f"{self._endpoint.base}/v1/events"
        return {"method": "GET", "url": url, "params": self._params, "headers": headers, "timeout": timeout}

    def _feed(self, chunk: bytes) -> None:
        self._failures = 0
        self._pending.extend(_event(message) for message in self._parser.feed(chunk))
        if self._parser.retry_ms is not None:
            self._pause_seconds = self._parser.retry_ms / 1_000
        if not self._pending and self._parser.last_id is not None:
            # The server sends ids without events to say how far it has filtered.
            self.last_event_id = self._parser.last_id

    def _next_event(self) -> Optional[Event]:
        if not self._pending:
            return None
        event = self._pending.popleft()
        self.last_event_id = event.id
        return event

    def _next_pause(self) -> float:
        """Counts a failure, and returns the pause before the next connection, in seconds."""
        self._failures += 1
        return min(self._pause_seconds * 2.0 ** min(self._failures - 1, 10), _MAX_PAUSE_SECONDS)

    def _is_permanent(self, problem: Problem) -> bool:
        """Whether the server would refuse another request in the same way."""
        return problem.status < 500 and problem.status not in (408, 429)


class Events(_Position):
    """Iterator over events as they happen. It is connected when it is created, and must be closed.

    It is for one thread at a time.
    """

    def __init__(self, client: httpx.Client, endpoint: Endpoint, params: dict[str, str], last_event_id: Optional[str]) -> None:
        super().__init__(endpoint, params, last_event_id)
        self._client = client
        self._stack = ExitStack()
        self._chunks: Optional[Iterator[bytes]] = None
        self._is_closed = False
        try:
            self._connect()
        except BaseException:
            self._disconnect()
            raise

    def __enter__(self) -> Events:
        return self

    def __exit__(self, kind: Optional[type[BaseException]], error: object, trace: Optional[TracebackType]) -> None:
        self.close()

    def __iter__(self) -> Iterator[Event]:
        return self

    def __next__(self) -> Event:
        while not self._is_closed:
            event = self._next_event()
            if event is not None:
                return event
            try:
                self._read()
            except httpx.TransportError:
                self._wait()
            except Problem as problem:
                if self._is_permanent(problem):
                    self.close()
                    raise
                self._wait()
        raise StopIteration

    def close(self) -> None:
        """Ends the stream."""
        self._is_closed = True
        self._disconnect()

    def _connect(self) -> None:
        request = self._request()
        response = self._stack.enter_context(self._client.stream(**request))
        if response.status_code != 200:
            response.read()
            self._disconnect()
            raise problem_of(response)
        self._chunks = response.iter_bytes()
        if self.last_event_id is None:
            # The server sends the id of the position where the stream begins: no event after it is missed.
            while self.last_event_id is None and not self._pending:
                self._read()

    def _read(self) -> None:
        if self._chunks is None:
            self._connect()
            return
        chunk = next(self._chunks, None)
        if chunk is None:
            raise httpx.RemoteProtocolError("the stream has ended")
        self._feed(chunk)

    def _disconnect(self) -> None:
        self._chunks = None
        self._stack.close()

    def _wait(self) -> None:
        self._disconnect()
        time.sleep(self._next_pause())


class AsyncEvents(_Position):
    """Iterator over events for asyncio: ``async with client.events() as events: async for event in events``.

    It connects when it is entered, or when the first event is requested.
    """

    def __init__(self, client: httpx.AsyncClient, endpoint: Endpoint, params: dict[str, str], last_event_id: Optional[str]) -> None:
        super().__init__(endpoint, params, last_event_id)
        self._client = client
        self._stack = AsyncExitStack()
        self._chunks: Optional[AsyncIterator[bytes]] = None
        self._is_closed = False

    async def __aenter__(self) -> AsyncEvents:
        await self._connect()
        return self

    async def __aexit__(self, kind: Optional[type[BaseException]], error: object, trace: Optional[TracebackType]) -> None:
        await self.aclose()

    def __aiter__(self) -> AsyncIterator[Event]:
        return self

    async def __anext__(self) -> Event:
        while not self._is_closed:
            event = self._next_event()
            if event is not None:
                return event
            try:
                await self._read()
            except httpx.TransportError:
                await self._wait()
            except Problem as problem:
                if self._is_permanent(problem):
                    await self.aclose()
                    raise
                await self._wait()
        raise StopAsyncIteration

    async def aclose(self) -> None:
        """Ends the stream."""
        self._is_closed = True
        await self._disconnect()

    async def _connect(self) -> None:
        request = self._request()
        response = await self._stack.enter_async_context(self._client.stream(**request))
        if response.status_code != 200:
            await response.aread()
            await self._disconnect()
            raise problem_of(response)
        self._chunks = response.aiter_bytes()
        if self.last_event_id is None:
            while self.last_event_id is None and not self._pending:
                await self._read()

    async def _read(self) -> None:
        if self._chunks is None:
            await self._connect()
            return
        try:
            chunk = await self._chunks.__anext__()
        except StopAsyncIteration:
            raise httpx.RemoteProtocolError("the stream has ended") from None
        self._feed(chunk)

    async def _disconnect(self) -> None:
        self._chunks = None
        await self._stack.aclose()

    async def _wait(self) -> None:
        await self._disconnect()
        await asyncio.sleep(self._next_pause())


def parameters(group: Optional[str], kinds: Union[str, Iterable[str], None], job: Optional[str]) -> dict[str, str]:
    """Returns the parameters of the request that select events."""
    kind = ",".join([kinds] if isinstance(kinds, str) else kinds or ())
    asked = {"group": group, "kind": kind or None, "job": job}
    return {name: value for name, value in asked.items() if value is not None}


def _event(message: Message) -> Event:
    try:
        return read(Event, json.loads(message.data))
    except (ValueError, KeyError, TypeError) as error:
        raise Problem.unreadable(200, message.data.encode(), error) from error
