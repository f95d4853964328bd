"""The shell around the state machine: real executors' calls, timers, failures, in virtual time."""

import asyncio
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from tests.support.executors import PolledExecutor, ScriptedExecutor
from tests.support.virtual_time import in_virtual_time
from wove.environment.delivery import Delivery
from wove.environment.orders import Order, make_order, new_run_id
from wove.environment.runs import Outcome
from wove.errors import (
    DeliveryError,
    DeliveryOrphanedError,
    DeliveryTimeoutError,
    EnvironmentExecutionError,
    RemoteTraceback,
    TaskCancelledError,
)
from wove.integrations.base import JobState
from wove.options import resolve_options
from wove.plugins import hookimpl, register, unregister


def order(*, task: str = "report", attempt: int = 1, item: int | None = None, **options: Any) -> Order:
    return make_order(
        environment="jobs",
        task_name=task,
        task_func=len,
        task_args={"obj": "abc"},
        task_info={"attempt": attempt, "item": item},
        options=resolve_options(options),
    )


class Desk:
    """A delivery with a scripted executor, and the replies that it gave."""

    def __init__(self, executor: ScriptedExecutor) -> None:
        self.executor = executor
        self.closed: list[str] = []
        self.delivery = Delivery(executor, environment="jobs", closed=lambda _, ticket: self.closed.append(ticket))
        self._pump = asyncio.get_running_loop().create_task(self._receive())

    async def _receive(self) -> None:
        while True:
            self.delivery.receive(await self.executor.recv())

    def open(self, wanted: Order) -> "tuple[str, asyncio.Future[Outcome]]":
        answer: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        return self.delivery.open(wanted, answer.set_result), answer

    async def outcome(self, wanted: Order) -> Outcome:
        return await self.open(wanted)[1]

    async def error(self, wanted: Order) -> BaseException:
        error = (await self.outcome(wanted)).error
        assert error is not None
        return error

    async def close(self) -> None:
        await self.delivery.close(DeliveryOrphanedError("closed"))
        self._pump.cancel()


async def desk(executor: ScriptedExecutor | None = None) -> Desk:
    executor = executor or ScriptedExecutor()
    await executor.start(environment_name="jobs", environment_config={}, run_config={})
    return Desk(executor)


def replier(replies: list[Outcome]) -> Callable[[Outcome], None]:
    return replies.append


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


@in_virtual_time
async def test_the_remote_traceback_is_the_cause_of_the_raised_exception() -> None:
    at = await desk()
    ticket, answer = at.open(order())
    raised = ValueError("bad")
    at.executor.emit("task_error", ticket, exception=raised, error={"kind": "ValueError", "traceback": "File x"})
    assert (await answer).error is raised
    assert isinstance(raised.__cause__, RemoteTraceback)
    await at.close()


@in_virtual_time
async def test_an_error_without_an_exception_becomes_an_execution_error() -> None:
    at = await desk()
    ticket, answer = at.open(order())
    at.executor.emit("task_error", ticket, error={"kind": "Oops", "message": "no"})
    error = (await answer).error
    assert isinstance(error, EnvironmentExecutionError)
    assert error.payload["kind"] == "Oops"
    await at.close()


@in_virtual_time
async def test_a_cancellation_that_nobody_asked_for_is_an_error() -> None:
    at = await desk()
    ticket, answer = at.open(order())
    at.executor.emit("task_cancelled", ticket)
    assert isinstance((await answer).error, TaskCancelledError)
    await at.close()


@in_virtual_time
async def test_an_unknown_event_type_fails_that_run_and_names_the_type() -> None:
    at = await desk()
    first, answer = at.open(order())
    second, other = at.open(order())
    at.executor.emit("task_exploded", first)
    error = (await answer).error
    assert isinstance(error, EnvironmentExecutionError)
    assert "'task_exploded'" in str(error)
    at.executor.emit("task_result", second, result=3)
    assert await other == Outcome(3)
    await at.close()


