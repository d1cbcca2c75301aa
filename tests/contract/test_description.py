"""The description is valid in the eyes of public tools."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from conftest import DOCUMENTS
from openapi_spec_validator import validate
from tools import run


@pytest.mark.parametrize("name", DOCUMENTS)
def test_description_is_valid(documents: dict[str, Path], name: str) -> None:
    document = json.loads(documents[name].read_text())
    validate(document)
    assert document["openapi"].startswith({"openapi.json": "3.1", "openapi-3.0.json": "3.0"}[name])


@pytest.mark.parametrize("name", DOCUMENTS)
def test_description_follows_the_rules_of_the_linter(documents: dict[str, Path], name: str) -> None:
    run(["redocly", "lint", "--config", "redocly.yaml", "--format", "stylish", str(documents[name])])
