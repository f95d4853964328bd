"""Time limits of deliveries, whatever an adapter does meanwhile."""

import asyncio
import time
from pathlib import Path
from typing import Any

import pytest

from tests.support.adapters import MemoryAdapter, ProcessAdapter
from tests.support.jobs import Away, Jobs, one_task, run, writer
from wove import DeliveryTimeoutError
from wove.integrations.base import BackendAdapter


def test_a_job_that_nobody_picks_up_times_out_and_is_cancelled(jobs: Jobs) -> None:
    jobs.configure(MemoryAdapter, delivery_timeout=0.3)
    jobs.ledger.execute = False
    with pytest.raises(DeliveryTimeoutError, match="no worker has started it"):
        run(lambda: 1)
    [run_id] = jobs.ledger.run_ids
    assert jobs.ledger.cancelled == [(run_id, f"job of {run_id}")]


def test_the_timeout_covers_the_running_of_the_task_too(jobs: Jobs, tmp_path: Path) -> None:
    jobs.configure(ProcessAdapter, delivery_timeout=3.0)
    with pytest.raises(DeliveryTimeoutError, match="it has started, but not finished"):
        run(writer(tmp_path / "log", seconds=60.0))


class HangingSubmit(MemoryAdapter):
    async def submit(self, payload: dict[str, Any], frame: dict[str, Any]) -> Any:
        await asyncio.Event().wait()


class BlockingSubmit(MemoryAdapter):
    async def submit(self, payload: dict[str, Any], frame: dict[str, Any]) -> Any:
        time.sleep(3.0)  # noqa: ASYNC251


@pytest.mark.parametrize("adapter_class", [HangingSubmit, BlockingSubmit])
def test_a_submit_that_hangs_or_blocks_times_out(jobs: Jobs, adapter_class: type[BackendAdapter]) -> None:
    jobs.configure(adapter_class, delivery_timeout=0.3)
    before = time.monotonic()
    with pytest.raises(DeliveryTimeoutError):
        run(lambda: 1)
    assert time.monotonic() - before < 2.5


async def test_a_submit_that_blocks_leaves_the_weave_s_loop_free(jobs: Jobs) -> None:
    jobs.configure(BlockingSubmit, delivery_timeout=1.0)
    ticks = 0
    ended = asyncio.Event()

    async def tick() -> None:
        nonlocal ticks
        while not ended.is_set():
            await asyncio.sleep(0.01)
            ticks += 1

    ticking = asyncio.create_task(tick())
    with pytest.raises(DeliveryTimeoutError):
        await one_task()
    ended.set()
    await ticking
    assert ticks >= 50


class HangingCancel(MemoryAdapter):
    async def cancel(self, run_id: str, submission: Any, frame: dict[str, Any]) -> None:
        await asyncio.Event().wait()


@pytest.mark.parametrize("adapter_class", [HangingCancel, MemoryAdapter])
def test_a_cancel_that_hangs_or_raises_does_not_hide_the_timeout(
    jobs: Jobs, adapter_class: type[BackendAdapter]
) -> None:
    jobs.configure(adapter_class, delivery_timeout=0.3)
    jobs.ledger.execute = False
    jobs.ledger.cancel_failure = ConnectionError("broker is gone")
    away = Away(lambda: 1).wait()
    assert isinstance(away.error, DeliveryTimeoutError)
    assert away.seconds < 8.0
