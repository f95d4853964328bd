"""What happens to a run that its weave gives up or loses, as the options say: cancelled, confirmed, left, run again."""

from pathlib import Path
from typing import Any

import pytest

import wove
from tests.support.adapters import MemoryAdapter, PolledAdapter, ProcessAdapter, TerminatingAdapter
from tests.support.jobs import Away, Jobs, contents, eventually, run, sleeper, writer
from wove import DeliveryOrphanedError, DeliveryTimeoutError
from wove.environment.orders import ACK_SECONDS
from wove.errors import TaskTimeoutError
from wove.integrations.base import JobState


def test_a_running_worker_is_told_when_its_weave_gives_up(jobs: Jobs, tmp_path: Path) -> None:
    jobs.configure(ProcessAdapter, delivery_heartbeat_seconds=1.0)
    log = tmp_path / "log"
    with pytest.raises(TaskTimeoutError):
        run(writer(log, seconds=60.0), timeout=2.0)
    eventually(lambda: "stopped" in contents(log))


def test_require_ack_waits_until_the_worker_has_stopped(jobs: Jobs, tmp_path: Path) -> None:
    jobs.configure(TerminatingAdapter, delivery_cancel_mode="require_ack")
    log = tmp_path / "log"
    away = Away(writer(log, seconds=60.0), timeout=2.0).wait()
    assert isinstance(away.error, TaskTimeoutError)
    # Less than the bound: the worker has confirmed it.
    assert away.seconds < 2.0 + ACK_SECONDS
    assert jobs.ledger.processes[0].wait(30) != 0
    assert "ended" not in contents(log)


def test_require_ack_waits_a_few_seconds_at_most(jobs: Jobs) -> None:
    jobs.configure(MemoryAdapter, delivery_timeout=0.3, delivery_cancel_mode="require_ack")
    jobs.ledger.execute = False
    away = Away(lambda: 1).wait()
    assert isinstance(away.error, DeliveryTimeoutError)
    assert ACK_SECONDS <= away.seconds < ACK_SECONDS + 3.0


@pytest.mark.parametrize("receiver", ["stays", "goes"])
def test_detach_lets_a_running_task_end(jobs: Jobs, tmp_path: Path, receiver: str) -> None:
    jobs.configure(ProcessAdapter, delivery_orphan_policy="detach", delivery_heartbeat_seconds=0.6)
    log = tmp_path / "log"
    with pytest.raises(TaskTimeoutError):
        run(writer(log, seconds=3.0), timeout=1.5)
    assert contents(log).split() == ["started"]
    assert jobs.ledger.cancelled == []
    if receiver == "goes":
        wove.shutdown()
    eventually(lambda: "ended" in contents(log))
    assert "stopped" not in contents(log)


def test_fail_leaves_a_queued_job_in_the_backend_where_it_will_not_be_executed(jobs: Jobs, tmp_path: Path) -> None:
    jobs.configure(ProcessAdapter, delivery_orphan_policy="fail", delivery_timeout=0.3)
    jobs.ledger.execute = False
    log = tmp_path / "log"
    with pytest.raises(DeliveryTimeoutError):
        run(writer(log, seconds=0.0))
    assert jobs.ledger.cancelled == []
    adapter = jobs.ledger.adapters[0]
    assert isinstance(adapter, ProcessAdapter)
    adapter.execute(jobs.ledger.payloads[0])
    jobs.ledger.processes[0].wait(30)
    assert contents(log) == ""


def test_requeue_runs_a_lost_task_again_under_a_new_run_id(jobs: Jobs, tmp_path: Path) -> None:
    jobs.configure(ProcessAdapter, delivery_orphan_policy="requeue", delivery_heartbeat_seconds=1.5)
    log = tmp_path / "log"
    away = Away(sleeper(log))
    eventually(lambda: contents(log))
    jobs.ledger.processes[0].kill()
    eventually(lambda: len(contents(log).split()) == 2)
    Path(f"{log}.go").touch()
    assert away.wait().result == "done"
    first, second = jobs.ledger.run_ids
    assert first != second
    assert jobs.ledger.cancelled == [(first, f"job of {first}")]


def test_a_dead_job_fails_its_task_with_the_backend_s_words(jobs: Jobs) -> None:
    jobs.configure(PolledAdapter, settings={"dead_job_grace": 0.2})
    jobs.ledger.execute = False
    jobs.ledger.states["*"] = JobState("failed", exit_code=137, reason="OOMKilled")
    away = Away(lambda: 1).wait(10)
    assert isinstance(away.error, DeliveryOrphanedError)
    assert (away.error.state, away.error.exit_code, away.error.reason) == ("failed", 137, "OOMKilled")


def test_a_dead_job_is_retried_like_any_failure(jobs: Jobs) -> None:
    class DiesFirst(PolledAdapter):
        async def submit(self, payload: dict[str, Any], frame: dict[str, Any]) -> Any:
            self.ledger.execute = bool(self.ledger.payloads)
            if not self.ledger.payloads:
                self.ledger.states[payload["run_id"]] = JobState("gone")
            return await super().submit(payload, frame)

    jobs.configure(DiesFirst, settings={"dead_job_grace": 0.1}, retries=1)
    assert run(lambda: "done") == "done"
