"""What administrators do: keys, plugins, tokens, tenants, nodes."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any, Optional, TypedDict, Union

from carillon._calls.call import Call, Page, listing, nothing, path, reading, request
from carillon.models import ChangedTenant, Identity, Key, Node, Plugin, Tenant, Token
from carillon.times import Period, period

#: An upload may wait for others, and then for the compiler.
_UPLOAD_PATIENCE = 600.0


class Quota(TypedDict, total=False):
    """What all groups of a tenant may use together, and what it may keep."""

    #: How many attempts run at once.
    concurrency: Optional[int]
    #: How many start in a period: ``100/s``, ``600/min``, ``5000/h``.
    rate: Optional[str]
    #: With a ``rate``: how many may start at once after a pause.
    burst: Optional[int]
    #: How much of what starts the tenant gets, compared with others that have jobs due.
    weight: Optional[int]
    #: How many versions of plugins of its own it may have.
    plugins: Optional[int]
    #: How many bytes their components may have together.
    plugin_bytes: Optional[int]


def put_key(
    name: str,
    secret: Union[str, bytes],
    *,
    kind: Optional[str] = None,
    encoded: bool = False,
    overlap: Optional[str] = None,
    groups: Optional[Iterable[str]] = None,
) -> Call[None]:
    """Keeps a key for signers, or a new version of it. An ``ed25519`` key is its seed of 32 bytes.

    ``encoded``: the text is base64, perhaps with ``whsec_`` or ``whsk_`` in front, as Standard Webhooks writes keys.
    ``overlap``: how long the versions until now sign besides (``"24h"``, or ``"until-removed"``). Without it they end at once.
    ``groups``: the names of the groups that may use it from now on. Without them, those that may now; a new key is for all.
    """
    if isinstance(secret, str):
        body: dict[str, Any] = {"secret_base64" if encoded else "secret": secret}
    else:
        body = {"secret_base64": base64.b64encode(secret).decode()}
    if kind is not None:
        body["kind"] = kind
    if overlap is not None:
        body["overlap"] = overlap
    if groups is not None:
        body["groups"] = list(groups)
    return request("PUT", path("keys", name), nothing, body=body)


def grant_key(name: str, groups: Optional[Iterable[str]]) -> Call[Key]:
    """Grants a key to these groups and no others; None means all. Raises Problem (409) while a group uses it that no longer may."""
    body = {"groups": None if groups is None else list(groups)}
    return request("PATCH", path("keys", name), reading(Key), body=body)


def get_key(name: str) -> Call[Key]:
    """Shows what is known of a key; never its secret."""
    return request("GET", path("keys", name), reading(Key))


def list_keys(*, page_size: Optional[int] = None) -> Call[Page[Key]]:
    """The tenant's keys by name."""
    return listing(path("keys"), Key, {}, page_size)


def delete_key(name: str) -> Call[None]:
    """Removes a key. Raises Problem (409) while a group uses it."""
    return request("DELETE", path("keys", name), nothing)


def delete_key_version(name: str, version: int) -> Call[None]:
    """Ends a version of a key. With the newest gone, the one before it is the newest again; the only one stays."""
    return request("DELETE", path("keys", name, "versions", str(version)), nothing)


def list_plugins(*, page_size: Optional[int] = None) -> Call[Page[Plugin]]:
    """The plugins that the tenant can use."""
    return listing(path("plugins"), Plugin, {}, page_size)


def list_plugin_versions(name: str, *, page_size: Optional[int] = None) -> Call[Page[Plugin]]:
    """The versions of a plugin, the newest first."""
    return listing(path("plugins", name, "versions"), Plugin, {}, page_size)


def get_plugin(name: str, version: Optional[str] = None) -> Call[Plugin]:
    """Shows a plugin with the schema of its config; its newest version by default."""
    segments = ["plugins", name] if version is None else ["plugins", name, "versions", version]
    return request("GET", path(*segments), reading(Plugin))


def upload_plugin(name: str, version: str, component: bytes, *, signature: Optional[str] = None) -> Call[Plugin]:
    """
    Uploads a WebAssembly component. A version never changes: another one under the same name is a 409.

    A tenant that names signers takes it only with an Ed25519 signature of its bytes by one of them, in base64.
    """
    headers = {"Content-Type": "application/wasm"}
    if signature is not None:
        headers["Carillon-Signature"] = signature
    call = request("PUT", path("plugins", name, "versions", version), reading(Plugin), patience=_UPLOAD_PATIENCE)
    return replace(call, content=component, headers=headers)


