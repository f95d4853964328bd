"""Merges in merges, threads and other loops: nothing deadlocks, and few threads are enough."""

import asyncio
import threading
import time
from typing import Any

import pytest

from tests.support.merges import in_task
from tests.support.tasks import double, eight, seven
from tests.support.waiting import SECONDS, wove_threads
from wove import merge, weave

pytestmark = pytest.mark.usefixtures("nothing_is_left")


def nested(depth: int) -> int:
    if depth == 0:
        return 0
    return 1 + int(merge(lambda: nested(depth - 1)))


def test_nested_merges_do_not_deadlock_with_one_worker() -> None:
    assert in_task(lambda: nested(30), max_workers=1) == 30


def test_nested_maps_do_not_deadlock_with_one_worker() -> None:
    def tree(depth: int) -> int:
        return 1 if depth == 0 else sum(merge(tree, [depth - 1] * 3))

    assert in_task(lambda: tree(4), max_workers=1) == 81


def test_synchronous_and_asynchronous_merges_nest_in_each_other_with_one_worker() -> None:
    async def outer() -> int:
        return int(await merge(middle)) + 1

    def middle() -> int:
        return int(merge(inner)) + 1

    async def inner() -> int:
        return int(await merge(seven)) + 1

    assert in_task(lambda: merge(outer), max_workers=1) == 10


def test_merges_of_many_tasks_and_items_do_not_deadlock_with_one_worker() -> None:
    def item(number: int) -> int:
        return sum(merge(double, range(number)))

    with weave(max_workers=1) as w:
        w.do(range(20))(item)
        w.do(range(20), timeout=60.0)(lambda number: item(number))
        for _ in range(5):
            w.do(lambda: merge(item, range(5), retries=1))
    expected = [sum(number * 2 for number in range(most)) for most in range(20)]
    assert list(w.result) == [expected, expected, *[expected[:5]] * 5]


def test_many_tasks_that_merge_use_few_threads() -> None:
    before = wove_threads()
    most = 0
    lock = threading.Lock()

    def measured(number: int) -> int:
        nonlocal most
        with lock:
            most = max(most, len(wove_threads() - before))
        return number

    with weave(max_workers=4) as w:
        w.do(range(200), timeout=60.0)(lambda number: merge(measured, [number]))
        for _ in range(50):
            w.do(lambda: merge(measured, [1, 2, 3]))
    assert w.result.exception is None
    # Each of the four may wait for four more.
    assert most <= 8


def test_no_more_than_max_workers_functions_run_at_once() -> None:
    running = most = 0
    lock = threading.Lock()

    def work(number: int) -> None:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        time.sleep(0.001)
        with lock:
            running -= 1

    in_task(lambda: merge(work, range(40)), max_workers=3)
    assert most == 3


def test_asyncio_run_inside_of_a_synchronous_task_can_merge_with_one_worker() -> None:
    async def main() -> list[int]:
        return [await merge(seven), *await asyncio.gather(merge(eight), merge(seven), merge(eight))]

    assert in_task(lambda: asyncio.run(main()), max_workers=1) == [7, 8, 7, 8]


def test_a_merge_that_another_loop_gives_up_is_stopped() -> None:
    stopped = threading.Event()

    async def slow() -> None:
        try:
            await asyncio.sleep(SECONDS)
        finally:
            stopped.set()

    async def main() -> str:
        try:
            async with asyncio.timeout(0.02):
                await merge(slow)
        except TimeoutError:
            return "given up"
        return "ended"

    assert in_task(lambda: (asyncio.run(main()), stopped.wait(SECONDS))) == ("given up", True)


def test_a_thread_that_a_task_starts_in_its_context_can_merge() -> None:
    async def task() -> Any:
        return await asyncio.to_thread(merge, double, [1, 2])

    with weave(max_workers=1) as w:
        w.do(task)
    assert w.result.task == [2, 4]


def test_a_weave_in_a_task_is_another_weave_to_merge_in() -> None:
    def task() -> Any:
        with weave(max_workers=1) as inner:
            inner.do(lambda: merge(seven))
        return inner.result.final + merge(seven)

    assert in_task(task, max_workers=1) == 14
