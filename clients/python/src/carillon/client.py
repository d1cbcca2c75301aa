"""The clients: ``Client`` for threads, ``AsyncClient`` for asyncio. Each verb is a function of ``carillon._calls``, sent.

What the server refuses raises ``Problem``; that it cannot be reached, or does not answer in time, raises ``httpx.TransportError``.
Nothing is sent twice on its own: to repeat the making of a job safely, give an ``idempotency_key``.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Coroutine, Iterable, Iterator
from functools import wraps
from types import TracebackType
from typing import TYPE_CHECKING, Any, Callable, Optional, TypeVar, Union

import httpx

from carillon._calls import admin, groups, jobs, leases, policies, schedules
from carillon._calls.call import Call, Page, after
from carillon._events import AsyncEvents, Events, parameters
from carillon._http import TIMEOUT, Place, answered, signature_of
from carillon.times import Period

if TYPE_CHECKING:
    from typing_extensions import Concatenate, ParamSpec

    P = ParamSpec("P")

T = TypeVar("T")


def _now(build: Callable[P, Call[T]]) -> Callable[Concatenate[_Verbs, P], T]:
    """The method that sends what ``build`` says."""

    @wraps(build)
    def verb(self: _Verbs, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return self._client.send(build(*args, **kwargs))

    verb.__signature__ = signature_of(build)  # type: ignore[attr-defined]
    return verb


def _soon(build: Callable[P, Call[T]]) -> Callable[Concatenate[_AsyncVerbs, P], Coroutine[Any, Any, T]]:
    """The coroutine that sends what ``build`` says."""

    @wraps(build)
    async def verb(self: _AsyncVerbs, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return await self._client.send(build(*args, **kwargs))

    verb.__signature__ = signature_of(build)  # type: ignore[attr-defined]
    return verb


def _all_now(build: Callable[P, Call[Page[T]]]) -> Callable[Concatenate[_Verbs, P], Iterator[T]]:
    """The method that goes through all pages of a list, asking for each when it is needed."""

    @wraps(build)
    def verb(self: _Verbs, /, *args: P.args, **kwargs: P.kwargs) -> Iterator[T]:
        return self._client.send_all(build(*args, **kwargs))

    verb.__signature__ = signature_of(build)  # type: ignore[attr-defined]
    return verb


def _all_soon(build: Callable[P, Call[Page[T]]]) -> Callable[Concatenate[_AsyncVerbs, P], AsyncIterator[T]]:
    """The same for ``async for``."""

    @wraps(build)
    def verb(self: _AsyncVerbs, /, *args: P.args, **kwargs: P.kwargs) -> AsyncIterator[T]:
        return self._client.send_all(build(*args, **kwargs))

    verb.__signature__ = signature_of(build)  # type: ignore[attr-defined]
    return verb


class _Verbs:
    """What can be done with one noun."""

    def __init__(self, client: Client) -> None:
        self._client = client


class _AsyncVerbs:
    """What can be done with one noun."""

    def __init__(self, client: AsyncClient) -> None:
        self._client = client


class Jobs(_Verbs):
    """Jobs: make them, look at them, change them."""

    create = _now(jobs.create)
    create_many = _now(jobs.create_many)
    get = _now(jobs.get)
    list = _all_now(jobs.list_)
    attempts = _all_now(jobs.attempts)
    sent_request = _now(jobs.sent_request)
    payload = _now(jobs.payload)
    copy = _now(jobs.copy)
    cancel = _now(jobs.cancel)
    run = _now(jobs.run)
    retry = _now(jobs.retry)
    reschedule = _now(jobs.reschedule)
    edit = _now(jobs.edit)


class AsyncJobs(_AsyncVerbs):
    """Jobs: make them, look at them, change them."""

    create = _soon(jobs.create)
    create_many = _soon(jobs.create_many)
    get = _soon(jobs.get)
    list = _all_soon(jobs.list_)
    attempts = _all_soon(jobs.attempts)
    sent_request = _soon(jobs.sent_request)
    payload = _soon(jobs.payload)
    copy = _soon(jobs.copy)
    cancel = _soon(jobs.cancel)
    run = _soon(jobs.run)
    retry = _soon(jobs.retry)
    reschedule = _soon(jobs.reschedule)
    edit = _soon(jobs.edit)


class Groups(_Verbs):
    """Groups, and changes of many of their jobs."""

    put = _now(groups.put)
    edit = _now(groups.edit)
    get = _now(groups.get)
    list = _all_now(groups.list_)
    delete = _now(groups.delete)
    pause = _now(groups.pause)
    resume = _now(groups.resume)
    stats = _now(groups.stats)
    flush = _now(groups.flush)
    redrive = _now(groups.redrive)
    purge = _now(groups.purge)
    change = _now(groups.change)
    changed = _now(groups.changed)
    changes = _all_now(groups.changes)
    simulate = _now(groups.simulate)


class AsyncGroups(_AsyncVerbs):
    """Groups, and changes of many of their jobs."""

    put = _soon(groups.put)
    edit = _soon(groups.edit)
    get = _soon(groups.get)
    list = _all_soon(groups.list_)
    delete = _soon(groups.delete)
    pause = _soon(groups.pause)
    resume = _soon(groups.resume)
    stats = _soon(groups.stats)
    flush = _soon(groups.flush)
    redrive = _soon(groups.redrive)
    purge = _soon(groups.purge)
    change = _soon(groups.change)
    changed = _soon(groups.changed)
    changes = _all_soon(groups.changes)
    simulate = _soon(groups.simulate)


class Policies(_Verbs):
    """The versions of the groups' policies."""

    versions = _all_now(policies.versions)
    version = _now(policies.version)
    propose = _now(policies.propose)
    promote = _now(policies.promote)
    rollback = _now(policies.rollback)
    unquarantine = _now(policies.unquarantine)
    history = _all_now(policies.history)
    set_shadow = _now(policies.set_shadow)
    shadow = _now(policies.shadow)
    delete_shadow = _now(policies.delete_shadow)
    replay = _now(policies.replay)
    backtest = _now(policies.backtest)


