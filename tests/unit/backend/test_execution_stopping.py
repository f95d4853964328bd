"""Executions that are stopped or cancelled: before they start, while they run, and after their end."""

import asyncio
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from tests.support.commands import frame_of
from tests.support.tasks import double_async
from tests.unit.backend.conftest import Execute
from wove.backend.execution import TaskExecution
from wove.backend.types import EventFrame


class Stoppable:
    """Stops an execution from another thread as soon as its task says that it runs."""

    def __init__(self) -> None:
        self.running = threading.Event()

    def event(self, execute: Execute, function: Callable[..., Any]) -> EventFrame:
        execution = TaskExecution(frame_of(function))

        def stop() -> None:
            assert self.running.wait(20)
            execution.stop()

        stopper = threading.Thread(target=stop)
        stopper.start()
        try:
            return execute(execution)
        finally:
            stopper.join(20)


def test_a_running_synchronous_task_is_stopped(execute: Execute) -> None:
    stoppable = Stoppable()

    def task() -> None:
        stoppable.running.set()
        while True:
            pass

    assert stoppable.event(execute, task)["type"] == "task_cancelled"


def test_a_sleeping_task_in_the_main_thread_is_stopped_at_once() -> None:
    stoppable = Stoppable()

    def task() -> None:
        stoppable.running.set()
        time.sleep(60)

    began = time.monotonic()
    assert stoppable.event(lambda execution: execution.run(), task)["type"] == "task_cancelled"
    assert time.monotonic() - began < 20


@pytest.mark.parametrize("wrap", [lambda coroutine: coroutine, lambda coroutine: lambda: coroutine()])
def test_a_running_coroutine_is_cancelled(execute: Execute, wrap: Callable[[Any], Any]) -> None:
    stoppable = Stoppable()
    seen = []

    async def task() -> None:
        stoppable.running.set()
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            seen.append("cancelled")
            raise

    assert stoppable.event(execute, wrap(task))["type"] == "task_cancelled"
    assert seen == ["cancelled"]


def test_a_task_that_ends_otherwise_when_stopped_counts_as_cancelled(execute: Execute) -> None:
    stoppable = Stoppable()

    async def task() -> None:
        stoppable.running.set()
        try:
            await asyncio.sleep(60)
        finally:
            raise OSError("while cleaning up")

    assert stoppable.event(execute, task)["type"] == "task_cancelled"


def test_a_task_that_ignores_the_stop_keeps_its_result(execute: Execute) -> None:
    stoppable = Stoppable()

    async def task() -> str:
        stoppable.running.set()
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            return "finished all the same"
        return "never"

    event = stoppable.event(execute, task)
    assert (event["type"], event.get("result")) == ("task_result", "finished all the same")


@pytest.mark.parametrize("function", [lambda: 1 / 0, double_async], ids=["sync", "coroutine"])
def test_a_task_that_is_stopped_before_it_starts_does_not_start(execute: Execute, function: Callable[..., Any]) -> None:
    execution = TaskExecution(frame_of(function))
    execution.stop()
    assert execute(execution)["type"] == "task_cancelled"


def test_stopping_after_the_end_does_nothing(execute: Execute) -> None:
    execution = TaskExecution(frame_of(lambda: 1))
    assert execute(execution)["result"] == 1
    execution.stop()


async def test_cancelling_arun_cancels_the_coroutine_and_is_raised() -> None:
    started, seen = asyncio.Event(), []

    async def task() -> None:
        started.set()
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            seen.append("cancelled")
            raise

    running = asyncio.ensure_future(TaskExecution(frame_of(task)).arun())
    await started.wait()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert seen == ["cancelled"]


async def test_cancelling_arun_stops_the_thread_of_a_synchronous_callable() -> None:
    started, stopped = threading.Event(), threading.Event()

    def task() -> None:
        started.set()
        try:
            while True:
                time.sleep(0.001)
        finally:
            stopped.set()

    running = asyncio.ensure_future(TaskExecution(frame_of(task)).arun())
    assert await asyncio.to_thread(started.wait, 20)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert await asyncio.to_thread(stopped.wait, 20)
