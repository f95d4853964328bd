"""Maps: what can be mapped over, how many items run at once and how often, and what becomes of their failures."""

import asyncio
import gc
import queue
import threading
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from functools import partial
from itertools import count
from typing import Any

import pytest

from tests.support.virtual_time import in_virtual_time
from tests.support.waiting import SECONDS, wait_until, wove_threads
from wove import weave
from wove.errors import TaskTimeoutError, UnresolvedSignatureError

# Each of them sends a map another way: threads that drain, threads under the loop, the loop alone, the loop by turns.
WAYS: list[Any] = [
    pytest.param(False, {}, id="sync"),
    pytest.param(False, {"timeout": 60.0}, id="sync-timeout"),
    pytest.param(True, {}, id="async"),
    pytest.param(True, {"workers": 2}, id="async-workers"),
    pytest.param(True, {"timeout": 60.0}, id="async-timeout"),
]
every_way = pytest.mark.parametrize(("asynchronous", "options"), WAYS)


@pytest.fixture(autouse=True)
def nothing_is_left() -> Iterator[None]:
    """No thread outlives its weave for long, and no coroutine is forgotten."""
    before = wove_threads()
    yield
    wait_until(lambda: wove_threads() <= before, what="the threads of the weave end")
    gc.collect(1)


def per_item(work: Callable[[Any], Any], *, asynchronous: bool) -> Callable[..., Any]:
    """Make a task named ``item`` of one parameter; asynchronous ones let others run first."""

    def item(number: Any) -> Any:
        return work(number)

    async def item_async(number: Any) -> Any:
        await asyncio.sleep(0)
        return work(number)

    item_async.__name__ = "item"
    return item_async if asynchronous else item


def double(number: Any) -> Any:
    return number * 2


# --- sources ---


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


async def generated_async() -> AsyncIterator[int]:
    for number in (1, 2, 3):
        await asyncio.sleep(0)
        yield number


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


# --- failures ---


@every_way
def test_the_failure_of_an_item_is_that_of_the_map_with_a_note_of_the_item(
    asynchronous: bool, options: dict[str, Any]
) -> None:
    error = LookupError("mine")

    def work(number: int) -> int:
        if number == 2:
            raise error
        return number

    with weave() as w:
        w.do([1, 2], **options)(per_item(work, asynchronous=asynchronous))
    with pytest.raises(LookupError) as caught:
        _ = w.result.item
    assert caught.value is error
    assert error.__notes__ == ["Raised in task 'item', item 1, environment 'default'."]


@every_way
def test_all_failures_of_a_fan_out_are_reachable(asynchronous: bool, options: dict[str, Any]) -> None:
    meeting = threading.Barrier(2)

    def work(number: int) -> None:
        if not asynchronous:
            meeting.wait(SECONDS)
        raise LookupError(number)

    with weave() as w:
        w.do([0, 1], **options)(per_item(work, asynchronous=asynchronous))
    failures = w.result.failures
    assert {failure.args[0] for failure in failures} == {0, 1}
    assert w.result.exception is failures[0]
    notes = {failure.args[0]: failure.__notes__ for failure in failures}
    assert notes[1] == ["Raised in task 'item', item 1, environment 'default'."]


@every_way
def test_after_a_failure_no_further_items_start(asynchronous: bool, options: dict[str, Any]) -> None:
    ran: list[int] = []

    def work(number: int) -> None:
        ran.append(number)
        raise LookupError

    with weave(max_workers=1) as w:
        w.do(range(1000), **{**options, "workers": 1})(per_item(work, asynchronous=asynchronous))
    assert isinstance(w.result.exception, LookupError)
    assert ran == [0]


@in_virtual_time
async def test_the_failure_of_one_item_cancels_the_others() -> None:
    stopped: list[int] = []
    async with weave() as w:

        @w.do(range(3))
        async def item(number: int) -> None:
            try:
                await asyncio.sleep(number + 1)
            except asyncio.CancelledError:
                stopped.append(number)
                raise
            raise LookupError(number)

    assert sorted(stopped) == [1, 2]
    assert len(w.result.failures) == 1


def test_the_failure_of_another_task_stops_a_map_and_leaves_it_without_a_result() -> None:
    ran: list[int] = []
    began = threading.Event()
    with weave(max_workers=2) as w:

        @w.do(range(1000))
        def item(number: int) -> None:
            ran.append(number)
            began.set()
            time.sleep(0.001)

        @w.do
        def fails() -> None:
            began.wait(SECONDS)
            raise LookupError

    assert w.result.cancelled == {"item"}
    assert len(ran) < 500


def test_blocked_items_do_not_keep_a_failed_map() -> None:
    release = threading.Event()

    def work(number: int) -> None:
        if number == 0:
            raise LookupError
        release.wait(SECONDS)

    with weave() as w:
        w.do(range(5))(per_item(work, asynchronous=False))
    assert isinstance(w.result.exception, LookupError)
    assert not release.is_set()
    release.set()


# --- attempts at items ---


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


# --- times ---


@every_way
def test_the_times_of_a_map_tell_those_of_its_items(asynchronous: bool, options: dict[str, Any]) -> None:
    with weave() as w:
        w.do(range(3), **options)(per_item(double, asynchronous=asynchronous))
    timing = w.result.timings["item"]
    assert len(timing.items) == 3
    assert all(0 <= seconds <= timing for seconds in timing.items)


# --- before anything runs ---


def test_a_map_without_a_parameter_for_the_item_is_refused_before_anything_runs() -> None:
    ran: list[str] = []
    w = weave()
    w.do(lambda: ran.append("other"))
    w.do([1, 2])(partial(ran.append, "item"))
    with pytest.raises(UnresolvedSignatureError, match="must have exactly one parameter"), w:
        pass
    assert ran == []
