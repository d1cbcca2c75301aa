"""The package knows every operation and every field that the server has, and no others."""

from __future__ import annotations

import re
from dataclasses import fields
from typing import Any

import httpx
import pytest
from support import Server

from carillon import AsyncClient, models
from carillon._calls.admin import Quota
from carillon._calls.groups import Filter, GroupFields
from carillon._calls.jobs import FollowUp, JobFields, Limits
from carillon._calls.policies import PolicyFields
from carillon._calls.schedules import ScheduleFields


@pytest.fixture(scope="module")
def document(server: Server) -> dict[str, Any]:
    document: dict[str, Any] = httpx.get(f"{server.url}/openapi.json").json()
    return document


def properties(document: dict[str, Any], name: str) -> set[str]:
    schema = document["components"]["schemas"][name]
    found = set(schema.get("properties", {}))
    for part in schema.get("allOf", []):
        found |= properties(document, part["$ref"].rpartition("/")[2]) if "$ref" in part else set(part.get("properties", {}))
    return found


@pytest.mark.parametrize(
    ("name", "known"),
    [
        ("JobDoc", FollowUp.__optional_keys__ - {"payload_bytes"} | {"payload_base64"}),
        ("JobLimits", Limits.__optional_keys__),
        ("GroupDoc", GroupFields.__optional_keys__),
        ("CandidateDoc", PolicyFields.__optional_keys__),
        ("FilterDoc", Filter.__optional_keys__),
        ("QuotaDoc", Quota.__optional_keys__),
        ("ScheduleDoc", ScheduleFields.__optional_keys__ | {"group", "cron", "job"}),
    ],
)
def test_what_can_be_asked_for(document: dict[str, Any], name: str, known: frozenset[str]) -> None:
    assert known == properties(document, name)
    assert FollowUp.__optional_keys__ - JobFields.__optional_keys__ == {"group"}


@pytest.mark.parametrize(
    ("name", "model"),
    [
        ("JobView", models.Job),
        ("SentRequestView", models.SentRequest),
        ("AttemptView", models.Attempt),
        ("GroupView", models.Group),
        ("ChangedGroupView", models.ChangedGroup),
        ("VersionView", models.Version),
        ("ProposedView", models.Proposed),
        ("BoundPlugin", models.BoundPlugin),
        ("MoveView", models.Move),
        ("ShadowView", models.Shadow),
        ("CanaryView", models.Canary),
        ("ArmView", models.Arm),
        ("Stats", models.Stats),
        ("ScheduleView", models.Schedule),
        ("BackfillView", models.Backfill),
        ("BulkView", models.Bulk),
        ("EndedView", models.Ended),
        ("EventView", models.Event),
        ("KeyView", models.Key),
        ("KeyVersionView", models.KeyVersion),
        ("TokenView", models.Token),
        ("PluginView", models.Plugin),
        ("TenantView", models.Tenant),
        ("ChangedTenantView", models.ChangedTenant),
        ("WhoamiView", models.Identity),
        ("NodeView", models.Node),
        ("BatchView", models.Batch),
    ],
)
def test_what_is_answered(document: dict[str, Any], name: str, model: Any) -> None:
    assert {part.name for part in fields(model)} == properties(document, name)


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
    # `plugins.get` and `jobs.list` are two operations each.
    assert len(verbs) + 2 == len(calls), sorted(calls)
