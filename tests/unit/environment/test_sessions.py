"""Executor sessions: who shares an executor, when it starts and stops, what happens when it breaks."""

import asyncio
from typing import Any

import pytest

from tests.support.executors import ScriptedExecutor
from tests.support.virtual_time import in_virtual_time
from wove.environment.orders import Order, make_order
from wove.environment.runs import Outcome
from wove.environment.session_registry import SessionRegistry
from wove.environment.sessions import ExecutorSession
from wove.errors import ConfigurationError, DeliveryOrphanedError, EnvironmentExecutionError, TaskCancelledError
from wove.options import resolve_options


def order(**options: Any) -> Order:
    return make_order(
        environment="jobs",
        task_name="report",
        task_func=len,
        task_args={"obj": "abc"},
        task_info={},
        options=resolve_options(options),
        scope="jobs",
    )


async def opened(registry: SessionRegistry, executor: ScriptedExecutor, name: str = "jobs", **config: Any) -> Any:
    return await registry.open(name, {"executor": executor, "executor_config": config}, run_config={"debug": False})


async def outcome(session: ExecutorSession, wanted: Order) -> Outcome:
    answer: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
    session.submit(wanted, answer.set_result)
    return await answer


@in_virtual_time
async def test_an_instance_is_started_for_the_first_user_and_stopped_with_the_last() -> None:
    registry, executor = SessionRegistry(), ScriptedExecutor()
    first, second = await asyncio.gather(opened(registry, executor), opened(registry, executor))
    assert first is second
    assert executor.starts == 1
    await first.release()
    assert executor.stops == 0
    await second.release()
    assert (executor.starts, executor.stops) == (1, 1)
    await (await opened(registry, executor)).release()
    assert (executor.starts, executor.stops) == (2, 2)


@in_virtual_time
async def test_the_executor_gets_its_configuration() -> None:
    registry, executor = SessionRegistry(), ScriptedExecutor()
    session = await opened(registry, executor, url="x")
    assert executor.config == {"url": "x"}
    assert executor.run_config == {"debug": False}
    await session.release()


async def test_a_named_executor_is_a_new_one_for_each_runtime() -> None:
    registry = SessionRegistry()
    sessions = [await registry.open("here", {"executor": "local"}, run_config={}) for _ in range(2)]
    assert sessions[0] is not sessions[1]
    for session in sessions:
        await session.release()


@in_virtual_time
async def test_a_failed_start_is_raised_and_tried_again_by_the_next_user() -> None:
    registry, executor = SessionRegistry(), ScriptedExecutor()
    executor.start_failure = ConnectionError("broker is gone")
    for _ in range(2):
        with pytest.raises(ConnectionError) as caught:
            await opened(registry, executor)
        assert caught.value.__notes__ == ["Raised while environment 'jobs' was started."]
    executor.start_failure = None
    await (await opened(registry, executor)).release()
    assert (executor.starts, executor.stops) == (1, 1)


@in_virtual_time
async def test_an_instance_in_two_environments_at_once_is_refused_by_name() -> None:
    registry, executor = SessionRegistry(), ScriptedExecutor()
    session = await opened(registry, executor, "jobs")
    with pytest.raises(ConfigurationError, match=r"Environment 'mails'.*in use by environment 'jobs'"):
        await opened(registry, executor, "mails")
    await session.release()
    await (await opened(registry, executor, "mails")).release()


@in_virtual_time
async def test_an_executor_that_can_copy_itself_serves_several_environments() -> None:
    class Copied(ScriptedExecutor):
        copies = 0

        def session_copy(self) -> ScriptedExecutor:
            Copied.copies += 1
            return ScriptedExecutor()

    registry, executor = SessionRegistry(), Copied()
    first, second = await opened(registry, executor, "jobs"), await opened(registry, executor, "mails")
    assert first is not second
    assert (executor.starts, Copied.copies) == (1, 1)
    await first.release()
    await second.release()


