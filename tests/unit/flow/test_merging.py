"""`merge`: calling and mapping from inside of a running task."""

import asyncio
import gc
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextvars import ContextVar, copy_context
from itertools import count
from typing import Any

import pytest

from tests.support.virtual_time import in_virtual_time
from tests.support.waiting import SECONDS, wait_until, wove_threads
from wove import merge, weave
from wove.errors import OptionError, TaskCancelledError, TaskStopped, TaskTimeoutError

request = ContextVar("request", default="none")


@pytest.fixture(autouse=True)
def nothing_is_left() -> Iterator[None]:
    """No thread outlives its weave for long, and no coroutine is forgotten."""
    before = wove_threads()
    yield
    wait_until(lambda: wove_threads() <= before, what="the threads of the weave end")
    gc.collect(1)


def seven() -> int:
    return 7


async def eight() -> int:
    await asyncio.sleep(0)
    return 8


def double(number: int) -> int:
    return number * 2


async def double_async(number: int) -> int:
    await asyncio.sleep(0)
    return number * 2


def in_task(work: Callable[[], Any], *, asynchronous: bool = False, **options: Any) -> Any:
    """Run ``work`` as the only task of a weave and return its result."""

    def task() -> Any:
        return work()

    async def task_async() -> Any:
        return await work()

    with weave(**options) as w:
        w.do(task_async if asynchronous else task)
    return w.result.final


both_places = pytest.mark.parametrize("asynchronous", [False, True], ids=["in-sync", "in-async"])


# --- calls and maps ---


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


# --- nesting and threads ---


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


# --- contexts ---


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


# --- options ---


@both_places
def test_it_takes_the_options_of_tasks(asynchronous: bool) -> None:
    attempts: list[int] = []

    def flaky() -> int:
        attempts.append(1)
        if len(attempts) < 3:
            raise LookupError
        return len(attempts)

    assert in_task(lambda: merge(flaky, retries=2), asynchronous=asynchronous) == 3


@both_places
def test_a_merge_may_time_out(asynchronous: bool) -> None:
    release = threading.Event()
    failure = in_task(
        lambda: merge(lambda: release.wait(SECONDS), timeout=0.02), asynchronous=asynchronous, error_mode="return"
    )
    release.set()
    assert isinstance(failure, TaskTimeoutError)
    assert failure.__notes__[0].startswith("Raised in task 'merge(<lambda>)'")
    assert len(failure.__notes__) == 2


def test_workers_limit_a_merged_map() -> None:
    running = most = 0

    async def item(number: int) -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0)
        running -= 1

    in_task(lambda: merge(item, range(20), workers=3))
    assert most == 3


@in_virtual_time
async def test_limit_per_minute_spaces_a_merged_map() -> None:
    starts: list[float] = []

    async def item(number: int) -> None:
        starts.append(asyncio.get_running_loop().time())

    async with weave() as w:

        @w.do
        async def task() -> None:
            await merge(item, range(3), limit_per_minute=60)

    assert w.result.exception is None
    assert starts == pytest.approx([0, 1, 2], abs=1e-3)


def test_max_pending_of_the_weave_holds_for_merged_maps() -> None:
    with pytest.raises(RuntimeError, match=r"Task 'merge\(double\)' is mapped over more than max_pending=5 items"):
        in_task(lambda: merge(double, count()), max_pending=5)


def test_options_of_the_weave_hold_for_merges_too() -> None:
    attempts: list[int] = []

    def flaky() -> int:
        attempts.append(1)
        if len(attempts) < 2:
            raise LookupError
        return len(attempts)

    assert in_task(lambda: merge(flaky), retries=1) == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"retrys": 1}, r"merge\(seven\): no option named 'retrys'. Did you mean 'retries'\?"),
        ({"timeout": -1}, r"merge\(seven\): timeout must be"),
        ({"workers": 2}, r"merge\(seven\): workers has a meaning on mapped tasks only"),
        ({"limit_per_minute": 2}, r"merge\(seven\): limit_per_minute has a meaning on mapped tasks only"),
    ],
)
def test_a_bad_option_is_a_value_error_that_names_the_merge(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        in_task(lambda: merge(seven, **options))
    assert isinstance(caught.value, OptionError)


def test_an_unknown_environment_is_a_name_error() -> None:
    with pytest.raises(NameError, match=r"Task 'merge\(seven\)': no environment named 'nowhere'"):
        in_task(lambda: merge(seven, environment="nowhere"))


def test_what_cannot_be_iterated_over_is_a_type_error() -> None:
    with pytest.raises(TypeError, match=r"merge\(double\): 'int' cannot be iterated over"):
        in_task(lambda: merge(double, 5))  # type: ignore[arg-type]


# --- failures ---


@both_places
@pytest.mark.parametrize("kind", [LookupError, SystemExit, KeyboardInterrupt, BaseException])
def test_an_exception_can_be_caught_where_the_merge_is(kind: type[BaseException], asynchronous: bool) -> None:
    error = kind("merged")

    def fail(_: int = 0) -> None:
        raise error

    async def fail_async(_: int = 0) -> None:
        raise error

    def catch(merged: Callable[[], Any]) -> BaseException | None:
        try:
            merged()
        except BaseException as caught:
            return caught
        return None

    async def catch_async(merged: Callable[[], Any]) -> BaseException | None:
        try:
            await merged()
        except BaseException as caught:
            return caught
        return None

    for function in (fail, fail_async):
        for arguments in ((), ([1],)):
            caught = catch_async if asynchronous else catch
            seen = in_task(
                lambda caught=caught, function=function, arguments=arguments: caught(  # type: ignore[misc]
                    lambda: merge(function, *arguments)
                ),
                asynchronous=asynchronous,
            )
            assert seen is error


def test_stop_iteration_can_be_caught_in_a_synchronous_task() -> None:
    def task() -> str:
        try:
            merge(lambda: next(iter(())))
        except StopIteration:
            return "caught"
        return "none"

    assert in_task(task) == "caught"


@both_places
def test_a_failure_that_is_not_caught_is_that_of_the_task_with_notes_of_both(asynchronous: bool) -> None:
    error = LookupError("merged")

    def fail(number: int) -> int:
        if number == 1:
            raise error
        return number

    with pytest.raises(LookupError) as caught:
        in_task(lambda: merge(fail, [0, 1]), asynchronous=asynchronous)
    assert caught.value is error
    name = "task_async" if asynchronous else "task"
    assert error.__notes__ == [
        "Raised in task 'merge(fail)', item 1, environment 'default'.",
        f"Raised in task '{name}', environment 'default'.",
    ]


def test_a_task_goes_on_after_a_merge_that_failed_with_all_threads_it_may_have() -> None:
    release = threading.Event()

    def fail_or_block(number: int) -> None:
        if number == 0:
            raise LookupError
        release.wait(SECONDS)

    def task() -> Any:
        try:
            merge(fail_or_block, range(3))
        except LookupError:
            # The items that are still blocked hold nobody up.
            return merge(double, [1, 2])

    assert in_task(task, max_workers=2) == [2, 4]
    assert not release.is_set()
    release.set()


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
