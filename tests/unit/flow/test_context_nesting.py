"""Weaves in tasks of other weaves, in many threads, and where a loop runs."""

import asyncio
import threading
from contextvars import ContextVar
from typing import Any

import pytest

from tests.support.tasks import seven
from tests.support.waiting import SECONDS
from wove import weave
from wove.errors import TaskStopped

request = ContextVar("request", default="none")


# --- in tasks of other weaves ---


def test_a_weave_in_a_synchronous_task() -> None:
    with weave(base=2) as outer:

        @outer.do([1, 2, 3])
        def powers(exponent: int, base: int) -> int:
            with weave(base=base, exponent=exponent) as inner:

                @inner.do
                def power(base: int, exponent: int) -> int:
                    return int(base**exponent)

            return int(inner.result.power)

    assert outer.result.powers == [2, 4, 8]


def test_an_asynchronous_weave_in_an_asynchronous_task() -> None:
    with weave() as outer:

        @outer.do(range(5))
        async def doubled(number: int) -> int:
            async with weave(number=number) as inner:

                @inner.do
                async def double(number: int) -> int:
                    await asyncio.sleep(0)
                    return number * 2

            return int(inner.result.double)

    assert outer.result.doubled == [0, 2, 4, 6, 8]


def test_a_blocking_weave_in_an_asynchronous_task() -> None:
    with weave() as outer:

        @outer.do
        async def seven_of_seven() -> int:
            with weave() as inner:
                inner.do(seven)
            return int(inner.result.seven)

    assert outer.result.seven_of_seven == 7


def test_a_failure_of_an_inner_weave_is_one_of_the_task_that_reads_it() -> None:
    with weave() as outer:

        @outer.do
        def task() -> Any:
            with weave() as inner:

                @inner.do
                def fails() -> None:
                    raise LookupError("inner")

            return inner.result.fails

    with pytest.raises(LookupError, match="inner") as caught:
        _ = outer.result.task
    assert caught.value.__notes__ == [
        "Raised in task 'fails', environment 'default'.",
        "Raised in task 'task', environment 'default'.",
    ]


def test_a_weave_in_a_synchronous_task_is_stopped_together_with_the_task() -> None:
    happened: list[str] = []
    inner_runs = threading.Event()
    with weave() as outer:

        @outer.do
        def task() -> None:
            try:
                with weave() as inner:

                    @inner.do
                    async def slow() -> None:
                        inner_runs.set()
                        try:
                            await asyncio.sleep(SECONDS)
                        finally:
                            happened.append("inner task cancelled")

            except TaskStopped:
                happened.append("inner weave stopped")
                raise

        @outer.do
        async def fails() -> None:
            await asyncio.to_thread(inner_runs.wait, SECONDS)
            raise LookupError

    assert happened == ["inner task cancelled", "inner weave stopped"]
    assert outer.result.cancelled == {"task"}
    assert len(outer.result.failures) == 1


def test_a_background_weave_of_a_task_is_not_stopped_together_with_the_task() -> None:
    done, go_on = threading.Event(), threading.Event()
    with weave() as outer:

        @outer.do
        def task() -> None:
            with weave(background=True, on_done=lambda result: done.set()) as inner:
                inner.do(lambda: go_on.wait(SECONDS))
            raise LookupError

    assert isinstance(outer.result.exception, LookupError)
    go_on.set()
    assert done.wait(SECONDS)


# --- in threads and loops ---


def test_weaves_in_many_threads_do_not_disturb_each_other() -> None:
    results: dict[int, list[int]] = {}

    def run(number: int) -> None:
        with weave(number=number) as w:

            @w.do
            async def base(number: int) -> int:
                await asyncio.sleep(0)
                return number * 100

            @w.do(range(20))
            def items(item: int, base: int) -> int:
                return base + item

        results[number] = w.result.items

    threads = [threading.Thread(target=run, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == {number: [number * 100 + item for item in range(20)] for number in range(8)}


async def test_many_asynchronous_weaves_share_one_loop() -> None:
    async def run(number: int) -> int:
        async with weave(number=number) as w:

            @w.do
            async def double(number: int) -> int:
                await asyncio.sleep(0)
                return number * 2

            @w.do
            def plus_one(double: int) -> int:
                return double + 1

        return int(w.result.plus_one)

    assert await asyncio.gather(*map(run, range(20))) == [number * 2 + 1 for number in range(20)]


async def test_a_blocking_weave_works_where_a_loop_runs() -> None:
    loop = asyncio.get_running_loop()
    with weave() as w:

        @w.do
        async def other_loop() -> bool:
            return asyncio.get_running_loop() is not loop

        @w.do
        def here() -> str:
            return threading.current_thread().name

    assert w.result.other_loop
    assert w.result.here.startswith("wove-task")
    assert asyncio.get_running_loop() is loop


async def test_a_blocking_weave_in_a_running_loop_sees_the_caller_s_context_variables() -> None:
    request.set("caller's")
    with weave() as w:

        @w.do
        async def in_loop() -> str:
            return request.get()

        @w.do
        def in_thread() -> str:
            return request.get()

    assert list(w.result) == ["caller's", "caller's"]


async def test_a_failure_reaches_the_caller_of_a_blocking_weave_in_a_running_loop() -> None:
    error = LookupError("mine")
    with pytest.raises(LookupError) as caught, weave(error_mode="exit") as w:

        @w.do
        async def fails() -> None:
            raise error

    assert caught.value is error


async def test_an_asynchronous_weave_leaves_the_loop_free_while_a_synchronous_task_blocks() -> None:
    other_ran = threading.Event()
    asyncio.get_running_loop().call_soon(asyncio.get_running_loop().call_soon, other_ran.set)
    async with weave() as w:

        @w.do
        def waits_for_the_loop() -> bool:
            return other_ran.wait(10)

    assert w.result.waits_for_the_loop