class Schedules(_Verbs):
    """Schedules, which make jobs again and again."""

    put = _now(schedules.put)
    edit = _now(schedules.edit)
    get = _now(schedules.get)
    list = _all_now(schedules.list_)
    history = _all_now(schedules.history)
    delete = _now(schedules.delete)
    pause = _now(schedules.pause)
    resume = _now(schedules.resume)
    run = _now(schedules.run)
    backfill = _now(schedules.backfill)


class AsyncPolicies(_AsyncVerbs):
    """The versions of the groups' policies."""

    versions = _all_soon(policies.versions)
    version = _soon(policies.version)
    propose = _soon(policies.propose)
    promote = _soon(policies.promote)
    rollback = _soon(policies.rollback)
    unquarantine = _soon(policies.unquarantine)
    history = _all_soon(policies.history)
    set_shadow = _soon(policies.set_shadow)
    shadow = _soon(policies.shadow)
    delete_shadow = _soon(policies.delete_shadow)
    replay = _soon(policies.replay)
    backtest = _soon(policies.backtest)


class AsyncSchedules(_AsyncVerbs):
    """Schedules, which make jobs again and again."""

    put = _soon(schedules.put)
    edit = _soon(schedules.edit)
    get = _soon(schedules.get)
    list = _all_soon(schedules.list_)
    history = _all_soon(schedules.history)
    delete = _soon(schedules.delete)
    pause = _soon(schedules.pause)
    resume = _soon(schedules.resume)
    run = _soon(schedules.run)
    backfill = _soon(schedules.backfill)


class Leases(_Verbs):
    """Leases: how consumers get jobs without a URL, and say what came of them."""

    take = _now(leases.take)
    extend = _now(leases.extend)
    complete = _now(leases.complete)
    fail = _now(leases.fail)
    release = _now(leases.release)


class AsyncLeases(_AsyncVerbs):
    """Leases: how consumers get jobs without a URL, and say what came of them."""

    take = _soon(leases.take)
    extend = _soon(leases.extend)
    complete = _soon(leases.complete)
    fail = _soon(leases.fail)
    release = _soon(leases.release)


class Keys(_Verbs):
    """The keys that signers use."""

    put = _now(admin.put_key)
    grant = _now(admin.grant_key)
    get = _now(admin.get_key)
    list = _all_now(admin.list_keys)
    delete = _now(admin.delete_key)
    delete_version = _now(admin.delete_key_version)


class AsyncKeys(_AsyncVerbs):
    """The keys that signers use."""

    put = _soon(admin.put_key)
    grant = _soon(admin.grant_key)
    get = _soon(admin.get_key)
    list = _all_soon(admin.list_keys)
    delete = _soon(admin.delete_key)
    delete_version = _soon(admin.delete_key_version)


class Plugins(_Verbs):
    """The components that policies are made of."""

    get = _now(admin.get_plugin)
    list = _all_now(admin.list_plugins)
    versions = _all_now(admin.list_plugin_versions)
    upload = _now(admin.upload_plugin)
    component = _now(admin.get_component)
    deprecate = _now(admin.deprecate_plugin)
    delete = _now(admin.delete_plugin)


class AsyncPlugins(_AsyncVerbs):
    """The components that policies are made of."""

    get = _soon(admin.get_plugin)
    list = _all_soon(admin.list_plugins)
    versions = _all_soon(admin.list_plugin_versions)
    upload = _soon(admin.upload_plugin)
    component = _soon(admin.get_component)
    deprecate = _soon(admin.deprecate_plugin)
    delete = _soon(admin.delete_plugin)


class Tokens(_Verbs):
    """API tokens."""

    create = _now(admin.create_token)
    list = _all_now(admin.list_tokens)
    delete = _now(admin.delete_token)
    whoami = _now(admin.whoami)


class AsyncTokens(_AsyncVerbs):
    """API tokens."""

    create = _soon(admin.create_token)
    list = _all_soon(admin.list_tokens)
    delete = _soon(admin.delete_token)
    whoami = _soon(admin.whoami)


