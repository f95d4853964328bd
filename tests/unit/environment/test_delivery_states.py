"""What a delivery asks a backend about its jobs, when, and what it makes of the answers."""

import asyncio
import logging

import pytest

from tests.support.desk import desk, order, replier
from tests.support.executors import PolledExecutor
from tests.support.virtual_time import in_virtual_time
from wove.environment.runs import Outcome
from wove.errors import DeliveryOrphanedError, TaskCancelledError
from wove.integrations.base import JobState


@in_virtual_time
async def test_a_dead_job_is_noticed_by_asking() -> None:
    executor = PolledExecutor()
    at = await desk(executor)
    _, answer = at.open(order())
    run_id = await executor.until_sent("run_task")
    executor.states[run_id] = JobState("failed", exit_code=137, reason="OOMKilled")
    error = (await answer).error
    assert isinstance(error, DeliveryOrphanedError)
    assert (error.state, error.exit_code, error.reason) == ("failed", 137, "OOMKilled")
    # Asked after five seconds, and given a grace of five more.
    assert asyncio.get_running_loop().time() == pytest.approx(10.0)
    await at.close()


@in_virtual_time
async def test_one_question_covers_all_runs_and_none_is_asked_when_nothing_is_in_flight() -> None:
    executor = PolledExecutor()
    at = await desk(executor)
    tickets = [at.open(order())[0] for _ in range(3)]
    await asyncio.sleep(5.5)
    assert [sorted(runs) for _, runs in executor.questions] == [sorted(tickets)]
    for ticket in tickets:
        executor.emit("task_result", ticket, result=3)
    await asyncio.sleep(100.0)
    assert len(executor.questions) == 1
    await at.close()


@in_virtual_time
async def test_a_backend_that_cannot_answer_fails_no_task_and_is_asked_less_often(
    caplog: pytest.LogCaptureFixture,
) -> None:
    executor = PolledExecutor()
    executor.probe_failure = ConnectionError("broker is gone")
    at = await desk(executor)
    ticket, answer = at.open(order())
    await asyncio.sleep(300.0)
    assert len(executor.questions) <= 8
    assert sum(record.levelno >= logging.WARNING for record in caplog.records) == 1
    executor.emit("task_result", ticket, result=3)
    assert await answer == Outcome(3)
    await at.close()


@in_virtual_time
async def test_a_cancel_that_must_be_confirmed_is_asked_about_at_once() -> None:
    executor = PolledExecutor()
    at = await desk(executor)
    replies: list[Outcome] = []
    reply = replier(replies)
    ticket = at.delivery.open(order(delivery_cancel_mode="require_ack"), reply)
    await executor.until_sent("run_task")
    await asyncio.sleep(1.0)
    executor.states[ticket] = JobState("cancelled")
    at.delivery.leave(ticket, reply, TaskCancelledError("report"))
    await asyncio.sleep(0.6)
    assert len(replies) == 1
    await at.close()


@in_virtual_time
async def test_news_that_the_backend_pushes_count_like_answers() -> None:
    at = await desk()
    ticket, answer = at.open(order())
    at.executor.emit("job_state", ticket, state=JobState("gone"))
    assert isinstance((await answer).error, DeliveryOrphanedError)
    await at.close()
