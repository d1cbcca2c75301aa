"""Administration: keys, plugins, tokens, tenants, nodes, the audit log."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping
from typing import Literal, Optional, Union

from carillon._async.sender import AsyncVerbs
from carillon._calls import admin as calls
from carillon.models import AuditEntry, AuditVerification, ChangedTenant, Identity, Key, Node, Plugin, Tenant, Token
from carillon.times import Period, When
from carillon.types import UNCHANGED, AccessRole, GroupFields, KeyKind, Quota, Unchanged


class AsyncKeys(AsyncVerbs):
    """Keys of signers."""

    async def put(
        self,
        name: str,
        secret: Union[str, bytes],
        *,
        kind: Optional[KeyKind] = None,
        encoded: bool = False,
        overlap: Optional[str] = None,
        groups: Optional[Iterable[str]] = None,
        origins: Optional[Iterable[str]] = None,
    ) -> tuple[str, ...]:
        """Stores a key, or a new version of it. The secret of an ``ed25519`` key is its seed of 32 bytes.

        ``encoded``: the text is base64, with or without the prefix ``whsec_`` or ``whsk_`` of Standard Webhooks.
        ``overlap``: how long previous versions go on signing (``"24h"``, or ``"until-removed"``); by default they end at once.
        ``groups``: the groups that may use the key from now on; by default they stay, and a new key is for all groups.
        ``origins``: origins such as ``"https://hooks.example:8443"`` that the key may go to; by default they stay, and none is all.

        Returns warnings, such as one about a key of the kind ``header`` without origins.
        """
        call = calls.put_key(name, secret, kind=kind, encoded=encoded, overlap=overlap, groups=groups, origins=origins)
        return await self._sender.send(call)

    async def grant(
        self,
        name: str,
        groups: Union[Iterable[str], Unchanged, None] = UNCHANGED,
        *,
        origins: Union[Iterable[str], Unchanged, None] = UNCHANGED,
    ) -> Key:
        """Grants a key to these groups only, and lets it go to these origins only; None means all. What is not named stays.

        Raises Problem (409) while a group that would lose the grant uses the key.
        """
        return await self._sender.send(calls.grant_key(name, groups, origins=origins))

    async def get(self, name: str) -> Key:
        """Returns a key without its secret."""
        return await self._sender.send(calls.get_key(name))

    def list(self, *, page_size: Optional[int] = None) -> AsyncIterator[Key]:
        """Iterates over the tenant's keys by name."""
        return self._sender.send_all(calls.list_keys(page_size=page_size))

    async def delete(self, name: str) -> None:
        """Deletes a key.

        Raises Problem (409) while a group uses it.
        """
        return await self._sender.send(calls.delete_key(name))

    async def delete_version(self, name: str, version: int) -> None:
        """Deletes a version of a key. The version before a deleted newest one becomes the newest; the only version stays."""
        return await self._sender.send(calls.delete_key_version(name, version))


class AsyncPlugins(AsyncVerbs):
    """Components that implement policies."""

    async def get(self, name: str, version: Optional[str] = None, *, shared: bool = False) -> Plugin:
        """Returns a plugin with the schema of its config; by default its newest version."""
        return await self._sender.send(calls.get_plugin(name, version, shared=shared))

    def list(self, *, shared: bool = False, page_size: Optional[int] = None) -> AsyncIterator[Plugin]:
        """Iterates over the plugins that the tenant can use; with ``shared``, for operators, over those that are shared with tenants."""
        return self._sender.send_all(calls.list_plugins(shared=shared, page_size=page_size))

    def versions(self, name: str, *, shared: bool = False, page_size: Optional[int] = None) -> AsyncIterator[Plugin]:
        """Iterates over the versions of a plugin, newest first."""
        return self._sender.send_all(calls.list_plugin_versions(name, shared=shared, page_size=page_size))

    async def upload(
        self,
        name: str,
        version: str,
        component: bytes,
        *,
        signature: Optional[str] = None,
        tenants: Union[Literal["*"], Iterable[str], None] = None,
    ) -> Plugin:
        """Uploads a WebAssembly component as a version of a plugin.

        ``signature``: base64 of an Ed25519 signature of the bytes, required by a tenant that has plugin signers.
        ``tenants``, for operators: the tenants to share the version with, ``"*"`` for all; by default it is the tenant's own.

        Raises Problem (409) if the version exists with other bytes.
        """
        call = calls.upload_plugin(name, version, component, signature=signature, tenants=tenants)
        return await self._sender.send(call)

    async def component(self, name: str, version: str, *, shared: bool = False) -> bytes:
        """Returns the bytes of a version, as they were uploaded."""
        return await self._sender.send(calls.get_component(name, version, shared=shared))

    async def deprecate(self, name: str, version: str, why: Optional[str], *, shared: bool = False) -> Plugin:
        """Deprecates a version with a reason; None ends the deprecation. Groups that use the version go on, with a warning."""
        return await self._sender.send(calls.deprecate_plugin(name, version, why, shared=shared))

    async def share(self, name: str, version: str, tenants: Union[Literal["*"], Iterable[str]]) -> Plugin:
        """Shares a shared version with these tenants and no others, for operators; ``"*"`` for all.

        Raises Problem (409) while a tenant that would lose it uses it.
        """
        return await self._sender.send(calls.share_plugin(name, version, tenants))

    async def delete(self, name: str, version: str, *, shared: bool = False) -> None:
        """Deletes a version.

        Raises Problem (409) while a version of a group's policy uses it.
        """
        return await self._sender.send(calls.delete_plugin(name, version, shared=shared))


