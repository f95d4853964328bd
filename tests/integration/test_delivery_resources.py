"""What a delivery opens: apart from the weave's loop, and given back whatever happens."""

import asyncio
import os
from typing import Any

import pytest

import wove
from tests.support.adapters import Ledger, MemoryAdapter
from tests.support.jobs import Away, Jobs, eventually, one_task, run
from wove import BackendAdapterEnvironmentExecutor, weave
from wove.backend.loop import io_loop


async def test_cancelling_the_caller_cancels_the_job_and_gives_everything_back(jobs: Jobs) -> None:
    jobs.configure(MemoryAdapter)
    assert run_quickly() == "done"
    before = len(os.listdir("/proc/self/fd"))
    jobs.ledger.execute = False

    task = asyncio.create_task(one_task())
    await asyncio.to_thread(eventually, lambda: len(jobs.ledger.payloads) == 2)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert [run_id for run_id, _ in jobs.ledger.cancelled] == jobs.ledger.run_ids[1:]
    assert len(os.listdir("/proc/self/fd")) <= before


def run_quickly() -> Any:
    """Run a weave in a thread, because the test has a loop running here."""
    return Away(lambda: "done").wait().result


def test_an_environment_that_cannot_start_takes_nothing_with_it(jobs: Jobs) -> None:
    good, bad = Ledger(), Ledger()
    bad.start_failure = ConnectionError("broker is gone")
    wove.config(
        environments={
            name: {
                "executor": BackendAdapterEnvironmentExecutor(name, adapter_class=MemoryAdapter),
                "executor_config": {"ledger": ledger},
            }
            for name, ledger in (("good", good), ("bad", bad))
        }
    )
    with pytest.raises(ConnectionError):
        in_both()
    assert good.payloads == []
    assert bad.closed == bad.adapters
    wove.shutdown()
    assert good.closed == good.adapters


def in_both() -> None:
    """Run a task in each of the environments ``good`` and ``bad``."""
    with weave() as w:

        @w.do(environment="good")
        def one() -> int:
            return 1

        @w.do(environment="bad")
        def two() -> int:
            return 2

    assert w.result.two == 2


def test_the_background_loop_is_not_the_weave_s(jobs: Jobs) -> None:
    jobs.configure(MemoryAdapter)
    assert run(lambda: "done") == "done"
    assert io_loop().loop.is_running()
