"""Attempts at the items of a map: each item has its own, and its own timeout."""

import asyncio
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.maps import every_way, per_item
from tests.support.waiting import SECONDS
from wove import weave
from wove.errors import TaskTimeoutError

pytestmark = pytest.mark.usefixtures("nothing_is_left")


@every_way
def test_only_the_item_that_failed_is_tried_again(asynchronous: bool, options: dict[str, Any]) -> None:
    attempts: list[int] = []

    def work(number: int) -> int:
        attempts.append(number)
        if number == 2 and attempts.count(2) < 3:
            raise LookupError
        return number

    with weave() as w:
        w.do([1, 2, 3], **{**options, "retries": 2})(per_item(work, asynchronous=asynchronous))
    assert w.result.item == [1, 2, 3]
    assert sorted(attempts) == [1, 2, 2, 2, 3]


def test_an_item_is_tried_again_after_the_source_is_exhausted() -> None:
    exhausted, attempts = threading.Event(), list[int]()

    def source() -> Iterator[int]:
        yield 1
        yield 2
        exhausted.set()

    def work(number: int) -> int:
        attempts.append(number)
        if number == 1 and attempts.count(1) == 1:
            assert exhausted.wait(SECONDS)
            raise LookupError
        return number

    with weave(max_workers=2) as w:
        w.do(source(), retries=1)(per_item(work, asynchronous=False))
    assert w.result.item == [1, 2]


def test_coroutines_that_a_synchronous_callable_returned_are_tried_again() -> None:
    attempts: list[int] = []

    async def fetch(number: int) -> int:
        attempts.append(number)
        if attempts.count(number) < 3:
            raise LookupError
        return number * 10

    with weave() as w:
        w.do([1, 2], retries=2)(lambda number: fetch(number))
    assert w.result.lambda_1 == [10, 20]
    assert sorted(attempts) == [1, 1, 1, 2, 2, 2]


@pytest.mark.parametrize("asynchronous", [True, False], ids=["async", "sync"])
def test_the_timeout_is_one_per_item_and_attempt(asynchronous: bool) -> None:
    release = threading.Event()

    def item(number: int) -> None:
        if number == 1:
            release.wait(SECONDS)

    async def item_async(number: int) -> None:
        if number == 1:
            await asyncio.sleep(SECONDS)

    with weave() as w:
        w.do(range(3), timeout=0.02)(item_async if asynchronous else item)
    release.set()
    failure = w.result.exception
    assert isinstance(failure, TaskTimeoutError)
    assert isinstance(failure, TimeoutError)
    assert failure.timeout == 0.02
    assert ", item 1, environment 'default'." in failure.__notes__[0]


def test_the_timeout_of_a_synchronous_item_does_not_run_while_it_waits_for_a_thread() -> None:
    with weave(max_workers=2) as w:

        @w.do(range(10), timeout=0.3)
        def item(number: int) -> int:
            time.sleep(0.08)
            return number

        @w.do(timeout=0.3)
        def other() -> str:
            return "ran"

    assert w.result.exception is None
    assert w.result.other == "ran"
