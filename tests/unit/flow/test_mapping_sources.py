"""What can be mapped over, and what becomes of sources that cannot be, that fail, or that block."""

import asyncio
import queue
import threading
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from itertools import count
from typing import Any

import pytest

from tests.support.maps import every_way, generated_async, per_item
from tests.support.tasks import double
from tests.support.waiting import SECONDS
from wove import weave

pytestmark = pytest.mark.usefixtures("nothing_is_left")


class Indexed:
    """Can be iterated over by the old protocol only."""

    def __getitem__(self, index: int) -> int:
        if index == 3:
            raise IndexError
        return index + 1


class Endless:
    """Iterable without a length."""

    def __init__(self, most: int) -> None:
        self._most = most

    def __iter__(self) -> Iterator[int]:
        return iter(range(1, self._most + 1))


def generated() -> Iterator[int]:
    yield from (1, 2, 3)


class AsyncIterable3:
    def __aiter__(self) -> AsyncIterator[int]:
        return generated_async()


@every_way
@pytest.mark.parametrize(
    "source",
    [
        lambda: [1, 2, 3],
        lambda: (1, 2, 3),
        lambda: range(1, 4),
        lambda: {1: "a", 2: "b", 3: "c"},
        lambda: {1: "a", 2: "b", 3: "c"}.keys(),
        lambda: deque([1, 2, 3]),
        lambda: {1, 2, 3},
        lambda: frozenset([1, 2, 3]),
        lambda: b"\x01\x02\x03",
        lambda: iter([1, 2, 3]),
        lambda: map(int, "123"),
        lambda: (number for number in (1, 2, 3)),
        generated,
        generated_async,
        AsyncIterable3,
        Indexed,
        lambda: Endless(3),
    ],
    ids=[
        *("list", "tuple", "range", "dict", "keys", "deque", "set", "frozenset", "bytes", "iterator", "map"),
        *("expression", "generator", "async-generator", "async-iterable", "getitem", "iterable"),
    ],
)
def test_anything_that_can_be_iterated_over_can_be_mapped_over(
    source: Callable[[], Iterable[int]], asynchronous: bool, options: dict[str, Any]
) -> None:
    with weave() as w:
        w.do(source(), **options)(per_item(double, asynchronous=asynchronous))
    assert w.result.item == [2, 4, 6]


@every_way
def test_the_result_of_a_task_and_an_initial_value_can_be_mapped_over(
    asynchronous: bool, options: dict[str, Any]
) -> None:
    with weave(values=[1, 2]) as w:
        w.do("values", **options)(per_item(double, asynchronous=asynchronous))

        @w.do("item")
        def plus_one(number: int) -> int:
            return number + 1

    assert list(w.result) == [[2, 4], [3, 5]]


def test_a_string_names_a_source_and_the_string_that_it_names_is_mapped_by_characters() -> None:
    with weave(word="abc") as w:
        w.do("word")(per_item(str.upper, asynchronous=False))
    assert w.result.item == ["A", "B", "C"]


@every_way
@pytest.mark.parametrize("source", [list[int], lambda: iter(()), lambda: (number for number in list[int]())])
def test_a_map_over_nothing_gives_an_empty_list(
    source: Callable[[], Iterable[int]], asynchronous: bool, options: dict[str, Any]
) -> None:
    with weave() as w:
        w.do(source(), **options)(per_item(double, asynchronous=asynchronous))
    assert w.result.item == []


# --- sources that cannot be iterated over, or fail ---


@every_way
@pytest.mark.parametrize("value", [5, None, object()])
def test_a_source_task_whose_result_cannot_be_iterated_over_is_a_type_error_of_the_map(
    value: object, asynchronous: bool, options: dict[str, Any]
) -> None:
    with weave() as w:

        @w.do
        def source() -> object:
            return value

        w.do("source", **options)(per_item(double, asynchronous=asynchronous))

    assert w.result.source is value
    with pytest.raises(TypeError, match=r"Task 'item' is mapped over the result of 'source' of type .* cannot be iter"):
        _ = w.result.item


def test_an_initial_value_that_cannot_be_iterated_over_is_not_called_a_result() -> None:
    with weave(number=5) as w:
        w.do("number")(lambda item: item)
    with pytest.raises(TypeError, match=r"mapped over an initial value 'number' of type 'int', which cannot be iter"):
        _ = w.result.lambda_1


