"""Attempts of one task, of which each is a run of its own."""

import asyncio
import time
from pathlib import Path
from typing import Any

import pytest

from tests.support.adapters import MemoryAdapter, ProcessAdapter
from tests.support.jobs import Jobs, run, writer
from wove import weave
from wove.errors import TaskTimeoutError


def test_an_attempt_that_timed_out_is_cancelled_before_the_next_one_starts(jobs: Jobs, tmp_path: Path) -> None:
    order: list[str] = []

    class Ordered(ProcessAdapter):
        async def submit(self, payload: dict[str, Any], frame: dict[str, Any]) -> Any:
            order.append(f"submit {payload['attempt']}")
            return await super().submit(payload, frame)

        async def cancel(self, run_id: str, submission: Any, frame: dict[str, Any]) -> None:
            await asyncio.sleep(0.2)
            await super().cancel(run_id, submission, frame)
            order.append("cancelled")

    jobs.configure(Ordered)
    with pytest.raises(TaskTimeoutError):
        run(writer(tmp_path / "log", seconds=60.0), timeout=2.0, retries=1)
    assert order == ["submit 1", "cancelled", "submit 2", "cancelled"]
    assert len(set(jobs.ledger.run_ids)) == 2


def test_the_late_answer_of_an_earlier_attempt_is_ignored(jobs: Jobs, tmp_path: Path) -> None:
    jobs.configure(MemoryAdapter)
    log = str(tmp_path / "log")

    def which() -> str:
        import os
        import time

        if not os.path.exists(log):
            open(log, "w").close()
            time.sleep(1.0)
            return "first"
        time.sleep(0.8)
        return "second"

    with weave() as w:
        w.do(environment="jobs", timeout=0.9, retries=1)(which)

        @w.do
        def seen(which: str) -> str:
            time.sleep(0.3)
            return which

    assert w.result.which == w.result.seen == "second"


def test_a_refused_submission_is_retried_as_a_new_run(jobs: Jobs) -> None:
    class Flaky(MemoryAdapter):
        async def submit(self, payload: dict[str, Any], frame: dict[str, Any]) -> Any:
            self.ledger.submit_failure = ConnectionError("broker is gone") if not self.ledger.payloads else None
            return await super().submit(payload, frame)

    jobs.configure(Flaky, retries=1)
    assert run(lambda: "done") == "done"
    assert len(set(jobs.ledger.run_ids)) == 2
