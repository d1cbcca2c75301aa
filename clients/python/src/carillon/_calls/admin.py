"""Administration: keys, plugins, tokens, tenants, nodes, the audit log."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any, Literal, Optional, Union

from carillon._calls.call import Call, Page, listing, nothing, path, reading, request
from carillon.models import AuditEntry, AuditVerification, ChangedTenant, Identity, Key, Node, Plugin, Tenant, Token
from carillon.times import Period, When, period, when
from carillon.types import UNCHANGED, AccessRole, GroupFields, KeyKind, Quota, Unchanged

#: Time that an upload may wait for other uploads and for the compiler, in seconds.
_UPLOAD_WAIT_SECONDS = 600.0


def put_key(
    name: str,
    secret: Union[str, bytes],
    *,
    kind: Optional[KeyKind] = None,
    encoded: bool = False,
    overlap: Optional[str] = None,
    groups: Optional[Iterable[str]] = None,
    origins: Optional[Iterable[str]] = None,
) -> Call[tuple[str, ...]]:
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
    if origins is not None:
        body["origins"] = list(origins)
    return request("PUT", path("keys", name), _warnings, body=body)


def grant_key(
    name: str,
    groups: Union[Iterable[str], Unchanged, None] = UNCHANGED,
    *,
    origins: Union[Iterable[str], Unchanged, None] = UNCHANGED,
) -> Call[Key]:
    given = {"groups": groups, "origins": origins}
    body = {name: None if all_ is None else list(all_) for name, all_ in given.items() if not isinstance(all_, Unchanged)}
    if not body:
        raise TypeError("`groups` or `origins` is required")
    return request("PATCH", path("keys", name), reading(Key), body=body)


def _warnings(doc: Any) -> tuple[str, ...]:
    return () if doc is None else tuple(doc["warnings"])


def get_key(name: str) -> Call[Key]:
    return request("GET", path("keys", name), reading(Key))


def list_keys(*, page_size: Optional[int] = None) -> Call[Page[Key]]:
    return listing(path("keys"), Key, {}, page_size)


def delete_key(name: str) -> Call[None]:
    return request("DELETE", path("keys", name), nothing)


def delete_key_version(name: str, version: int) -> Call[None]:
    return request("DELETE", path("keys", name, "versions", str(version)), nothing)


def _shared(shared: bool) -> dict[str, Optional[bool]]:
    return {"shared": True if shared else None}


def list_plugins(*, shared: bool = False, page_size: Optional[int] = None) -> Call[Page[Plugin]]:
    return listing(path("plugins"), Plugin, _shared(shared), page_size)


def list_plugin_versions(name: str, *, shared: bool = False, page_size: Optional[int] = None) -> Call[Page[Plugin]]:
    return listing(path("plugins", name, "versions"), Plugin, _shared(shared), page_size)


def get_plugin(name: str, version: Optional[str] = None, *, shared: bool = False) -> Call[Plugin]:
    segments = ["plugins", name] if version is None else ["plugins", name, "versions", version]
    return request("GET", path(*segments), reading(Plugin), params=_shared(shared))


def upload_plugin(
    name: str,
    version: str,
    component: bytes,
    *,
    signature: Optional[str] = None,
    tenants: Union[Literal["*"], Iterable[str], None] = None,
) -> Call[Plugin]:
    headers = {"Content-Type": "application/wasm"}
    if signature is not None:
        headers["Carillon-Signature"] = signature
    params = {"tenants": None if tenants is None else ",".join(tenants)}
    url = path("plugins", name, "versions", version)
    call = request("PUT", url, reading(Plugin), params=params, wait_seconds=_UPLOAD_WAIT_SECONDS)
    return replace(call, content=component, headers=headers)


def get_component(name: str, version: str, *, shared: bool = False) -> Call[bytes]:
    url = path("plugins", name, "versions", version, "component")
    return replace(request("GET", url, bytes, params=_shared(shared)), is_raw=True)


def deprecate_plugin(name: str, version: str, why: Optional[str], *, shared: bool = False) -> Call[Plugin]:
    url = path("plugins", name, "versions", version)
    return request("PATCH", url, reading(Plugin), body={"deprecated": why}, params=_shared(shared))


def share_plugin(name: str, version: str, tenants: Union[Literal["*"], Iterable[str]]) -> Call[Plugin]:
    body = {"tenants": None if tenants == "*" else list(tenants)}
    return request("PATCH", path("plugins", name, "versions", version), reading(Plugin), body=body, params=_shared(True))


def delete_plugin(name: str, version: str, *, shared: bool = False) -> Call[None]:
    return request("DELETE", path("plugins", name, "versions", version), nothing, params=_shared(shared))


def create_token(
    role: AccessRole,
    *,
    name: str = "",
    tenant: Optional[str] = None,
    operator: bool = False,
    expires_in: Optional[Period] = None,
    groups: Optional[Iterable[str]] = None,
    addresses: Optional[Iterable[str]] = None,
) -> Call[Token]:
    body: dict[str, Any] = {"role": role, "name": name}
    if tenant is not None:
        body["tenant"] = tenant
    if operator:
        body["operator"] = True
    if expires_in is not None:
        body["expires_in"] = period(expires_in)
    if groups is not None:
        body["groups"] = list(groups)
    if addresses is not None:
        body["addresses"] = list(addresses)
    return request("POST", path("tokens"), reading(Token), body=body)


def rotate_token(id: str, *, overlap: Optional[Period] = None, expires_in: Optional[Period] = None) -> Call[Token]:
    given = {"overlap": overlap, "expires_in": expires_in}
    body = {name: period(value) for name, value in given.items() if value is not None}
    return request("POST", path("tokens", id, "rotate"), reading(Token), body=body)


def list_tokens(*, operator: bool = False, page_size: Optional[int] = None) -> Call[Page[Token]]:
    return listing(path("tokens"), Token, {"operator": "true"} if operator else {}, page_size)


def delete_token(id: str) -> Call[None]:
    return request("DELETE", path("tokens", id), nothing)


def put_tenant(
    name: str,
    defaults: Optional[GroupFields] = None,
    *,
    quota: Optional[Quota] = None,
    plugin_signers: Iterable[Mapping[str, str]] = (),
) -> Call[ChangedTenant]:
    body = {
        "defaults": dict(defaults or {}),
        "quota": dict(quota or {}),
        "plugin_signers": [dict(signer) for signer in plugin_signers],
    }
    return request("PUT", path("tenants", name), reading(ChangedTenant), body=body)


def edit_tenant(
    name: str,
    defaults: Optional[GroupFields] = None,
    *,
    quota: Optional[Quota] = None,
    plugin_signers: Optional[Mapping[str, Optional[str]]] = None,
) -> Call[ChangedTenant]:
    parts = {"defaults": defaults, "quota": quota, "plugin_signers": plugin_signers}
    body = {key: dict(part) for key, part in parts.items() if part is not None}
    return request("PATCH", path("tenants", name), reading(ChangedTenant), body=body)


def suspend_tenant(name: str) -> Call[Tenant]:
    return request("POST", path("tenants", name, "suspend"), reading(Tenant))


def resume_tenant(name: str) -> Call[Tenant]:
    return request("POST", path("tenants", name, "resume"), reading(Tenant))


def delete_tenant(name: str) -> Call[None]:
    return request("DELETE", path("tenants", name), nothing)


def whoami() -> Call[Identity]:
    return request("GET", path("whoami"), reading(Identity))


def get_tenant(name: str) -> Call[Tenant]:
    return request("GET", path("tenants", name), reading(Tenant))


def list_tenants(*, page_size: Optional[int] = None) -> Call[Page[Tenant]]:
    return listing(path("tenants"), Tenant, {}, page_size)


def list_nodes(*, page_size: Optional[int] = None) -> Call[Page[Node]]:
    return listing(path("nodes"), Node, {}, page_size)


def list_audit(
    *,
    actor: Optional[str] = None,
    verb: Optional[str] = None,
    object: Optional[str] = None,
    since: Optional[When] = None,
    until: Optional[When] = None,
    page_size: Optional[int] = None,
) -> Call[Page[AuditEntry]]:
    times = {name: when(value) for name, value in {"from": since, "to": until}.items() if value is not None}
    return listing(path("audit"), AuditEntry, {"actor": actor, "verb": verb, "object": object, **times}, page_size)


def verify_audit(*, cursor: Optional[str] = None) -> Call[AuditVerification]:
    return request("GET", path("audit", "verify"), reading(AuditVerification), params={"cursor": cursor})
