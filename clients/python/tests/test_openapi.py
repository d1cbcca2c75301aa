"""The package knows every operation and every field that the server has, and no others."""

from __future__ import annotations

import re
from collections import abc
from dataclasses import fields
from typing import Any, Callable, Literal, get_args, get_origin, get_type_hints

import httpx
import pytest
import typing_extensions
from support import Server

from carillon import AsyncClient, models, types
from carillon._calls import admin, groups, jobs, policies
from carillon._calls.groups import Filter
from carillon._calls.jobs import FollowUp, JobFields, Limits
from carillon._calls.schedules import ScheduleFields

#: What the fields of a request's document are, by its name.
DOCUMENTS: dict[str, Any] = {
    "JobInput": FollowUp,
    "JobLimits": Limits,
    "GroupInput": types.GroupFields,
    "LimitsInput": types.GroupLimits,
    "UseInput": types.PolicyPlugin,
    "VersionInput": types.PolicyFields,
    "FilterInput": Filter,
    "QuotaInput": types.Quota,
    "EgressInput": types.EgressQuota,
    "TlsInput": types.GroupTls,
    "ScheduleInput": ScheduleFields,
}

#: What responses are read as, by the name of their schema.
MODELS: dict[str, Any] = {
    "JobView": models.Job,
    "SentRequestView": models.SentRequest,
    "AttemptView": models.Attempt,
    "AttemptError": models.AttemptError,
    "VerdictRecord": models.Verdict,
    "DecisionView": models.Decision,
    "GroupView": models.Group,
    "ChangedGroupView": models.ChangedGroup,
    "VersionView": models.Version,
    "ProposedView": models.Proposed,
    "BoundPlugin": models.BoundPlugin,
    "MoveView": models.Move,
    "ShadowView": models.Shadow,
    "CanaryView": models.Canary,
    "ArmView": models.Arm,
    "Stats": models.Stats,
    "ScheduleView": models.Schedule,
    "RunView": models.ScheduleRun,
    "BackfillView": models.Backfill,
    "BulkView": models.Bulk,
    "EndedView": models.Ended,
    "EventView": models.Event,
    "KeyView": models.Key,
    "KeyVersionView": models.KeyVersion,
    "TokenView": models.Token,
    "PluginView": models.Plugin,
    "TenantView": models.Tenant,
    "ChangedTenantView": models.ChangedTenant,
    "WhoamiView": models.Identity,
    "NodeView": models.Node,
    "BatchView": models.Batch,
    "ByView": models.By,
    "AuditActor": models.Actor,
    "AuditObject": models.AuditObject,
    "AuditEntryView": models.AuditEntry,
    "AuditEventView": models.AuditEvent,
    "AuditVerificationView": models.AuditVerification,
    "BrokenLink": models.BrokenLink,
}

#: Fields that the document describes as any text, and lists the values of in their description.
LISTED_IN_WORDS = {("JobView", "instead"), ("BulkView", "action")}

#: A job as it was posted, which is not read.
AS_POSTED = {("ScheduleView", "job")}

#: Fields that the document describes as any object, and as what in words only.
OBJECTS: dict[tuple[str, str], Any] = {
    ("VersionView", "policy"): types.RoleFields,
    ("ProposedView", "policy"): types.RoleFields,
    ("TenantView", "defaults"): types.GroupFields,
    ("ChangedTenantView", "defaults"): types.GroupFields,
    ("WhoamiView", "defaults"): types.GroupFields,
}


@pytest.fixture(scope="module")
def document(server: Server) -> dict[str, Any]:
    document: dict[str, Any] = httpx.get(f"{server.url}/openapi.json").json()
    return document


def resolved(document: dict[str, Any], schema: dict[str, Any]) -> dict[str, Any]:
    """The schema that a reference means."""
    while "$ref" in schema:
        kind, _, name = schema["$ref"].removeprefix("#/components/").partition("/")
        schema = document["components"][kind][name]
    return schema


def properties(document: dict[str, Any], schema: dict[str, Any]) -> dict[str, Any]:
    schema = resolved(document, schema)
    found = dict(schema.get("properties", {}))
    for part in schema.get("allOf", []):
        found |= properties(document, part)
    return found


def named(document: dict[str, Any], name: str) -> dict[str, Any]:
    return properties(document, document["components"]["schemas"][name])


