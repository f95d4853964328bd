"""Tasks in this process."""

import asyncio
import contextvars
import threading
from typing import Any

import pytest

from wove.environment.local import LocalEnvironmentExecutor, call_in_place

color = contextvars.ContextVar("color", default="none")


async def started() -> LocalEnvironmentExecutor:
    executor = LocalEnvironmentExecutor()
    await executor.start(environment_name="default", environment_config={}, run_config={})
    return executor


def run_frame(function: Any, **args: Any) -> dict[str, Any]:
    return {"type": "run_task", "run_id": "r", "task_id": "t", "callable": function, "args": args}


async def test_a_coroutine_function_runs_on_the_loop() -> None:
    async def where(value: int) -> tuple[int, threading.Thread]:
        return value, threading.current_thread()

    assert await call_in_place(where, {"value": 1}) == (1, threading.current_thread())


async def test_a_plain_function_runs_in_a_daemon_thread() -> None:
    thread = await call_in_place(threading.current_thread, {})
    assert thread is not threading.current_thread()
    assert thread.daemon


async def test_a_plain_function_that_returns_a_coroutine_is_awaited() -> None:
    async def value() -> int:
        return 1

    assert await call_in_place(lambda: value(), {}) == 1


async def test_a_thread_sees_the_caller_s_context() -> None:
    token = color.set("red")
    assert await call_in_place(color.get, {}) == "red"
    color.reset(token)


async def test_what_a_function_raises_is_raised() -> None:
    with pytest.raises(ZeroDivisionError):
        await call_in_place(lambda: 1 // 0, {})


async def test_stop_iteration_does_not_vanish() -> None:
    def stop() -> None:
        raise StopIteration

    with pytest.raises(RuntimeError, match="StopIteration"):
        await call_in_place(stop, {})


async def test_nobody_waits_for_a_cancelled_function() -> None:
    ended = threading.Event()
    running = threading.Event()

    def block() -> None:
        running.set()
        ended.wait(30)

    task = asyncio.create_task(call_in_place(block, {}))
    assert await asyncio.to_thread(running.wait, 30)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    ended.set()


async def test_a_run_starts_and_returns() -> None:
    executor = await started()
    await executor.send(run_frame(lambda value: value + 1, value=1))
    assert await executor.recv() == {"type": "task_started", "run_id": "r", "task_id": "t"}
    assert await executor.recv() == {"type": "task_result", "run_id": "r", "task_id": "t", "result": 2}
    await executor.stop()


async def test_a_failure_is_an_event_with_exception_and_description() -> None:
    executor = await started()
    await executor.send(run_frame(lambda: 1 // 0))
    await executor.recv()
    event = await executor.recv()
    assert event["type"] == "task_error"
    assert isinstance(event["exception"], ZeroDivisionError)
    assert event["error"]["kind"] == "ZeroDivisionError"
    await executor.stop()


@pytest.mark.parametrize("how", ["cancel_task", "shutdown"])
async def test_a_run_can_be_cancelled(how: str) -> None:
    async def forever() -> None:
        await asyncio.Event().wait()

    executor = await started()
    await executor.send(run_frame(forever))
    await executor.recv()
    await executor.send({"type": how, "run_id": "r", "task_id": "t"})
    assert (await executor.recv())["type"] == "task_cancelled"
    await executor.stop()


async def test_cancelling_an_unknown_run_does_nothing() -> None:
    executor = await started()
    await executor.send({"type": "cancel_task", "run_id": "other", "task_id": "t"})
    await executor.stop()


async def test_sending_before_the_start_is_an_error() -> None:
    with pytest.raises(RuntimeError, match="before start"):
        await LocalEnvironmentExecutor().send(run_frame(len, obj=""))


async def test_an_unknown_command_is_an_error_that_suggests_the_right_one() -> None:
    executor = await started()
    with pytest.raises(ValueError, match="Did you mean 'run_task'"):
        await executor.send({"type": "run_tsk", "run_id": "r"})
    await executor.stop()
