"""The shell around the state machine: submitting, sharing a run, attempts and closing, in virtual time."""

import asyncio

import pytest

from tests.support.desk import desk, order, replier
from tests.support.virtual_time import in_virtual_time
from wove.environment.runs import Outcome
from wove.errors import DeliveryError, DeliveryOrphanedError, DeliveryTimeoutError, TaskCancelledError

# --- submitting ---


@in_virtual_time
async def test_a_run_is_sent_as_a_frame_and_answered_with_its_result() -> None:
    at = await desk()
    ticket, answer = at.open(order(delivery_timeout=30.0, delivery_cancel_mode="best_effort"))
    run_id = await at.executor.until_sent("run_task")
    [frame] = at.executor.commands
    assert run_id == ticket
    assert frame["task_id"] == frame["task_name"] == "report"
    assert frame["callable"] is len
    assert frame["args"] == {"obj": "abc"}
    assert frame["delivery"] == {"delivery_timeout": 30.0}
    at.executor.emit("task_started", run_id)
    at.executor.emit("task_result", run_id, result=3)
    assert await answer == Outcome(3)
    assert at.executor.closed_runs == [run_id]
    await at.close()


@in_virtual_time
async def test_a_stuck_submit_ends_with_a_timeout_and_is_stopped() -> None:
    at = await desk()
    at.executor.hold["run_task"] = asyncio.Event()
    error = await at.error(order(delivery_timeout=1.0))
    assert isinstance(error, DeliveryTimeoutError)
    assert "has not accepted it yet" in str(error)
    assert asyncio.get_running_loop().time() == pytest.approx(1.0)
    await at.close()


@in_virtual_time
async def test_a_refused_submit_is_the_task_s_own_error() -> None:
    at = await desk()
    at.executor.failures["run_task"] = refusal = ConnectionError("broker is gone")
    assert await at.error(order()) is refusal
    assert at.executor.of_type("cancel_task") == []
    await at.close()


@in_virtual_time
async def test_a_submit_that_cancels_itself_is_an_error_and_no_cancellation() -> None:
    at = await desk()
    at.executor.failures["run_task"] = asyncio.CancelledError()
    assert isinstance(await at.error(order()), DeliveryError)
    await at.close()


# --- sharing a run ---


@in_virtual_time
async def test_the_last_one_who_leaves_gives_the_run_up() -> None:
    at = await desk()
    replies: list[Outcome] = []
    reply, other = replier(replies), replier([])
    ticket = at.delivery.open(order(), reply)
    at.delivery.join(ticket, other)
    await at.executor.until_sent("run_task")
    at.delivery.leave(ticket, other, TaskCancelledError("report"))
    assert ticket in at.delivery
    reason = TaskCancelledError("report")
    at.delivery.leave(ticket, reply, reason)
    assert replies == [Outcome(error=reason)]
    assert await at.executor.until_sent("cancel_task") == ticket
    await at.close()


@in_virtual_time
async def test_all_who_share_a_run_get_its_outcome() -> None:
    at = await desk()
    first: list[Outcome] = []
    second: list[Outcome] = []
    ticket = at.delivery.open(order(), first.append)
    at.delivery.join(ticket, second.append)
    at.executor.emit("task_result", ticket, result=3)
    await asyncio.sleep(1.0)
    assert first == second == [Outcome(3)]
    assert at.closed == [ticket]
    await at.close()


@in_virtual_time
async def test_a_run_that_is_being_stopped_can_be_joined_no_more() -> None:
    at = await desk()
    ticket, answer = at.open(order(delivery_timeout=1.0, delivery_cancel_mode="require_ack"))
    await at.executor.until_sent("cancel_task")
    assert not answer.done()
    assert at.closed == [ticket]
    await at.close()


# --- attempts ---


@in_virtual_time
async def test_a_later_attempt_starts_after_the_cancel_of_the_earlier_one() -> None:
    at = await desk()
    at.executor.hold["cancel_task"] = asyncio.Event()
    await at.error(order(delivery_timeout=1.0))
    await at.executor.until_sent("cancel_task")
    _, answer = at.open(order(attempt=2))
    await asyncio.sleep(0.5)
    assert len(at.executor.of_type("run_task")) == 1
    at.executor.hold["cancel_task"].set()
    second = await at.executor.until_sent("run_task", 2)
    at.executor.emit("task_result", second, result=3)
    assert await answer == Outcome(3)
    await at.close()


@in_virtual_time
async def test_another_item_does_not_wait_for_that_cancel() -> None:
    at = await desk()
    at.executor.hold["cancel_task"] = asyncio.Event()
    await at.error(order(delivery_timeout=1.0, item=0))
    await at.executor.until_sent("cancel_task")
    at.open(order(attempt=2, item=1))
    before = asyncio.get_running_loop().time()
    await at.executor.until_sent("run_task", 2)
    assert asyncio.get_running_loop().time() == before
    await at.close()


@in_virtual_time
async def test_an_attempt_that_is_cancelled_while_it_waits_is_never_sent() -> None:
    at = await desk()
    at.executor.hold["cancel_task"] = asyncio.Event()
    await at.error(order(delivery_timeout=1.0))
    await at.executor.until_sent("cancel_task")
    reply = replier([])
    ticket = at.delivery.open(order(attempt=2), reply)
    at.delivery.leave(ticket, reply, TaskCancelledError("report"))
    at.executor.hold["cancel_task"].set()
    await asyncio.sleep(10.0)
    assert len(at.executor.of_type("run_task")) == 1
    await at.close()


# --- closing ---


@in_virtual_time
async def test_closing_orphans_what_is_in_flight_and_cancels_it() -> None:
    at = await desk()
    ticket, answer = at.open(order())
    await at.executor.until_sent("run_task")
    await at.close()
    assert isinstance((await answer).error, DeliveryOrphanedError)
    assert at.executor.of_type("cancel_task") == [ticket]


@in_virtual_time
async def test_closing_waits_for_a_hanging_cancel_five_seconds_at_most() -> None:
    at = await desk()
    at.executor.hold["cancel_task"] = asyncio.Event()
    at.open(order())
    await at.executor.until_sent("run_task")
    await at.close()
    assert asyncio.get_running_loop().time() <= 6.0
    assert len(asyncio.all_tasks()) <= 2
