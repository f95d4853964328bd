"""How many items of a map run at once, how many there may be, and how often one starts."""

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from itertools import count
from typing import Any

import pytest

from tests.support.maps import every_way, generated_async, per_item
from tests.support.tasks import double
from tests.support.virtual_time import in_virtual_time
from wove import weave

pytestmark = pytest.mark.usefixtures("nothing_is_left")


# --- how many ---


@every_way
def test_no_more_items_than_workers_run_at_once(asynchronous: bool, options: dict[str, Any]) -> None:
    running = most = 0
    lock = threading.Lock()

    def enter() -> None:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)

    def leave() -> None:
        nonlocal running
        with lock:
            running -= 1

    def item(number: int) -> None:
        enter()
        time.sleep(0.001)
        leave()

    async def item_async(number: int) -> None:
        enter()
        await asyncio.sleep(0.001)
        leave()

    with weave() as w:
        w.do(range(20), **{**options, "workers": 3})(item_async if asynchronous else item)
    assert w.result.exception is None
    assert most == 3


@every_way
@pytest.mark.parametrize("source", [list, iter], ids=["list", "iterator"])
def test_a_map_of_more_items_than_max_pending_is_a_runtime_error_of_the_task(
    source: Callable[[Iterable[int]], Iterable[int]], asynchronous: bool, options: dict[str, Any]
) -> None:
    with weave(max_pending=3) as w:
        w.do(source([1, 2, 3]), **options)(per_item(double, asynchronous=asynchronous))
    assert w.result.item == [2, 4, 6]
    with weave(max_pending=3) as w:
        w.do(source([1, 2, 3, 4]), **options)(per_item(double, asynchronous=asynchronous))
    with pytest.raises(RuntimeError, match="Task 'item' is mapped over more than max_pending=3 items"):
        _ = w.result.item


@every_way
def test_a_list_of_more_items_than_max_pending_runs_none_of_them(asynchronous: bool, options: dict[str, Any]) -> None:
    ran: list[int] = []
    with weave(max_pending=3) as w:
        w.do([1, 2, 3, 4], **options)(per_item(ran.append, asynchronous=asynchronous))
    assert isinstance(w.result.exception, RuntimeError)
    assert ran == []


async def endless_async() -> AsyncIterator[int]:
    for number in count():
        yield number


@every_way
@pytest.mark.parametrize("source", [count, endless_async], ids=["iterator", "async-iterator"])
def test_an_endless_source_ends_with_the_error_of_max_pending(
    source: Callable[[], Iterable[int]], asynchronous: bool, options: dict[str, Any]
) -> None:
    with weave(max_pending=50) as w:
        w.do(source(), **options)(per_item(double, asynchronous=asynchronous))
    with pytest.raises(RuntimeError, match="more than max_pending=50 items"):
        _ = w.result.item


def test_an_endless_source_is_asked_only_as_far_as_workers_take_items() -> None:
    asked: list[int] = []

    def source() -> Iterator[int]:
        for number in count():
            asked.append(number)
            yield number

    def fail_at_five(number: int) -> None:
        if number == 5:
            raise LookupError

    with weave(max_workers=2) as w:
        w.do(source())(per_item(fail_at_five, asynchronous=False))
    assert isinstance(w.result.exception, LookupError)
    assert len(asked) < 1000


# --- how often ---


@pytest.mark.parametrize("options", [{}, {"workers": 2}, {"timeout": 60.0}])
@pytest.mark.parametrize("source", [lambda: [0, 1, 2, 3, 4], generated_async], ids=["list", "async-generator"])
def test_limit_per_minute_starts_one_item_every_60_divided_by_n_seconds(
    source: Callable[[], Iterable[int]], options: dict[str, Any]
) -> None:
    starts: list[float] = []

    @in_virtual_time
    async def run() -> None:
        async with weave() as w:

            @w.do(source(), limit_per_minute=120, **options)
            async def item(number: int) -> None:
                starts.append(asyncio.get_running_loop().time())

        assert w.result.exception is None

    run()
    assert starts == pytest.approx([index * 0.5 for index in range(len(starts))], abs=1e-3)
    assert len(starts) >= 3


@in_virtual_time
async def test_after_a_wait_for_workers_limit_per_minute_does_not_catch_up() -> None:
    starts: list[float] = []
    async with weave() as w:

        @w.do(range(4), limit_per_minute=60, workers=1)
        async def item(number: int) -> None:
            starts.append(asyncio.get_running_loop().time())
            await asyncio.sleep(10 if number == 0 else 0)

    assert w.result.exception is None
    assert starts == pytest.approx([0, 10, 11, 12], abs=1e-3)


def test_limit_per_minute_holds_for_synchronous_items_too() -> None:
    starts: list[float] = []
    with weave() as w:

        @w.do(range(4), limit_per_minute=60 * 50)
        def item(number: int) -> None:
            starts.append(time.monotonic())

    assert w.result.exception is None
    assert starts[-1] - starts[0] >= 3 * 0.02 * 0.9


@in_virtual_time
async def test_a_failure_does_not_wait_for_the_next_start() -> None:
    async with weave() as w:

        @w.do(range(4), limit_per_minute=1)
        async def item(number: int) -> None:
            await asyncio.sleep(1)
            raise LookupError

    assert isinstance(w.result.exception, LookupError)
    assert asyncio.get_running_loop().time() < 2
