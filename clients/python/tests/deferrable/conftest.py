"""A backend and an app of each test's own."""

from __future__ import annotations

import deferred
import pytest
from deferred import Recorder

from carillon import Client
from carillon.deferrable import Deferrable
from carillon.deferrable.backend import Backend, CarillonBackendFactory


@pytest.fixture
def backend(client: Client, name: str) -> Backend:
    """One whose ``pop`` does not wait."""
    return CarillonBackendFactory(client, wait_seconds=0).create_backend_for_group(name)


@pytest.fixture
def app(backend: Backend) -> Deferrable:
    return Deferrable(backend)


@pytest.fixture
def events(app: Deferrable) -> Recorder:
    """What happens in ``app``."""
    recorder = Recorder()
    app.register_event_consumer(recorder)
    return recorder


@pytest.fixture(autouse=True)
def _no_calls() -> None:
    deferred.CALLS.clear()
