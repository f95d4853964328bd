"""Attempts: retries and timeouts of single tasks."""

import asyncio
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from tests.support.virtual_time import in_virtual_time
from tests.support.waiting import SECONDS, wait_until, wove_threads
from wove import merge, weave
from wove.errors import TaskTimeoutError

both_kinds = pytest.mark.parametrize("asynchronous", [True, False], ids=["async", "sync"])


def flaky(failures: int, kind: type[BaseException] = LookupError) -> tuple[Callable[[], int], list[int]]:
    """Return a function that fails so many times before it returns, and the list of its attempts."""
    attempts: list[int] = []

    def task() -> int:
        attempts.append(len(attempts) + 1)
        if len(attempts) <= failures:
            raise kind(len(attempts))
        return len(attempts)

    return task, attempts


def asynchronous_of(function: Callable[[], Any]) -> Callable[[], Any]:
    async def task() -> Any:
        await asyncio.sleep(0)
        return function()

    return task


# --- retries ---


@both_kinds
def test_a_failed_attempt_is_followed_by_as_many_as_retries_says(asynchronous: bool) -> None:
    task, attempts = flaky(2)
    with weave() as w:
        w.do(retries=2)(asynchronous_of(task) if asynchronous else task)
    assert w.result.task == 3
    assert attempts == [1, 2, 3]
    assert w.result.failures == ()


@both_kinds
def test_the_last_failure_counts_when_the_retries_are_used_up(asynchronous: bool) -> None:
    task, attempts = flaky(10)
    with weave() as w:
        w.do(retries=2)(asynchronous_of(task) if asynchronous else task)
    assert w.result.exception is not None
    assert w.result.exception.args == (3,)
    assert attempts == [1, 2, 3]


@both_kinds
@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt, GeneratorExit])
def test_what_is_meant_to_end_things_is_not_tried_again(kind: type[BaseException], asynchronous: bool) -> None:
    task, attempts = flaky(10, kind)
    w = weave()
    w.do(retries=2)(asynchronous_of(task) if asynchronous else task)
    try:
        with w:
            pass
    except KeyboardInterrupt:
        assert kind is KeyboardInterrupt
    assert isinstance(w.result.exception, kind)
    assert attempts == [1]


@both_kinds
def test_a_timeout_error_that_a_task_raises_is_an_error_and_tried_again(asynchronous: bool) -> None:
    task, attempts = flaky(1, TimeoutError)
    with weave() as w:
        w.do(retries=1, timeout=60.0)(asynchronous_of(task) if asynchronous else task)
    assert w.result.task == 2
    assert attempts == [1, 2]


def test_a_timeout_error_that_a_task_raises_is_the_very_object_and_no_deadline_of_ours() -> None:
    error = TimeoutError("the database's")
    with weave() as w:

        @w.do(timeout=60.0)
        async def task() -> None:
            raise error

    assert w.result.exception is error


def test_retries_of_the_weave_hold_for_every_task() -> None:
    task, attempts = flaky(2)
    with weave(retries=2) as w:
        w.do(task)
    assert w.result.task == 3
    assert attempts == [1, 2, 3]


def test_a_coroutine_that_a_synchronous_callable_returns_is_tried_again() -> None:
    task, attempts = flaky(1)
    with weave() as w:
        w.do(retries=1)(lambda: asynchronous_of(task)())
    assert w.result.lambda_1 == 2
    assert attempts == [1, 2]


@in_virtual_time
async def test_a_task_that_is_being_stopped_is_not_tried_again() -> None:
    attempts: list[int] = []
    async with weave() as w:

        @w.do(retries=5)
        async def converts_its_cancellation() -> None:
            attempts.append(1)
            try:
                await asyncio.sleep(100)
            except asyncio.CancelledError:
                raise LookupError("converted") from None

        @w.do
        async def fails() -> None:
            await asyncio.sleep(1)
            raise ValueError

    assert attempts == [1]
    assert [type(failure) for failure in w.result.failures] == [ValueError, LookupError]


# --- timeouts ---


@in_virtual_time
async def test_an_attempt_that_takes_longer_than_its_timeout_fails_with_a_timeout_error() -> None:
    async with weave() as w:

        @w.do(timeout=5)
        async def slow() -> None:
            await asyncio.sleep(100)

    assert asyncio.get_running_loop().time() == pytest.approx(5)
    with pytest.raises(TimeoutError, match=r"Task 'slow' did not finish within its timeout of 5 s\.") as caught:
        _ = w.result.slow
    assert isinstance(caught.value, TaskTimeoutError)
    assert (caught.value.task, caught.value.timeout) == ("slow", 5)
    assert caught.value.__notes__ == ["Raised in task 'slow', environment 'default'."]


