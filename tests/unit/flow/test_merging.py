"""`merge`: calling and mapping from inside of a running task, with its context."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextvars import ContextVar
from typing import Any

import pytest

from tests.support.merges import both_places, in_task
from tests.support.tasks import double, double_async, eight, seven
from tests.support.virtual_time import in_virtual_time
from wove import merge, weave

pytestmark = pytest.mark.usefixtures("nothing_is_left")

request = ContextVar("request", default="none")


@both_places
@pytest.mark.parametrize("workers", [1, 8])
def test_it_calls_a_callable_of_either_kind(asynchronous: bool, workers: int) -> None:
    assert in_task(lambda: merge(seven), asynchronous=asynchronous, max_workers=workers) == 7
    assert in_task(lambda: merge(eight), asynchronous=asynchronous, max_workers=workers) == 8
    assert in_task(lambda: merge(lambda: eight()), asynchronous=asynchronous, max_workers=workers) == 8


@both_places
@pytest.mark.parametrize("workers", [1, 8])
@pytest.mark.parametrize("function", [double, double_async, lambda number: double_async(number)])
def test_it_maps_a_callable_of_either_kind_in_the_order_of_the_items(
    function: Callable[[int], Any], asynchronous: bool, workers: int
) -> None:
    def work() -> Any:
        return merge(function, range(10))

    assert in_task(work, asynchronous=asynchronous, max_workers=workers) == [number * 2 for number in range(10)]


async def numbers_async() -> AsyncIterator[int]:
    for number in (1, 2):
        await asyncio.sleep(0)
        yield number


@both_places
@pytest.mark.parametrize(
    "source",
    [lambda: [1, 2], lambda: iter([1, 2]), lambda: {1: 0, 2: 0}, numbers_async],
    ids=["list", "iterator", "dict", "async-generator"],
)
def test_it_maps_over_anything_that_can_be_iterated_over(source: Callable[[], Any], asynchronous: bool) -> None:
    assert in_task(lambda: merge(double, source()), asynchronous=asynchronous) == [2, 4]


def test_it_maps_over_a_string_by_characters() -> None:
    assert in_task(lambda: merge(str.upper, "ab")) == ["A", "B"]


def test_a_map_over_nothing_gives_an_empty_list() -> None:
    assert in_task(lambda: merge(double, [])) == []


def test_the_callable_s_parameter_may_have_any_name_and_others_may_have_defaults() -> None:
    def scaled(anything: int, factor: int = 3) -> int:
        return anything * factor

    assert in_task(lambda: merge(scaled, [1, 2])) == [3, 6]


def test_a_builtin_is_a_callable() -> None:
    assert in_task(lambda: merge(len, ["a", "bb"])) == [1, 2]


@in_virtual_time
async def test_merges_of_an_asynchronous_task_run_at_the_same_time() -> None:
    async def sleep() -> None:
        await asyncio.sleep(10)

    async with weave() as w:

        @w.do
        async def task() -> None:
            await asyncio.gather(merge(sleep), merge(sleep))

    assert w.result.exception is None
    assert asyncio.get_running_loop().time() == pytest.approx(10)


@both_places
def test_merged_callables_see_the_context_variables_of_the_task(asynchronous: bool) -> None:
    def read(_: int = 0) -> str:
        return request.get()

    async def read_async(_: int = 0) -> str:
        return request.get()

    async def collect() -> list[Any]:
        request.set("the task's")
        return [await merge(read), await merge(read_async), await merge(read, [1]), await merge(read_async, [1])]

    def collect_sync() -> list[Any]:
        request.set("the task's")
        return [merge(read), merge(read_async), merge(read, [1]), merge(read_async, [1])]

    work: Callable[[], Any] = collect if asynchronous else collect_sync
    seen = in_task(work, asynchronous=asynchronous)
    assert seen == ["the task's", "the task's", ["the task's"], ["the task's"]]