class AsyncTokens(AsyncVerbs):
    """API tokens."""

    async def create(
        self,
        role: AccessRole,
        *,
        name: str = "",
        tenant: Optional[str] = None,
        operator: bool = False,
        expires_in: Optional[Period] = None,
        groups: Optional[Iterable[str]] = None,
        addresses: Optional[Iterable[str]] = None,
    ) -> Token:
        """Creates an API token. Its ``token`` is returned only here.

        An ``operator`` also manages tenants; only an operator can create one. A token without ``expires_in`` is valid until deleted.
        ``groups``: names of the only groups that it sees and touches. ``addresses``: networks from which it is accepted.
        """
        call = calls.create_token(
            role,
            name=name,
            tenant=tenant,
            operator=operator,
            expires_in=expires_in,
            groups=groups,
            addresses=addresses,
        )
        return await self._sender.send(call)

    async def rotate(self, id: str, *, overlap: Optional[Period] = None, expires_in: Optional[Period] = None) -> Token:
        """Gives a token a new secret text, which is returned only here.

        The present text stays valid for ``overlap``. ``expires_in`` is the new validity; without it the expiry stays.
        """
        return await self._sender.send(calls.rotate_token(id, overlap=overlap, expires_in=expires_in))

    def list(self, *, operator: bool = False, page_size: Optional[int] = None) -> AsyncIterator[Token]:
        """Iterates over the tenant's tokens, without their secret texts; with ``operator`` over those of operators."""
        return self._sender.send_all(calls.list_tokens(operator=operator, page_size=page_size))

    async def delete(self, id: str) -> None:
        """Revokes a token at once."""
        return await self._sender.send(calls.delete_token(id))

    async def whoami(self) -> Identity:
        """Returns the caller's token, role and tenant, with the tenant's quota and defaults."""
        return await self._sender.send(calls.whoami())


class AsyncTenants(AsyncVerbs):
    """Tenants, for operators."""

    async def put(
        self,
        name: str,
        defaults: Optional[GroupFields] = None,
        *,
        quota: Optional[Quota] = None,
        plugin_signers: Iterable[Mapping[str, str]] = (),
    ) -> ChangedTenant:
        """Creates a tenant, or replaces its settings; ``removed`` of the result lists what is gone.

        ``defaults``: settings that its groups inherit.
        ``plugin_signers``: each has a ``name`` and a ``public_key`` (Ed25519, in PEM).
        """
        return await self._sender.send(calls.put_tenant(name, defaults, quota=quota, plugin_signers=plugin_signers))

    async def edit(
        self,
        name: str,
        defaults: Optional[GroupFields] = None,
        *,
        quota: Optional[Quota] = None,
        plugin_signers: Optional[Mapping[str, Optional[str]]] = None,
    ) -> ChangedTenant:
        """Changes the given settings of a tenant; None removes a setting. ``plugin_signers`` are keys in PEM by name."""
        return await self._sender.send(calls.edit_tenant(name, defaults, quota=quota, plugin_signers=plugin_signers))

    async def suspend(self, name: str) -> Tenant:
        """Suspends a tenant: its tokens are refused, and nothing is delivered, ticked or leased. Its jobs stay."""
        return await self._sender.send(calls.suspend_tenant(name))

    async def resume(self, name: str) -> Tenant:
        """Resumes a suspended tenant."""
        return await self._sender.send(calls.resume_tenant(name))

    async def delete(self, name: str) -> None:
        """Deletes a tenant with all of its jobs, groups, schedules, keys, tokens and plugins.

        Raises Problem (409) for the default tenant, and for those of the server's configuration.
        """
        return await self._sender.send(calls.delete_tenant(name))

    async def get(self, name: str) -> Tenant:
        """Returns a tenant."""
        return await self._sender.send(calls.get_tenant(name))

    def list(self, *, page_size: Optional[int] = None) -> AsyncIterator[Tenant]:
        """Iterates over all tenants by name."""
        return self._sender.send_all(calls.list_tenants(page_size=page_size))


class AsyncNodes(AsyncVerbs):
    """Nodes, for operators."""

    def list(self, *, page_size: Optional[int] = None) -> AsyncIterator[Node]:
        """Iterates over the nodes that share the server's database."""
        return self._sender.send_all(calls.list_nodes(page_size=page_size))


class AsyncAudit(AsyncVerbs):
    """The audit log: who changed what, and which requests were refused. For admins."""

    def list(
        self,
        *,
        actor: Optional[str] = None,
        verb: Optional[str] = None,
        object: Optional[str] = None,
        since: Optional[When] = None,
        until: Optional[When] = None,
        page_size: Optional[int] = None,
    ) -> AsyncIterator[AuditEntry]:
        """Iterates over the tenant's entries, newest first; an operator without a tenant sees those of all.

        ``actor``: id of a token, or ``system``, ``configuration`` or ``anonymous``. ``verb``: such as ``key.put``.
        ``object``: a kind such as ``key``, or a kind and a name, ``key/stripe``.
        """
        call = calls.list_audit(actor=actor, verb=verb, object=object, since=since, until=until, page_size=page_size)
        return self._sender.send_all(call)

    async def verify(self, *, cursor: Optional[str] = None) -> AuditVerification:
        """Verifies that up to 1,000 entries are as they were written and that none is missing; for operators.

        ``cursor``: the ``next_cursor`` of the part before; without it, the first part is verified.
        """
        return await self._sender.send(calls.verify_audit(cursor=cursor))