@every_way
@pytest.mark.parametrize("kind", [LookupError, KeyboardInterrupt, SystemExit])
def test_an_exception_of_the_source_is_the_failure_of_the_map(
    kind: type[BaseException], asynchronous: bool, options: dict[str, Any]
) -> None:
    error = kind("the source")

    def source() -> Iterator[int]:
        yield 1
        raise error

    w = weave()
    w.do(source(), **options)(per_item(double, asynchronous=asynchronous))
    try:
        with w:
            pass
    except KeyboardInterrupt:
        assert kind is KeyboardInterrupt
    assert w.result.exception is error
    assert w.result.failures == (error,)


@every_way
def test_an_exception_of_an_asynchronous_source_is_the_failure_of_the_map(
    asynchronous: bool, options: dict[str, Any]
) -> None:
    error = LookupError("the source")

    async def source() -> AsyncIterator[int]:
        yield 1
        raise error

    with weave() as w:
        w.do(source(), **options)(per_item(double, asynchronous=asynchronous))
    assert w.result.exception is error


# --- sources that block ---


@every_way
async def test_a_blocking_source_does_not_block_the_loop(asynchronous: bool, options: dict[str, Any]) -> None:
    turns = threading.Semaphore(0)
    loop = asyncio.get_running_loop()

    def source() -> Iterator[int]:
        for number in range(3):
            # The next item comes only after the loop has had a turn.
            loop.call_soon_threadsafe(turns.release)
            assert turns.acquire(timeout=SECONDS)
            yield number

    async with weave() as w:
        w.do(source(), **options)(per_item(double, asynchronous=asynchronous))
    assert w.result.item == [0, 2, 4]


@every_way
def test_an_item_does_not_wait_for_the_next_one_to_come(asynchronous: bool, options: dict[str, Any]) -> None:
    first_ran = threading.Event()

    def source() -> Iterator[int]:
        yield 1
        assert first_ran.wait(SECONDS)
        yield 2

    def work(number: int) -> int:
        first_ran.set()
        return number

    with weave() as w:
        w.do(source(), **options)(per_item(work, asynchronous=asynchronous))
    assert w.result.item == [1, 2]


@every_way
@pytest.mark.parametrize("kind", ["blocking", "asynchronous"])
def test_a_failure_does_not_wait_for_the_next_item_to_come(
    kind: str, asynchronous: bool, options: dict[str, Any]
) -> None:
    release = threading.Event()

    def blocking() -> Iterator[int]:
        yield 1
        release.wait(SECONDS)

    async def waiting() -> AsyncIterator[int]:
        yield 1
        await asyncio.sleep(SECONDS)

    def fail(number: int) -> None:
        raise LookupError

    began = time.monotonic()
    with weave() as w:
        source: Any = blocking() if kind == "blocking" else waiting()
        w.do(source, **options)(per_item(fail, asynchronous=asynchronous))
    release.set()
    assert isinstance(w.result.exception, LookupError)
    assert time.monotonic() - began < SECONDS / 2


@every_way
def test_an_asynchronous_source_is_closed_when_the_map_fails(asynchronous: bool, options: dict[str, Any]) -> None:
    closed: list[str] = []

    async def source() -> AsyncIterator[int]:
        try:
            for number in count():
                yield number
                await asyncio.sleep(0)
        finally:
            await asyncio.sleep(0)
            closed.append("closed")

    def fail(number: int) -> None:
        raise LookupError

    with weave() as w:
        w.do(source(), **options)(per_item(fail, asynchronous=asynchronous))
    assert isinstance(w.result.exception, LookupError)
    assert closed == ["closed"]


def test_a_generator_is_never_asked_by_two_threads_at_once() -> None:
    asking = threading.Lock()

    def source() -> Iterator[int]:
        for number in range(200):
            assert asking.acquire(blocking=False)
            time.sleep(0)
            asking.release()
            yield number

    with weave(max_workers=8) as w:
        w.do(source())(per_item(double, asynchronous=False))
    assert w.result.item == [number * 2 for number in range(200)]


@pytest.mark.parametrize("options", [{}, {"timeout": 60.0}])
def test_items_can_be_fed_by_another_thread_while_the_map_runs(options: dict[str, Any]) -> None:
    fed: queue.SimpleQueue[int | None] = queue.SimpleQueue()
    done: queue.SimpleQueue[int] = queue.SimpleQueue()

    def feed() -> None:
        for number in range(20):
            fed.put(number)
            assert done.get(timeout=SECONDS) == number
        fed.put(None)

    feeder = threading.Thread(target=feed)
    feeder.start()
    with weave() as w:
        w.do(iter(fed.get, None), **options)(per_item(done.put, asynchronous=False))
    feeder.join()
    assert len(w.result.item) == 20