@in_virtual_time
async def test_a_result_event_without_a_result_is_an_error_that_shows_what_it_has() -> None:
    at = await desk()
    ticket, answer = at.open(order())
    at.executor.emit("task_result", ticket, value=3)
    error = (await answer).error
    assert isinstance(error, EnvironmentExecutionError)
    assert "task_result without 'result'; it has: run_id, task_id, type, value" in str(error)
    await at.close()


@in_virtual_time
async def test_events_of_unknown_runs_are_ignored() -> None:
    at = await desk()
    ticket, answer = at.open(order())
    at.executor.emit("task_result", "somebody-else", result=1)
    at.executor.emit("task_exploded", "somebody-else")
    at.executor.emit("task_result", ticket, result=3)
    assert await answer == Outcome(3)
    await at.close()


@pytest.mark.parametrize("frame", [None, "task_result", {"type": "task_result"}, {"type": "heartbeat", "run_id": 3}])
@in_virtual_time
async def test_an_event_that_names_no_run_is_a_broken_executor(frame: object) -> None:
    at = await desk()
    with pytest.raises(EnvironmentExecutionError, match="'run_id'"):
        at.delivery.receive(frame)
    await at.close()


@pytest.mark.parametrize("level", [logging.WARNING, "WARNING", "warning"])
@in_virtual_time
async def test_log_events_appear_under_the_task_s_logger(caplog: pytest.LogCaptureFixture, level: int | str) -> None:
    at = await desk()
    ticket, answer = at.open(order(task="report"))
    at.executor.emit("log", ticket, message="half done: 50%", level=level)
    at.executor.emit("task_result", ticket, result=3)
    await answer
    [record] = [record for record in caplog.records if record.name == "wove.task.report"]
    assert (record.getMessage(), record.levelno) == ("half done: 50%", logging.WARNING)
    await at.close()


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


@contextmanager
def listening() -> Iterator[list[tuple[str, ...]]]:
    """Yield what a plugin hears."""
    heard: list[tuple[str, ...]] = []

    class Listener:
        @hookimpl
        def wove_task_submitted(self, weave: str, task: str, run_id: str, environment: str) -> None:
            heard.append(("submitted", weave, task, run_id, environment))

        @hookimpl
        def wove_event_received(self, weave: str, task: str, run_id: str, event_type: str) -> None:
            heard.append(("received", task, run_id, event_type))

    register(Listener(), "listener")
    try:
        yield heard
    finally:
        unregister("listener")


@in_virtual_time
async def test_plugins_hear_of_submissions_and_events() -> None:
    with listening() as heard:
        at = await desk()
        ticket, answer = at.open(order())
        await asyncio.sleep(0.1)
        at.executor.emit("task_started", ticket)
        at.executor.emit("task_result", ticket, result=3)
        await answer
        await at.close()
    assert heard == [
        ("submitted", "", "report", ticket, "jobs"),
        ("received", "report", ticket, "task_started"),
        ("received", "report", ticket, "task_result"),
    ]


@in_virtual_time
async def test_plugins_hear_once_of_a_submission_that_a_fast_worker_overtakes() -> None:
    with listening() as heard:
        at = await desk()
        sent = at.executor.hold["run_task"] = asyncio.Event()
        ticket, answer = at.open(order())
        await asyncio.sleep(0.1)
        at.executor.emit("task_started", ticket)
        await asyncio.sleep(0.1)
        sent.set()
        await asyncio.sleep(0.1)
        at.executor.emit("task_result", ticket, result=3)
        await answer
        await at.close()
    assert heard == [
        ("submitted", "", "report", ticket, "jobs"),
        ("received", "report", ticket, "task_started"),
        ("received", "report", ticket, "task_result"),
    ]


@pytest.mark.parametrize(
    "name", ["report", "A_very Long/name.with everything in it, and more", "täsk", "任务", "__x__", "-"]
)
def test_run_ids_are_legal_everywhere(name: str) -> None:
    run_id = new_run_id(name)
    assert len(run_id) <= 63
    assert set(run_id) <= set("abcdefghijklmnopqrstuvwxyz0123456789-")
    assert run_id[0].isalnum()
    assert run_id[-1].isalnum()
    assert new_run_id(name) != run_id
