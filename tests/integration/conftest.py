"""What integration tests share: environments of a test's own, and an end of everything that it has started."""

from collections.abc import Iterator
from pathlib import Path

import pytest

import wove
from tests.support.event_server import EventServer, event_server
from tests.support.jobs import Jobs
from tests.support.worker_processes import Workers
from wove.backend.connections import connections
from wove.backend.spool import spool
from wove.runtime import runtime


@pytest.fixture
def shut_down() -> Iterator[None]:
    """Shut Wove down when the test is over: workers, connections and threads that would be kept for the next weave."""
    yield
    wove.shutdown()


@pytest.fixture
def jobs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Jobs]:
    """The environment ``jobs``, and none of those that other tests or the user's files configure."""
    monkeypatch.chdir(tmp_path)
    runtime.reset()
    made = Jobs()
    yield made
    runtime.reset()
    wove.shutdown()
    made.ledger.end_processes()


@pytest.fixture
def own_spool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let workers in this process keep outcomes in a place of the test's own; at its end, close their connections."""
    monkeypatch.setenv("WOVE_SPOOL_DIR", str(tmp_path / "spool"))
    spool.cache_clear()
    yield
    spool.cache_clear()
    connections().close()
    wove.shutdown()


@pytest.fixture
def server() -> Iterator[EventServer]:
    """A server for the events of worker processes."""
    with event_server() as server:
        yield server


@pytest.fixture
def workers(tmp_path: Path) -> Iterator[Workers]:
    """Worker processes, which end with the test, and a place of their own for outcomes that nobody takes."""
    workers = Workers(tmp_path)
    yield workers
    workers.close()