@in_virtual_time
async def test_a_broken_executor_fails_every_run_with_its_error_and_starts_again_on_the_next_use() -> None:
    registry, executor = SessionRegistry(), ScriptedExecutor()
    session = await opened(registry, executor)
    waiting = [asyncio.create_task(outcome(session, order())) for _ in range(2)]
    await executor.until_sent("run_task", 2)
    broken = ConnectionResetError("pipe")
    executor.break_down(broken)
    assert [(await each).error for each in waiting] == [broken, broken]
    executor.auto = True
    assert await outcome(session, order()) == Outcome({"obj": "abc"})
    assert (executor.starts, executor.stops) == (2, 1)
    await session.release()


@in_virtual_time
async def test_a_restart_that_fails_is_the_error_of_the_run_that_needed_it() -> None:
    registry, executor = SessionRegistry(), ScriptedExecutor()
    session = await opened(registry, executor)
    executor.break_down(ConnectionResetError("pipe"))
    await asyncio.sleep(1.0)
    executor.start_failure = refusal = ConnectionError("still gone")
    assert (await outcome(session, order())).error is refusal
    await session.release()


@in_virtual_time
async def test_a_restart_waits_for_the_end_of_the_broken_session() -> None:
    registry, executor = SessionRegistry(), ScriptedExecutor(auto=True)
    session = await opened(registry, executor)
    executor.seconds = 1.0
    executor.break_down(ConnectionResetError("pipe"))
    await asyncio.sleep(0.1)
    assert await outcome(session, order()) == Outcome({"obj": "abc"})
    assert asyncio.get_running_loop().time() >= 2.0
    await session.release()


@in_virtual_time
async def test_equal_keys_that_wait_for_the_same_restart_run_once() -> None:
    registry, executor = SessionRegistry(), ScriptedExecutor()
    session = await opened(registry, executor)
    executor.break_down(ConnectionResetError("pipe"))
    await asyncio.sleep(0.1)
    wanted = order(delivery_idempotency_key="k")
    waiting = [asyncio.create_task(outcome(session, wanted)) for _ in range(2)]
    await asyncio.sleep(0.1)
    [run_id] = executor.of_type("run_task")
    executor.emit("task_result", run_id, result=3)
    assert [await each for each in waiting] == [Outcome(3), Outcome(3)]
    await session.release()


@in_virtual_time
async def test_an_order_that_is_given_up_during_a_restart_is_never_sent() -> None:
    registry, executor = SessionRegistry(), ScriptedExecutor()
    session = await opened(registry, executor)
    executor.seconds = 1.0
    executor.break_down(ConnectionResetError("pipe"))
    await asyncio.sleep(0.1)
    replies: list[Outcome] = []
    submission = session.submit(order(), replies.append)
    reason = TaskCancelledError("report")
    submission.leave(reason)
    await asyncio.sleep(10.0)
    assert replies == [Outcome(error=reason)]
    assert executor.commands == []
    await session.release()


@in_virtual_time
async def test_an_executor_that_cancels_its_own_recv_is_broken() -> None:
    registry, executor = SessionRegistry(), ScriptedExecutor()
    session = await opened(registry, executor)
    waiting = asyncio.create_task(outcome(session, order()))
    await executor.until_sent("run_task")
    executor.break_down(asyncio.CancelledError())
    assert isinstance((await waiting).error, EnvironmentExecutionError)
    await session.release()


@in_virtual_time
async def test_an_event_that_names_no_run_breaks_the_executor() -> None:
    registry, executor = SessionRegistry(), ScriptedExecutor()
    session = await opened(registry, executor)
    waiting = asyncio.create_task(outcome(session, order()))
    await executor.until_sent("run_task")
    executor.emit_anything({"type": "task_result", "result": 3})
    error = (await waiting).error
    assert isinstance(error, EnvironmentExecutionError)
    assert "'run_id'" in str(error)
    await session.release()


@in_virtual_time
async def test_a_stop_that_raises_harms_nobody() -> None:
    registry, executor = SessionRegistry(), ScriptedExecutor()
    executor.stop_failure = OSError("already gone")
    session = await opened(registry, executor)
    await session.release()
    assert executor.stops == 1


@in_virtual_time
async def test_equal_keys_run_once_and_answer_both() -> None:
    registry, executor = SessionRegistry(), ScriptedExecutor()
    session = await opened(registry, executor)
    wanted = order(delivery_idempotency_key="k")
    waiting = [asyncio.create_task(outcome(session, wanted)) for _ in range(2)]
    run_id = await executor.until_sent("run_task")
    await asyncio.sleep(1.0)
    executor.emit("task_result", run_id, result=3)
    assert [await each for each in waiting] == [Outcome(3), Outcome(3)]
    assert len(executor.of_type("run_task")) == 1
    await session.release()


