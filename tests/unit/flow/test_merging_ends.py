"""Merges where there is no weave, none any more, or one that stops."""

import asyncio
import threading
from contextvars import copy_context

import pytest

from tests.support.tasks import seven
from tests.support.waiting import SECONDS
from wove import merge, weave
from wove.errors import TaskCancelledError, TaskStopped

pytestmark = pytest.mark.usefixtures("nothing_is_left")


# --- where there is no weave, or none any more ---


def test_outside_of_a_weave_it_is_a_runtime_error() -> None:
    with pytest.raises(RuntimeError, match=r"merge\(\) works inside a task of a weave"):
        merge(seven)


async def test_outside_of_a_weave_in_a_loop_it_is_a_runtime_error() -> None:
    with pytest.raises(RuntimeError, match=r"merge\(\) works inside a task of a weave"):
        merge(seven)


def test_in_the_block_itself_it_is_a_runtime_error() -> None:
    with weave(), pytest.raises(RuntimeError, match=r"merge\(\) works inside a task of a weave"):
        merge(seven)


async def test_after_its_weave_has_ended_it_is_a_runtime_error() -> None:
    late: list[BaseException] = []
    go_on = asyncio.Event()

    async def linger() -> None:
        await go_on.wait()
        try:
            await merge(seven)
        except RuntimeError as error:
            late.append(error)

    async with weave() as w:

        @w.do
        async def task() -> asyncio.Task[None]:
            return asyncio.create_task(linger())

    go_on.set()
    await w.result.task
    assert isinstance(late[0], TaskCancelledError)
    assert str(late[0]) == "Task 'merge(seven)' was cancelled because its weave is over."


def test_in_a_thread_after_its_weave_has_ended_it_is_a_runtime_error() -> None:
    late: list[BaseException] = []
    go_on = threading.Event()

    def linger() -> None:
        go_on.wait(SECONDS)
        try:
            merge(seven)
        except RuntimeError as error:
            late.append(error)

    with weave() as w:

        @w.do
        def task() -> threading.Thread:
            thread = threading.Thread(target=copy_context().run, args=(linger,))
            thread.start()
            return thread

    go_on.set()
    w.result.task.join()
    assert [type(error) for error in late] == [TaskCancelledError]


# --- a weave that stops ---


def test_a_task_that_is_blocked_in_a_merge_is_cancelled_with_its_weave() -> None:
    waiting, seen = threading.Event(), list[BaseException]()

    async def slow() -> None:
        waiting.set()
        await asyncio.sleep(SECONDS)

    with weave() as w:

        @w.do
        def blocked() -> None:
            try:
                merge(slow)
            except BaseException as error:
                seen.append(error)
                raise

        @w.do
        async def fails() -> None:
            await asyncio.to_thread(waiting.wait, SECONDS)
            raise LookupError("why")

    assert isinstance(seen[0], TaskStopped)
    assert w.result.cancelled == {"blocked"}
    assert len(w.result.failures) == 1
    with pytest.raises(TaskCancelledError, match="Task 'blocked' was cancelled because task 'fails' failed"):
        _ = w.result.blocked


def test_a_stopped_merge_is_no_exception_that_a_task_catches_by_accident() -> None:
    waiting, caught = threading.Event(), list[Exception]()

    async def slow() -> None:
        waiting.set()
        await asyncio.sleep(SECONDS)

    with weave() as w:

        @w.do(retries=5)
        def blocked() -> None:
            try:
                merge(slow)
            except Exception as error:
                caught.append(error)

        @w.do
        async def fails() -> None:
            await asyncio.to_thread(waiting.wait, SECONDS)
            raise LookupError

    assert caught == []
    assert w.result.cancelled == {"blocked"}


async def test_merges_clean_up_before_their_cancelled_weave_is_left() -> None:
    waiting, cleaned = threading.Event(), list[str]()
    before = asyncio.all_tasks()

    async def slow(number: int = 0) -> None:
        waiting.set()
        try:
            await asyncio.sleep(SECONDS)
        finally:
            await asyncio.sleep(0.02)
            cleaned.append("cleaned")

    async def caller() -> None:
        async with weave() as w:
            w.do(lambda: merge(slow))
            w.do(lambda: merge(slow, [1, 2]))
            w.do(lambda: asyncio.run(merge(slow)))

            @w.do
            async def awaits() -> None:
                await merge(slow)

    calling = asyncio.create_task(caller())
    await asyncio.to_thread(waiting.wait, SECONDS)
    await asyncio.sleep(0.05)
    calling.cancel()
    with pytest.raises(asyncio.CancelledError):
        await calling
    assert cleaned == ["cleaned"] * 5
    assert asyncio.all_tasks() == before