def get_component(name: str, version: str) -> Call[bytes]:
    """The bytes of a version, as they were uploaded."""
    return replace(request("GET", path("plugins", name, "versions", version, "component"), bytes), is_raw=True)


def deprecate_plugin(name: str, version: str, why: Optional[str]) -> Call[Plugin]:
    """Says why a version should no longer be bound; None takes that back. Groups that bind it go on, with a warning."""
    return request("PATCH", path("plugins", name, "versions", version), reading(Plugin), body={"deprecated": why})


def delete_plugin(name: str, version: str) -> Call[None]:
    """Removes a version. Raises Problem (409) while a version of a group's policy uses it."""
    return request("DELETE", path("plugins", name, "versions", version), nothing)


def create_token(
    role: str, *, name: str = "", tenant: Optional[str] = None, operator: bool = False, expires_in: Optional[Period] = None
) -> Call[Token]:
    """Makes an API token: ``viewer``, ``producer`` or ``admin``. Its ``token`` is shown this once.

    An ``operator`` manages tenants, too; it takes one to make one. With ``expires_in`` the token ends by itself.
    """
    body: dict[str, Any] = {"role": role, "name": name}
    if tenant is not None:
        body["tenant"] = tenant
    if operator:
        body["operator"] = True
    if expires_in is not None:
        body["expires_in"] = period(expires_in)
    return request("POST", path("tokens"), reading(Token), body=body)


def list_tokens(*, page_size: Optional[int] = None) -> Call[Page[Token]]:
    """The tenant's tokens, without the texts that open anything."""
    return listing(path("tokens"), Token, {}, page_size)


def delete_token(id: str) -> Call[None]:
    """Makes a token useless at once."""
    return request("DELETE", path("tokens", id), nothing)


def put_tenant(
    name: str,
    defaults: Optional[Mapping[str, Any]] = None,
    *,
    quota: Optional[Quota] = None,
    plugin_signers: Iterable[Mapping[str, str]] = (),
) -> Call[ChangedTenant]:
    """
    Makes a tenant, or replaces what its groups inherit, what they may use together, and whose plugins it takes.

    ``removed`` of the answer names what is gone.

    A signer has a ``name`` and a ``public_key``: Ed25519, in PEM.
    """
    body = {
        "defaults": dict(defaults or {}),
        "quota": dict(quota or {}),
        "plugin_signers": [dict(signer) for signer in plugin_signers],
    }
    return request("PUT", path("tenants", name), reading(ChangedTenant), body=body)


def edit_tenant(
    name: str,
    defaults: Optional[Mapping[str, Any]] = None,
    *,
    quota: Optional[Mapping[str, Any]] = None,
    plugin_signers: Optional[Mapping[str, Optional[str]]] = None,
) -> Call[ChangedTenant]:
    """Changes a part of a tenant's settings: what is not named stays, None takes away. ``plugin_signers`` are keys in PEM by name."""
    parts = {"defaults": defaults, "quota": quota, "plugin_signers": plugin_signers}
    body = {key: dict(part) for key, part in parts.items() if part is not None}
    return request("PATCH", path("tenants", name), reading(ChangedTenant), body=body)


def delete_tenant(name: str) -> Call[None]:
    """Removes a tenant with its keys, tokens and plugins. Raises Problem (409) while it has groups."""
    return request("DELETE", path("tenants", name), nothing)


def whoami() -> Call[Identity]:
    """Shows who is asking: the token's role and tenant, with the tenant's quota and defaults."""
    return request("GET", path("whoami"), reading(Identity))


def get_tenant(name: str) -> Call[Tenant]:
    """Shows a tenant."""
    return request("GET", path("tenants", name), reading(Tenant))


def list_tenants(*, page_size: Optional[int] = None) -> Call[Page[Tenant]]:
    """All tenants by name."""
    return listing(path("tenants"), Tenant, {}, page_size)


def list_nodes(*, page_size: Optional[int] = None) -> Call[Page[Node]]:
    """The nodes that share the server's database."""
    return listing(path("nodes"), Node, {}, page_size)