@in_virtual_time
async def test_a_key_runs_again_once_its_run_has_ended() -> None:
    registry, executor = SessionRegistry(), ScriptedExecutor(auto=True)
    session = await opened(registry, executor)
    for _ in range(2):
        await outcome(session, order(delivery_idempotency_key="k"))
    assert len(executor.of_type("run_task")) == 2
    await session.release()


@in_virtual_time
async def test_different_keys_run_each() -> None:
    registry, executor = SessionRegistry(), ScriptedExecutor(auto=True)
    session = await opened(registry, executor)
    await asyncio.gather(*(outcome(session, order(delivery_idempotency_key=f"k{n}")) for n in range(2)))
    assert len(executor.of_type("run_task")) == 2
    await session.release()


@in_virtual_time
async def test_one_sharer_s_cancellation_is_not_the_other_s() -> None:
    registry, executor = SessionRegistry(), ScriptedExecutor()
    session = await opened(registry, executor)
    wanted = order(delivery_idempotency_key="k")
    replies: list[Outcome] = []
    submission = session.submit(wanted, replies.append)
    waiting = asyncio.create_task(outcome(session, wanted))
    run_id = await executor.until_sent("run_task")
    reason = TaskCancelledError("report")
    submission.leave(reason)
    assert replies == [Outcome(error=reason)]
    executor.emit("task_result", run_id, result=3)
    assert await waiting == Outcome(3)
    assert executor.of_type("cancel_task") == []
    await session.release()


@in_virtual_time
async def test_a_shared_run_survives_the_session_of_the_weave_that_submitted_it() -> None:
    registry, first, second = SessionRegistry(), ScriptedExecutor(), ScriptedExecutor()
    submitter, sharer = await opened(registry, first, "jobs"), await opened(registry, second, "jobs-too")
    wanted = order(delivery_idempotency_key="k")
    submission = submitter.submit(wanted, lambda _: None)
    waiting = asyncio.create_task(outcome(sharer, wanted))
    run_id = await first.until_sent("run_task")
    submission.leave(TaskCancelledError("report"))
    await submitter.release()
    assert first.stops == 0
    first.emit("task_result", run_id, result=3)
    assert await waiting == Outcome(3)
    await asyncio.sleep(0.1)
    assert first.stops == 1
    await sharer.release()


@in_virtual_time
async def test_closing_the_registry_orphans_what_is_in_flight() -> None:
    registry, executor = SessionRegistry(), ScriptedExecutor()
    session = await opened(registry, executor)
    waiting = asyncio.create_task(outcome(session, order()))
    run_id = await executor.until_sent("run_task")
    await registry.close()
    assert isinstance((await waiting).error, DeliveryOrphanedError)
    assert executor.of_type("cancel_task") == [run_id]
    assert executor.stops == 1
    await session.release()
    assert executor.stops == 1


@in_virtual_time
async def test_an_order_that_comes_after_the_shutdown_starts_nothing() -> None:
    registry, executor = SessionRegistry(), ScriptedExecutor()
    session = await opened(registry, executor)
    await registry.close()
    assert isinstance((await outcome(session, order())).error, DeliveryOrphanedError)
    assert (executor.starts, executor.stops) == (1, 1)


@in_virtual_time
async def test_a_burst_of_events_leaves_room_for_timers() -> None:
    registry, executor = SessionRegistry(), ScriptedExecutor()
    session = await opened(registry, executor)
    ticks = 0

    async def tick() -> None:
        nonlocal ticks
        while True:
            await asyncio.sleep(0)
            ticks += 1

    for _ in range(6400):
        executor.emit("heartbeat", "nobody")
    ticking = asyncio.create_task(tick())
    waiting = asyncio.create_task(outcome(session, order()))
    run_id = await executor.until_sent("run_task")
    executor.emit("task_result", run_id, result=3)
    await waiting
    assert ticks >= 100
    ticking.cancel()
    await session.release()
