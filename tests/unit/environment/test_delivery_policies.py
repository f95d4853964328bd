"""How a delivery stops a run that it gives up, and what it does about one that is lost."""

import asyncio

import pytest

from tests.support.desk import desk, order
from tests.support.virtual_time import in_virtual_time
from wove.environment.runs import Outcome
from wove.errors import DeliveryTimeoutError


@pytest.mark.parametrize("trouble", ["hangs", "raises"])
@in_virtual_time
async def test_a_timeout_is_reported_whatever_cancel_does(trouble: str) -> None:
    at = await desk()
    if trouble == "hangs":
        at.executor.hold["cancel_task"] = asyncio.Event()
    else:
        at.executor.failures["cancel_task"] = ConnectionError("broker is gone")
    assert isinstance(await at.error(order(delivery_timeout=1.0)), DeliveryTimeoutError)
    assert asyncio.get_running_loop().time() == pytest.approx(1.0)
    run_id = await at.executor.until_sent("cancel_task")
    await at.close()
    assert at.executor.closed_runs == [run_id]


@in_virtual_time
async def test_a_cancel_is_sent_with_its_policy() -> None:
    at = await desk()
    await at.error(order(delivery_timeout=1.0, delivery_cancel_mode="require_ack"))
    assert at.executor.commands[1] == {
        "type": "cancel_task",
        "run_id": at.executor.commands[0]["run_id"],
        "task_id": "report",
        "delivery_cancel_mode": "require_ack",
        "delivery_orphan_policy": "cancel",
    }
    await at.close()


@in_virtual_time
async def test_require_ack_waits_for_the_confirmation() -> None:
    at = await desk()
    ticket, answer = at.open(order(delivery_timeout=1.0, delivery_cancel_mode="require_ack"))
    await at.executor.until_sent("cancel_task")
    await asyncio.sleep(2.0)
    assert not answer.done()
    at.executor.emit("task_cancelled", ticket)
    assert isinstance((await answer).error, DeliveryTimeoutError)
    assert asyncio.get_running_loop().time() == pytest.approx(3.0)
    await at.close()


@in_virtual_time
async def test_require_ack_waits_five_seconds_at_most() -> None:
    at = await desk()
    error = await at.error(order(delivery_timeout=1.0, delivery_cancel_mode="require_ack"))
    assert asyncio.get_running_loop().time() == pytest.approx(6.0)
    assert "Nothing confirmed" in error.__notes__[0]
    await at.close()


@in_virtual_time
async def test_a_lost_run_is_requeued_once() -> None:
    at = await desk()
    _, answer = at.open(order(delivery_heartbeat_seconds=2.0, delivery_orphan_policy="requeue"))
    first = await at.executor.until_sent("run_task")
    at.executor.emit("task_started", first)
    second = await at.executor.until_sent("run_task", 2)
    assert second != first
    assert [frame["type"] for frame in at.executor.commands] == ["run_task", "cancel_task", "run_task"]
    at.executor.emit("task_result", first, result="late")
    at.executor.emit("task_result", second, result=3)
    assert await answer == Outcome(3)
    await at.close()


@in_virtual_time
async def test_fail_asks_nobody_to_stop_but_closes_the_door() -> None:
    at = await desk()
    await at.error(order(delivery_timeout=1.0, delivery_orphan_policy="fail"))
    await asyncio.sleep(1.0)
    assert at.executor.of_type("cancel_task") == []
    assert at.executor.closed_runs == at.executor.of_type("run_task")
    await at.close()


@in_virtual_time
async def test_detach_leaves_the_run_alone_altogether() -> None:
    at = await desk()
    await at.error(order(delivery_timeout=1.0, delivery_orphan_policy="detach"))
    await at.close()
    assert at.executor.of_type("cancel_task") == []
    assert at.executor.closed_runs == []