class Tenants(_Verbs):
    """Tenants, for operators."""

    put = _now(admin.put_tenant)
    edit = _now(admin.edit_tenant)
    delete = _now(admin.delete_tenant)
    get = _now(admin.get_tenant)
    list = _all_now(admin.list_tenants)


class AsyncTenants(_AsyncVerbs):
    """Tenants, for operators."""

    put = _soon(admin.put_tenant)
    edit = _soon(admin.edit_tenant)
    delete = _soon(admin.delete_tenant)
    get = _soon(admin.get_tenant)
    list = _all_soon(admin.list_tenants)


class Nodes(_Verbs):
    """Nodes, for operators."""

    list = _all_now(admin.list_nodes)


class AsyncNodes(_AsyncVerbs):
    """Nodes, for operators."""

    list = _all_soon(admin.list_nodes)


class Client:
    """A client of the server at ``url``, such as ``http://127.0.0.1:7070``. Threads can share it.

    ``token`` goes as a Bearer token; user information in the address (``http://:TOKEN@host``) goes as Basic authentication instead.
    ``tenant`` is for operators who act for another one. ``timeout`` is for each step of a request: connecting, and every silence.
    """

    def __init__(
        self,
        url: str,
        token: Optional[str] = None,
        *,
        tenant: Optional[str] = None,
        timeout: Period = TIMEOUT,
        transport: Optional[httpx.BaseTransport] = None,
    ) -> None:
        self._place = Place.of(url, token, tenant, timeout)
        self._http = httpx.Client(transport=transport, **self._place.options())
        self.jobs = Jobs(self)
        self.groups = Groups(self)
        self.policies = Policies(self)
        self.schedules = Schedules(self)
        self.leases = Leases(self)
        self.keys = Keys(self)
        self.plugins = Plugins(self)
        self.tokens = Tokens(self)
        self.tenants = Tenants(self)
        self.nodes = Nodes(self)

    @property
    def url(self) -> str:
        """The server's address, without user information and without a slash in the end."""
        return self._place.base

    def events(
        self,
        *,
        group: Optional[str] = None,
        kinds: Union[str, Iterable[str], None] = None,
        job: Optional[str] = None,
        last_event_id: Optional[str] = None,
    ) -> Events:
        """Follows what happens from now on, or from behind the event ``last_event_id``. It is connected when this returns.

        When the connection breaks, it is taken up again behind the last event; an event ``gap`` says that some are missing.
        """
        return Events(self._http, self._place, parameters(group, kinds, job), last_event_id)

    def send(self, call: Call[T]) -> T:
        """Sends a request and reads the answer."""
        return answered(call, self._http.request(**self._place.request(call)))

    def send_all(self, call: Call[Page[T]]) -> Iterator[T]:
        """Goes through the pages of a list."""
        page = self.send(call)
        yield from page.items
        while page.next_cursor is not None:
            page = self.send(after(call, page.next_cursor))
            yield from page.items

    def close(self) -> None:
        """Closes the connections."""
        self._http.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, kind: Optional[type[BaseException]], error: object, trace: Optional[TracebackType]) -> None:
        self.close()


class AsyncClient:
    """The same as ``Client`` for asyncio: verbs are awaited, lists are gone through with ``async for``."""

    def __init__(
        self,
        url: str,
        token: Optional[str] = None,
        *,
        tenant: Optional[str] = None,
        timeout: Period = TIMEOUT,
        transport: Optional[httpx.AsyncBaseTransport] = None,
    ) -> None:
        self._place = Place.of(url, token, tenant, timeout)
        self._http = httpx.AsyncClient(transport=transport, **self._place.options())
        self.jobs = AsyncJobs(self)
        self.groups = AsyncGroups(self)
        self.policies = AsyncPolicies(self)
        self.schedules = AsyncSchedules(self)
        self.leases = AsyncLeases(self)
        self.keys = AsyncKeys(self)
        self.plugins = AsyncPlugins(self)
        self.tokens = AsyncTokens(self)
        self.tenants = AsyncTenants(self)
        self.nodes = AsyncNodes(self)

    @property
    def url(self) -> str:
        """The server's address, without user information and without a slash in the end."""
        return self._place.base

    def events(
        self,
        *,
        group: Optional[str] = None,
        kinds: Union[str, Iterable[str], None] = None,
        job: Optional[str] = None,
        last_event_id: Optional[str] = None,
    ) -> AsyncEvents:
        """Follows what happens, as ``Client.events`` does, from when it is entered on."""
        return AsyncEvents(self._http, self._place, parameters(group, kinds, job), last_event_id)

    async def send(self, call: Call[T]) -> T:
        """Sends a request and reads the answer."""
        return answered(call, await self._http.request(**self._place.request(call)))

    async def send_all(self, call: Call[Page[T]]) -> AsyncIterator[T]:
        """Goes through the pages of a list."""
        page = await self.send(call)
        for item in page.items:
            yield item
        while page.next_cursor is not None:
            page = await self.send(after(call, page.next_cursor))
            for item in page.items:
                yield item

    async def aclose(self) -> None:
        """Closes the connections."""
        await self._http.aclose()

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(self, kind: Optional[type[BaseException]], error: object, trace: Optional[TracebackType]) -> None:
        await self.aclose()