def special(hint: Any) -> Any:
    """The values of the Literal in a type, or its TypedDict; None if there is neither."""
    if get_origin(hint) is Literal:
        return set(get_args(hint))
    if typing_extensions.is_typeddict(hint):
        return hint
    # A mapping is about its keys: the API's document calls it an object.
    parts = [] if get_origin(hint) in (dict, abc.Mapping) else get_args(hint)
    return next((found for found in map(special, parts) if found is not None), None)


def described(document: dict[str, Any], schema: dict[str, Any]) -> Any:
    """The same of a schema."""
    name = schema.get("$ref", "").rpartition("/")[2]
    if name in DOCUMENTS:
        return DOCUMENTS[name]
    schema = resolved(document, schema)
    if "enum" in schema:
        return {value for value in schema["enum"] if value is not None}
    parts = [schema["items"]] if "items" in schema else [*schema.get("oneOf", []), *schema.get("anyOf", [])]
    return next((found for found in (described(document, part) for part in parts) if found is not None), None)


@pytest.mark.parametrize("name", DOCUMENTS)
def test_what_can_be_asked_for(document: dict[str, Any], name: str) -> None:
    known = set(DOCUMENTS[name].__optional_keys__)
    if name == "JobInput":
        known = known - {"payload_bytes"} | {"payload_base64"}
    if name == "ScheduleInput":
        known |= {"group", "cron", "job"}
    assert known == set(named(document, name))
    assert FollowUp.__optional_keys__ - JobFields.__optional_keys__ == {"group"}


@pytest.mark.parametrize("name", DOCUMENTS)
def test_values_that_can_be_asked_for(document: dict[str, Any], name: str) -> None:
    schemas = named(document, name)
    for field, hint in get_type_hints(DOCUMENTS[name]).items():
        if field in schemas:
            assert special(hint) == described(document, schemas[field]), field


@pytest.mark.parametrize("name", MODELS)
def test_what_is_answered(document: dict[str, Any], name: str) -> None:
    assert {part.name for part in fields(MODELS[name])} == set(named(document, name))


@pytest.mark.parametrize("name", MODELS)
def test_values_that_are_answered(document: dict[str, Any], name: str) -> None:
    schemas = named(document, name)
    for field, hint in get_type_hints(MODELS[name]).items():
        if (name, field) in LISTED_IN_WORDS:
            words = set(re.findall("`(\\w+)`", schemas[field]["description"]))
            assert words <= special(hint), field
        elif (name, field) not in AS_POSTED:
            expected = described(document, schemas[field]) or OBJECTS.get((name, field))
            assert special(hint) == expected, field


@pytest.mark.parametrize(
    ("call", "argument", "method", "path", "field"),
    [
        (jobs.list_, "state", "get", "/v1/jobs", "state"),
        (groups.change, "action", "post", "/v1/groups/{group}/bulk", "action"),
        (policies.propose, "base", "post", "/v1/groups/{group}/policy/versions", "base"),
        (admin.put_key, "kind", "put", "/v1/keys/{key}", "kind"),
        (admin.create_token, "role", "post", "/v1/tokens", "role"),
    ],
)
def test_values_of_arguments(document: dict[str, Any], call: Callable[..., Any], argument: str, method: str, path: str, field: str) -> None:
    operation = document["paths"][path][method]
    parameters = [resolved(document, each) for each in operation.get("parameters", [])]
    schemas = {each["name"]: each["schema"] for each in parameters}
    for content in operation.get("requestBody", {}).get("content", {}).values():
        schemas |= properties(document, content["schema"])
    hints = get_type_hints(call, localns={"Unpack": typing_extensions.Unpack})
    assert special(hints[argument]) == described(document, schemas[field]) is not None


def test_every_operation_of_the_api_is_a_verb(document: dict[str, Any]) -> None:
    """By their number; what is none is named."""
    without = {
        ("GET", "/healthz"),
        ("GET", "/readyz"),
        ("GET", "/metrics"),
        # A method of the client, not of a noun.
        ("GET", "/v1/events"),
        # Previews of runs, which the command line shows.
        ("GET", "/v1/cron/runs"),
        ("GET", "/v1/schedules/{schedule}/runs"),
    }
    served = {(method.upper(), path) for path, methods in document["paths"].items() for method in methods}
    calls = served - without
    assert without <= served
    client = AsyncClient("http://127.0.0.1:9")
    nouns = [noun for name, noun in vars(client).items() if not re.match("_", name)]
    verbs = [verb for noun in nouns for verb in vars(type(noun)) if not verb.startswith("_")]
    # `plugins.get` and `jobs.list` are two operations each; `plugins.deprecate` and `plugins.share` are one.
    assert len(verbs) + 1 == len(calls), sorted(calls)
