"""Maps: what each item gets, in which order results come, and which maps are refused."""

import asyncio
import gc
import threading
import time
from functools import partial
from typing import Any

import pytest

from tests.support.maps import every_way, per_item
from tests.support.tasks import double
from tests.support.waiting import SECONDS
from wove import weave
from wove.errors import UnresolvedSignatureError

pytestmark = pytest.mark.usefixtures("nothing_is_left")


@every_way
def test_results_are_in_the_order_of_the_items_however_long_they_take(
    asynchronous: bool, options: dict[str, Any]
) -> None:
    def work(number: int) -> int:
        if not asynchronous:
            time.sleep(0.001 * (number % 3))
        return number

    with weave() as w:
        w.do(range(30), **options)(per_item(work, asynchronous=asynchronous))
    assert w.result.item == list(range(30))


@every_way
def test_every_item_gets_the_results_of_the_other_dependencies(asynchronous: bool, options: dict[str, Any]) -> None:
    with weave(offset=100) as w:

        @w.do
        def factor() -> int:
            return 10

        def item(number: int, factor: int, offset: int, extra: int = 1) -> int:
            return number * factor + offset + extra

        async def item_async(number: int, factor: int, offset: int, extra: int = 1) -> int:
            return item(number, factor, offset, extra)

        item_async.__name__ = "item"
        w.do([1, 2], **options)(item_async if asynchronous else item)
    assert w.result.item == [111, 121]


def test_items_may_be_none_false_or_awaitable() -> None:
    async def answer() -> int:
        return 42

    coroutine = answer()
    with weave() as w:

        @w.do([None, False, coroutine])
        async def item(value: Any) -> Any:
            return await value if value else value

    assert w.result.item == [None, False, 42]


@pytest.mark.parametrize("options", [{}, {"timeout": 60.0}, {"retries": 1}, {"workers": 1}])
def test_a_synchronous_callable_may_return_coroutines_for_its_items(options: dict[str, Any]) -> None:
    async def fetch(number: int) -> int:
        await asyncio.sleep(0)
        return number * 2

    with weave() as w:
        w.do([1, 2, 3], **options)(lambda number: fetch(number))
        w.do([1, 2, 3], **options)(lambda number: fetch(number) if number == 2 else number)
    assert list(w.result) == [[2, 4, 6], [1, 4, 3]]


@pytest.mark.parametrize("options", [{}, {"timeout": 60.0}, {"retries": 1}])
def test_coroutines_that_are_not_awaited_after_a_failure_do_not_complain(options: dict[str, Any]) -> None:
    async def fetch(number: int) -> int:
        if number == 1:
            raise LookupError
        await asyncio.sleep(SECONDS)
        return number

    def choose(number: int) -> Any:
        if number == 4:
            raise ValueError
        return fetch(number)

    with weave(max_workers=1) as w:
        w.do([1, 2, 3], **options)(lambda number: fetch(number))
    assert isinstance(w.result.exception, LookupError)
    with weave(max_workers=3) as w:
        w.do([2, 3, 4], **options)(lambda number: choose(number))
    assert isinstance(w.result.exception, ValueError)


def test_coroutines_of_a_map_that_another_task_cuts_short_do_not_complain() -> None:
    began, failing = threading.Event(), threading.Event()

    def fetch(number: int) -> Any:
        began.set()
        failing.wait()
        return asyncio.sleep(0, number)

    with weave(max_workers=2) as w:
        # So many that the other task has failed before the last one.
        w.do(range(1_000_000), workers=1)(lambda number: fetch(number))

        @w.do
        async def fails() -> None:
            await asyncio.to_thread(began.wait)
            failing.set()
            raise LookupError

    assert isinstance(w.result.exception, LookupError)
    del w
    gc.collect()


@every_way
def test_the_times_of_a_map_tell_those_of_its_items(asynchronous: bool, options: dict[str, Any]) -> None:
    with weave() as w:
        w.do(range(3), **options)(per_item(double, asynchronous=asynchronous))
    timing = w.result.timings["item"]
    assert len(timing.items) == 3
    assert all(0 <= seconds <= timing for seconds in timing.items)


def test_a_map_without_a_parameter_for_the_item_is_refused_before_anything_runs() -> None:
    ran: list[str] = []
    w = weave()
    w.do(lambda: ran.append("other"))
    w.do([1, 2])(partial(ran.append, "item"))
    with pytest.raises(UnresolvedSignatureError, match="must have exactly one parameter"), w:
        pass
    assert ran == []