@in_virtual_time
async def test_an_attempt_that_ends_in_time_has_its_result() -> None:
    async with weave() as w:

        @w.do(timeout=5)
        async def quick() -> int:
            await asyncio.sleep(4)
            return 1

    assert w.result.quick == 1


@in_virtual_time
async def test_the_timeout_is_one_per_attempt_and_a_timed_out_attempt_is_tried_again() -> None:
    attempts: list[float] = []
    async with weave() as w:

        @w.do(timeout=5, retries=2)
        async def slow_at_first() -> int:
            attempts.append(asyncio.get_running_loop().time())
            await asyncio.sleep(100 if len(attempts) < 3 else 4)
            return len(attempts)

    assert w.result.slow_at_first == 3
    assert attempts == pytest.approx([0, 5, 10])


@in_virtual_time
async def test_a_task_may_clean_up_when_its_time_is_over() -> None:
    cleaned: list[float] = []
    async with weave() as w:

        @w.do(timeout=5)
        async def slow() -> None:
            try:
                await asyncio.sleep(100)
            finally:
                await asyncio.sleep(1)
                cleaned.append(asyncio.get_running_loop().time())

    assert cleaned == pytest.approx([6])
    assert isinstance(w.result.exception, TaskTimeoutError)


@in_virtual_time
async def test_timeouts_of_the_task_s_own_work_inside_of_its_timeout() -> None:
    async with weave() as w:

        @w.do(timeout=50)
        async def task() -> str:
            try:
                async with asyncio.timeout(5):
                    await asyncio.sleep(100)
            except TimeoutError:
                return "mine"
            return "none"

    assert w.result.task == "mine"


def test_a_timed_out_synchronous_task_does_not_keep_the_weave_waiting() -> None:
    release, came_back = threading.Event(), threading.Event()
    with weave() as w:

        @w.do(timeout=0.02)
        def stuck() -> None:
            release.wait(SECONDS)
            came_back.set()

    assert not came_back.is_set()
    assert isinstance(w.result.exception, TaskTimeoutError)
    release.set()
    assert came_back.wait(SECONDS)


def test_a_timed_out_synchronous_task_is_tried_again_on_another_thread() -> None:
    release = threading.Event()
    threads: list[str] = []
    with weave(max_workers=1) as w:

        @w.do(timeout=0.05, retries=2)
        def stuck_at_first() -> int:
            threads.append(threading.current_thread().name)
            if len(threads) < 3:
                release.wait(SECONDS)
            return len(threads)

    release.set()
    assert w.result.stuck_at_first == 3
    assert len(set(threads)) == 3


def test_timeouts_in_the_moment_in_which_a_thread_begins_or_ends_neither_lose_nor_add_a_place() -> None:
    before = wove_threads()
    lock, running, most, timeouts = threading.Lock(), 0, 0, 0

    def count() -> None:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        time.sleep(0.001)
        with lock:
            running -= 1

    with weave(max_workers=1) as w:

        @w.do
        async def task() -> None:
            nonlocal timeouts
            for number in range(200):
                try:
                    await merge(partial(time.sleep, 0.00001 * number), timeout=0.0005)
                except TimeoutError:
                    timeouts += 1
            # Were a place lost, this would never end.
            await asyncio.gather(*(merge(count, timeout=60.0) for _ in range(10)))

    assert w.result.task is None
    assert timeouts > 0
    assert most == 1
    wait_until(lambda: wove_threads() <= before, what="the threads end")


def test_the_timeout_of_a_synchronous_task_does_not_run_while_it_waits_for_a_thread() -> None:
    with weave(max_workers=1) as w:

        @w.do
        def hogs_the_thread() -> None:
            time.sleep(0.15)

        @w.do(timeout=0.1)
        def waits_for_it() -> str:
            return "ran"

    assert w.result.waits_for_it == "ran"


def test_the_timeout_of_a_synchronous_task_runs_once_it_has_a_thread() -> None:
    release = threading.Event()
    with weave(max_workers=1) as w:

        @w.do
        def hogs_the_thread() -> None:
            time.sleep(0.05)

        @w.do(timeout=0.05)
        def stuck() -> None:
            release.wait(SECONDS)

    release.set()
    assert isinstance(w.result.exception, TaskTimeoutError)
