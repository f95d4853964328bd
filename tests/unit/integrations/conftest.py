"""What the tests of the worker share: both entry points, a server for their events, and a spool of their own."""

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.event_server import EventServer, event_server
from tests.support.worker_tasks import Counter
from wove.backend.connections import connections
from wove.backend.spool import spool
from wove.integrations.worker import arun, run

Run = Callable[[dict[str, Any]], bytes | None]


@pytest.fixture(params=["run", "arun"])
def execute(request: pytest.FixtureRequest) -> Run:
    """Execute a payload, once with each entry point."""
    if request.param == "run":
        return lambda payload: run(payload)
    return lambda payload: asyncio.run(arun(payload))


@pytest.fixture
def server(kept: Path) -> Iterator[EventServer]:
    """A server for the events of workers; what it does not take is kept in a place of the test's own."""
    with event_server() as server:
        yield server
    connections().close()


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The directory in which workers keep outcomes that cannot be delivered."""
    monkeypatch.setenv("WOVE_SPOOL_DIR", str(tmp_path / "spool"))
    spool.cache_clear()
    yield tmp_path / "spool"
    spool.cache_clear()


@pytest.fixture
def counter(tmp_path: Path) -> Counter:
    """A task that counts its executions."""
    return Counter(tmp_path / "count")
