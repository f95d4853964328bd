"""Heartbeats: a worker that dies is noticed, one that is busy and a job that waits are left alone."""

import time
from pathlib import Path

import pytest

from tests.support.adapters import MemoryAdapter, ProcessAdapter
from tests.support.jobs import Away, Jobs, contents, eventually, sleeper
from wove import DeliveryTimeoutError


def test_a_killed_worker_is_noticed_by_its_heartbeats(jobs: Jobs, tmp_path: Path) -> None:
    jobs.configure(ProcessAdapter, delivery_heartbeat_seconds=2.0)
    log = tmp_path / "log"
    away = Away(sleeper(log))
    eventually(lambda: contents(log))
    killed = time.monotonic()
    jobs.ledger.processes[0].kill()
    assert isinstance(away.wait().error, DeliveryTimeoutError)
    assert time.monotonic() - killed < 5.0


@pytest.mark.slow
def test_a_killed_worker_is_noticed_without_any_option(jobs: Jobs, tmp_path: Path) -> None:
    jobs.configure(ProcessAdapter)
    log = tmp_path / "log"
    away = Away(sleeper(log))
    eventually(lambda: contents(log))
    killed = time.monotonic()
    jobs.ledger.processes[0].kill()
    assert isinstance(away.wait().error, DeliveryTimeoutError)
    assert time.monotonic() - killed < 45.0


def test_a_busy_worker_with_heartbeats_is_left_alone(jobs: Jobs, tmp_path: Path) -> None:
    jobs.configure(ProcessAdapter, delivery_heartbeat_seconds=1.0)
    log = tmp_path / "log"
    away = Away(sleeper(log))
    eventually(lambda: contents(log))
    time.sleep(3.0)
    Path(f"{log}.go").touch()
    assert away.wait().result == "done"


def test_a_job_may_be_queued_longer_than_its_heartbeat(jobs: Jobs) -> None:
    jobs.configure(MemoryAdapter, delivery_heartbeat_seconds=0.3)
    jobs.ledger.execute = False
    away = Away(lambda: "done")
    eventually(lambda: jobs.ledger.payloads)
    time.sleep(1.0)
    adapter = jobs.ledger.adapters[0]
    assert isinstance(adapter, MemoryAdapter)
    adapter.execute(jobs.ledger.payloads[0])
    assert away.wait().result == "done"
