"""Weaves that their caller cancels: their tasks stop, clean up, and nothing is left."""

import asyncio
import threading

import pytest

from tests.support.waiting import SECONDS
from wove import weave
from wove.errors import TaskCancelledError

pytestmark = pytest.mark.usefixtures("nothing_is_left")


async def test_cancelling_an_asynchronous_weave_cancels_its_tasks_and_leaves_nothing() -> None:
    running, stopped = asyncio.Event(), list[str]()
    before = asyncio.all_tasks()
    w = weave()

    @w.do
    async def task() -> None:
        running.set()
        try:
            await asyncio.sleep(SECONDS)
        finally:
            await asyncio.sleep(0.01)
            stopped.append("task")

    @w.do(range(3))
    async def item(number: int) -> None:
        try:
            await asyncio.sleep(SECONDS)
        finally:
            stopped.append(f"item {number}")

    @w.do
    async def never(task: None) -> None: ...

    async def caller() -> None:
        async with w:
            pass

    calling = asyncio.create_task(caller())
    await running.wait()
    calling.cancel()
    with pytest.raises(asyncio.CancelledError):
        await calling
    assert sorted(stopped) == ["item 0", "item 1", "item 2", "task"]
    assert asyncio.all_tasks() == before
    assert w.result.cancelled == {"task", "item", "never"}
    assert w.result.exception is None
    with pytest.raises(TaskCancelledError, match="Task 'task' was cancelled before it finished"):
        _ = w.result.task


async def test_a_second_cancellation_does_not_cut_the_cleaning_up_short() -> None:
    running, cleaning, cleaned = asyncio.Event(), asyncio.Event(), list[str]()
    before = asyncio.all_tasks()

    async def work() -> None:
        running.set()
        try:
            await asyncio.sleep(SECONDS)
        finally:
            cleaning.set()
            await asyncio.sleep(0.02)
            cleaned.append("cleaned")

    async def caller() -> None:
        async with weave() as w:
            w.do(work)

            @w.do([1])
            async def item(number: int) -> None:
                await work()

    calling = asyncio.create_task(caller())
    await running.wait()
    calling.cancel()
    await cleaning.wait()
    calling.cancel()
    with pytest.raises(asyncio.CancelledError):
        await calling
    assert cleaned == ["cleaned"] * 2
    assert asyncio.all_tasks() == before


async def test_a_weave_can_be_given_up_by_a_timeout_of_the_caller() -> None:
    w = weave()

    @w.do
    async def slow() -> None:
        await asyncio.sleep(SECONDS)

    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01), w:
            pass
    assert w.result.cancelled == {"slow"}


async def test_a_cancelled_weave_does_not_wait_for_blocked_threads() -> None:
    running, release = threading.Event(), threading.Event()

    async def caller() -> None:
        async with weave() as w:

            @w.do
            def blocked() -> None:
                running.set()
                release.wait(SECONDS)

            @w.do(range(3))
            def items(number: int) -> None:
                release.wait(SECONDS)

    calling = asyncio.create_task(caller())
    await asyncio.to_thread(running.wait, SECONDS)
    calling.cancel()
    with pytest.raises(asyncio.CancelledError):
        await calling
    assert not release.is_set()
    release.set()
