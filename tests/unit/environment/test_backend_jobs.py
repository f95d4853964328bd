"""What the executor of backend adapters does about jobs in flight: cancels, dead ones, a link that breaks."""

import asyncio
import time
from collections.abc import Mapping
from typing import Any

import pytest

from tests.support.adapters import Ledger, MemoryAdapter, PolledAdapter, PromptAdapter, WatchedAdapter
from tests.support.backend_runtime import Weaving, double, eventually
from wove.backend.loop import io_loop, on_io_loop
from wove.backend.receiver import ReceiverSession, open_receiver_session
from wove.errors import DeliveryOrphanedError, DeliveryTimeoutError
from wove.integrations.base import BackendAdapter, JobState


async def test_a_cancel_reaches_the_adapter_once_with_its_handle(ledger: Ledger) -> None:
    ledger.execute = False
    async with Weaving(ledger) as at:
        with pytest.raises(DeliveryTimeoutError, match="no worker has started it"):
            await at.run(double, {"value": 1}, delivery_timeout=0.1)
    [run_id] = ledger.run_ids
    assert ledger.cancelled == [(run_id, f"job of {run_id}")]


async def test_a_submission_that_is_stuck_times_out_and_is_cancelled_when_it_comes_through_after_all(
    ledger: Ledger,
) -> None:
    ledger.hold = asyncio.Event()
    ledger.execute = False
    async with Weaving(ledger) as at:
        with pytest.raises(DeliveryTimeoutError, match="not accepted it yet"):
            await at.run(double, {"value": 1}, delivery_timeout=0.1)
    # The weave is over; the link goes on for a while.
    io_loop().loop.call_soon_threadsafe(ledger.hold.set)
    await eventually(lambda: ledger.cancelled)
    [run_id] = ledger.run_ids
    assert ledger.cancelled == [(run_id, f"job of {run_id}")]


async def test_a_task_that_comes_alone_is_submitted_at_once_where_the_adapter_can(ledger: Ledger) -> None:
    async with Weaving(ledger, PromptAdapter) as at:
        assert [await at.run(double, {"value": item}) for item in range(3)] == [0, 2, 4]
    assert (len(ledger.at_once), ledger.payloads) == (3, [])


async def test_a_task_that_is_refused_at_once_fails_with_that_error(ledger: Ledger) -> None:
    ledger.submit_failure = ConnectionError("broker is gone")
    async with Weaving(ledger, PromptAdapter) as at:
        with pytest.raises(ConnectionError, match="broker is gone") as caught:
            await at.run(double, {"value": 1})
    assert caught.value is ledger.submit_failure
    assert (len(ledger.at_once), ledger.cancelled) == (1, [])


async def test_a_cancel_reaches_the_adapter_with_the_handle_of_what_was_submitted_at_once(ledger: Ledger) -> None:
    ledger.execute = False
    async with Weaving(ledger, PromptAdapter) as at:
        with pytest.raises(DeliveryTimeoutError, match="no worker has started it"):
            await at.run(double, {"value": 1}, delivery_timeout=0.1)
    [run_id] = ledger.at_once
    assert ledger.cancelled == [(run_id, f"job of {run_id}")]


async def test_a_failing_cancel_changes_nothing(ledger: Ledger) -> None:
    ledger.execute = False
    ledger.cancel_failure = ConnectionError("broker is gone")
    async with Weaving(ledger) as at:
        with pytest.raises(DeliveryTimeoutError):
            await at.run(double, {"value": 1}, delivery_timeout=0.1)
    assert len(ledger.cancelled) == 1


@pytest.mark.parametrize("adapter_class", [PolledAdapter, WatchedAdapter])
async def test_a_dead_job_is_noticed(ledger: Ledger, adapter_class: type[BackendAdapter]) -> None:
    ledger.execute = False
    async with Weaving(ledger, adapter_class, dead_job_grace=0.1) as at:
        task = asyncio.create_task(at.run(double, {"value": 1}))
        await eventually(lambda: ledger.run_ids)
        ledger.states[ledger.run_ids[0]] = JobState("failed", exit_code=137, reason="OOMKilled")
        with pytest.raises(DeliveryOrphanedError, match="exit code 137: OOMKilled"):
            await task


async def test_a_result_that_comes_within_the_grace_counts(ledger: Ledger) -> None:
    ledger.states["*"] = JobState("finished")
    async with Weaving(ledger, PolledAdapter, dead_job_grace=30.0) as at:
        assert await at.run(double_slowly, {"value": 1}) == 2
    assert ledger.polls != []


class ListeningAdapter(MemoryAdapter):
    """One that wants to know which runs have begun."""

    def heard(self, run_id: str, event_type: str) -> None:
        self.ledger.heard.append((run_id, event_type))


async def test_an_adapter_hears_of_each_event_of_its_runs(ledger: Ledger) -> None:
    async with Weaving(ledger, ListeningAdapter) as at:
        assert await at.run(double, {"value": 1}) == 2
    (run_id,) = ledger.run_ids
    assert ledger.heard == [(run_id, "task_started"), (run_id, "task_result")]


def double_slowly(value: int) -> int:
    time.sleep(0.3)
    return 2 * value


async def test_jobs_are_asked_about_in_bulk_and_only_while_some_are_in_flight(ledger: Ledger) -> None:
    ledger.execute = False
    async with Weaving(ledger, PolledAdapter) as at:
        tasks = [asyncio.create_task(at.run(double, {"value": 1})) for _ in range(3)]
        await eventually(lambda: ledger.polls and len(ledger.polls[-1]) == 3)
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        await on_io_loop(asyncio.sleep(0.1))
        asked = len(ledger.polls)
        await on_io_loop(asyncio.sleep(0.2))
        assert len(ledger.polls) == asked


async def test_a_broken_link_fails_its_runs_and_the_next_weave_gets_a_new_one(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    sessions: list[ReceiverSession] = []

    async def remembered(config: Mapping[str, Any]) -> ReceiverSession:
        sessions.append(await open_receiver_session(config))
        return sessions[-1]

    monkeypatch.setattr("wove.backend.receiver.open_receiver_session", remembered)
    ledger.execute = False
    async with Weaving(ledger) as at:
        task = asyncio.create_task(at.run(double, {"value": 1}))
        await eventually(lambda: ledger.run_ids)
        await on_io_loop(sessions[0].close())
        with pytest.raises(RuntimeError, match="closed"):
            await task
    ledger.execute = True
    async with Weaving(ledger) as at:
        assert await at.run(double, {"value": 1}) == 2
    assert len(ledger.started) == 2
