"""Sends the requests of all verbs, and reads the responses."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Optional, TypeVar

import httpx

from carillon._calls.call import Call, Page, after
from carillon._http import Endpoint, Path, read_response
from carillon.times import Period

T = TypeVar("T")


class AsyncSender:
    """An HTTP client of one server."""

    def __init__(
        self,
        url: str,
        token: Optional[str],
        tenant: Optional[str],
        timeout: Period,
        ca_file: Optional[Path],
        client_cert: Optional[Path],
        transport: Optional[httpx.AsyncBaseTransport],
    ) -> None:
        self._endpoint = Endpoint.of(url, token, tenant, timeout, ca_file, client_cert)
        self._http = httpx.AsyncClient(transport=transport, **self._endpoint.options())

    async def send(self, call: Call[T]) -> T:
        """Sends a request and returns what its response means."""
        return read_response(call, await self._http.request(**self._endpoint.request(call)))

    async def send_all(self, call: Call[Page[T]]) -> AsyncIterator[T]:
        """Yields the items of all pages of a list; requests each page when it is needed."""
        page = await self.send(call)
        for item in page.items:
            yield item
        while page.next_cursor is not None:
            page = await self.send(after(call, page.next_cursor))
            for item in page.items:
                yield item


class AsyncVerbs:
    """Base of the nouns."""

    def __init__(self, sender: AsyncSender) -> None:
        self._sender = sender
