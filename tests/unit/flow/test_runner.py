"""How a graph runs: readiness, failures, cancellation, contexts, and what is left of it."""

import asyncio
import gc
import threading
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Iterator
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.virtual_time import VirtualTimeLoop, in_virtual_time
from tests.support.waiting import SECONDS, wait_until, wove_threads
from wove import weave
from wove.errors import TaskCancelledError

request = ContextVar("request", default="none")


@pytest.fixture(autouse=True)
def nothing_is_left() -> Iterator[None]:
    """No thread outlives its weave for long, and no coroutine is forgotten."""
    before = wove_threads()
    yield
    wait_until(lambda: wove_threads() <= before, what="the threads of the weave end")
    # What was forgotten is young: a full collection would take longer than most tests.
    gc.collect(1)


def task_named(name: str, parameters: str, work: Callable[[], Any], *, asynchronous: bool = True) -> Callable[..., Any]:
    """Make a function with parameters; it calls, or awaits, the work."""
    text = f"async def {name}({parameters}): return await work()\n"
    if not asynchronous:
        text = f"def {name}({parameters}): return work()\n"
    namespace: dict[str, Any] = {"work": work}
    exec(text, namespace)
    function: Callable[..., Any] = namespace[name]
    return function


def now() -> float:
    return asyncio.get_running_loop().time()


def sleeping(seconds: float) -> Callable[[], Coroutine[Any, Any, None]]:
    return lambda: asyncio.sleep(seconds)


# --- readiness ---


@in_virtual_time
async def test_a_dependent_starts_before_an_unrelated_slow_task_ends() -> None:
    times: dict[str, float] = {}
    async with weave() as w:

        @w.do
        async def slow() -> None:
            await asyncio.sleep(100)
            times["slow"] = now()

        @w.do
        async def quick() -> None:
            await asyncio.sleep(1)

        @w.do
        async def dependent(quick: None) -> None:
            times["dependent"] = now()

    assert times["dependent"] == pytest.approx(1)
    assert times["slow"] == pytest.approx(100)


@in_virtual_time
async def test_the_run_time_of_lanes_of_sleeps_is_the_longest_lane() -> None:
    async with weave() as w:
        for lane in range(10):
            for step in range(5):
                parameters = f"t{lane}_{step - 1}" if step else ""
                w.do(task_named(f"t{lane}_{step}", parameters, sleeping((lane + step) % 7)))
    longest = max(sum((lane + step) % 7 for step in range(5)) for lane in range(10))
    assert now() == pytest.approx(longest)


def test_a_synchronous_dependent_starts_before_an_unrelated_blocked_task_ends() -> None:
    dependent_ran = threading.Event()
    with weave() as w:

        @w.do
        def blocked() -> bool:
            return dependent_ran.wait(SECONDS)

        @w.do
        def quick() -> None: ...

        @w.do
        def dependent(quick: None) -> None:
            dependent_ran.set()

    assert w.result.blocked


def test_tasks_run_at_the_same_time_synchronous_and_asynchronous_ones() -> None:
    meeting = threading.Barrier(3)
    with weave() as w:

        @w.do
        def one() -> None:
            meeting.wait(SECONDS)

        @w.do
        def two() -> None:
            meeting.wait(SECONDS)

        @w.do
        async def three() -> None:
            await asyncio.to_thread(meeting.wait, SECONDS)

    assert w.result.exception is None


@dataclass(frozen=True)
class RandomGraph:
    """Tasks that sleep, and fail or not; each needs some of those before it."""

    needed: tuple[tuple[int, ...], ...]
    seconds: tuple[int, ...]
    failing: frozenset[int]

    def critical_path(self) -> list[int]:
        ends: list[int] = []
        for needed, seconds in zip(self.needed, self.seconds, strict=True):
            ends.append(max((ends[each] for each in needed), default=0) + seconds)
        return ends


@st.composite
def random_graphs(draw: st.DrawFn, *, can_fail: bool) -> RandomGraph:
    size = draw(st.integers(0, 10))
    needed = tuple(
        tuple(sorted(draw(st.sets(st.integers(0, task - 1), max_size=3)))) if task else () for task in range(size)
    )
    seconds = tuple(draw(st.lists(st.integers(0, 5), min_size=size, max_size=size)))
    failing = draw(st.frozensets(st.integers(0, size))) if can_fail else frozenset()
    return RandomGraph(needed, seconds, failing)


class Broken(Exception):
    """What the tasks of random graphs raise."""


async def run_random(graph: RandomGraph) -> tuple[Any, dict[str, float], dict[str, float]]:
    began: dict[str, float] = {}
    ended: dict[str, float] = {}

    def work(task: int) -> Callable[[], Awaitable[int]]:
        async def run() -> int:
            began[f"t{task}"] = now()
            await asyncio.sleep(graph.seconds[task])
            ended[f"t{task}"] = now()
            if task in graph.failing:
                raise Broken(task)
            return task

        return run

    async with weave(error_mode="return") as w:
        for task, needed in enumerate(graph.needed):
            w.do(task_named(f"t{task}", ", ".join(f"t{each}" for each in needed), work(task)))
    return w.result, began, ended


@settings(deadline=None)
@given(random_graphs(can_fail=False))
def test_in_any_graph_each_task_starts_when_its_last_dependency_ends(graph: RandomGraph) -> None:
    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        result, _, ended = runner.run(run_random(graph))
    assert list(result) == list(range(len(graph.needed)))
    for task, end in enumerate(graph.critical_path()):
        assert ended[f"t{task}"] == pytest.approx(end, abs=1e-3)


@settings(deadline=None)
@given(random_graphs(can_fail=True))
def test_in_any_graph_with_failures_each_task_ends_in_one_state_and_none_starts_too_early_or_too_late(
    graph: RandomGraph,
) -> None:
    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        result, began, ended = runner.run(run_random(graph))
    names = [f"t{task}" for task in range(len(graph.needed))]
    values = dict(zip(names, result, strict=True))
    failed = {name for name, value in values.items() if isinstance(value, Broken) and name not in result.cancelled}
    done = {name for name in names if values[name] == int(name[1:])}
    assert done | failed | result.cancelled == set(names)
    assert len(done) + len(failed) + len(result.cancelled) == len(names)
    assert bool(failed) == (result.exception is not None)
    for name in began:
        assert all(f"t{each}" in done for each in graph.needed[int(name[1:])])
    if failed:
        first = f"t{result.exception.args[0]}"
        assert all(began[name] <= ended[first] + 1e-3 for name in began)
        assert result.failures[0] is result.exception
        assert {id(failure) for failure in result.failures} == {id(values[name]) for name in failed}


# --- failures ---


@in_virtual_time
async def test_the_first_failure_cancels_running_siblings_and_starts_nothing_more() -> None:
    happened: list[str] = []
    async with weave() as w:

        @w.do
        async def fails() -> None:
            await asyncio.sleep(1)
            raise LookupError("first")

        @w.do
        async def running() -> None:
            try:
                await asyncio.sleep(100)
            finally:
                happened.append(f"running stopped at {now():.0f}")

        @w.do
        async def unrelated_later(running: None) -> None:
            happened.append("started")

    assert happened == ["running stopped at 1"]
    assert w.result.cancelled == {"running", "unrelated_later"}
    assert isinstance(w.result.exception, LookupError)


@in_virtual_time
async def test_a_task_that_ends_before_the_failure_keeps_its_result() -> None:
    async with weave() as w:

        @w.do
        async def quick() -> int:
            return 1

        @w.do
        async def fails() -> None:
            await asyncio.sleep(1)
            raise LookupError

    assert w.result.quick == 1
    assert w.result.cancelled == set()


@in_virtual_time
async def test_descendants_report_the_same_exception_object() -> None:
    error = LookupError("root")
    async with weave() as w:

        @w.do
        async def root() -> None:
            raise error

        @w.do
        async def child(root: None) -> None: ...

        @w.do
        async def grandchild(child: None) -> None: ...

    for name in ("root", "child", "grandchild"):
        with pytest.raises(LookupError) as caught:
            _ = w.result[name]
        assert caught.value is error
    assert w.result.cancelled == {"child", "grandchild"}


@in_virtual_time
async def test_a_descendant_of_several_failed_tasks_reports_the_first() -> None:
    async with weave() as w:

        @w.do
        async def late() -> None:
            try:
                await asyncio.sleep(10)
            except asyncio.CancelledError:
                raise RuntimeError("late, while being stopped") from None

        @w.do
        async def early() -> None:
            await asyncio.sleep(1)
            raise LookupError("early")

        @w.do
        async def both(late: None, early: None) -> None: ...

        @w.do
        async def only_late(late: None) -> None: ...

    w.result._unread = False
    with pytest.raises(LookupError, match="early"):
        _ = w.result.both
    with pytest.raises(RuntimeError, match="late, while being stopped"):
        _ = w.result.only_late
    assert [str(failure) for failure in w.result.failures] == ["early", "late, while being stopped"]


def test_two_synchronous_tasks_that_fail_at_once_do_not_hide_each_other() -> None:
    meeting = threading.Barrier(2)
    with weave() as w:

        @w.do
        def one() -> None:
            meeting.wait(SECONDS)
            raise LookupError("one")

        @w.do
        def two() -> None:
            meeting.wait(SECONDS)
            raise ValueError("two")

    assert {type(failure) for failure in w.result.failures} == {LookupError, ValueError}
    assert w.result.cancelled == set()


def test_two_synchronous_tasks_with_options_that_fail_at_once_do_not_hide_each_other() -> None:
    meeting = threading.Barrier(2)
    with weave(timeout=60.0) as w:

        @w.do
        def one() -> None:
            meeting.wait(SECONDS)
            raise LookupError("one")

        @w.do
        def two() -> None:
            meeting.wait(SECONDS)
            raise ValueError("two")

    assert {type(failure) for failure in w.result.failures} == {LookupError, ValueError}


def test_a_synchronous_task_that_has_no_thread_yet_is_not_started_after_a_failure() -> None:
    ran: list[str] = []
    with weave(max_workers=1) as w:

        @w.do
        def fails() -> None:
            raise LookupError

        @w.do
        def waits_for_the_thread() -> None:
            ran.append("ran")

    assert w.result.cancelled == {"waits_for_the_thread"}
    assert ran == []


def test_a_blocked_synchronous_task_does_not_keep_a_failed_weave() -> None:
    began, release, came_back = threading.Event(), threading.Event(), threading.Event()
    with weave() as w:

        @w.do
        def blocked() -> None:
            began.set()
            release.wait(SECONDS)
            came_back.set()

        @w.do
        async def fails() -> None:
            await asyncio.to_thread(began.wait, SECONDS)
            raise LookupError

    assert not came_back.is_set()
    assert w.result.cancelled == {"blocked"}
    release.set()
    assert came_back.wait(SECONDS)


def test_a_task_that_catches_its_cancellation_and_returns_has_a_result() -> None:
    with weave() as w:

        @w.do
        async def stubborn() -> str:
            try:
                await asyncio.sleep(SECONDS)
            except asyncio.CancelledError:
                return "result"
            return "too late"

        @w.do
        async def fails() -> None:
            raise LookupError

    assert w.result.stubborn == "result"
    assert w.result.cancelled == set()
    assert isinstance(w.result.exception, LookupError)


# --- exceptions of every kind ---


class Refusing(Exception):
    """An exception that takes no attributes, like a frozen dataclass."""

    def __setattr__(self, name: str, value: object) -> None:
        raise TypeError("frozen")


class Unprintable(Exception):
    """An exception that cannot be shown."""

    def __str__(self) -> str:
        raise ValueError("no words")

    __repr__ = __str__


@pytest.mark.parametrize("asynchronous", [True, False], ids=["async", "sync"])
@pytest.mark.parametrize("options", [{}, {"timeout": 60.0}, {"retries": 1}], ids=["plain", "timeout", "retries"])
@pytest.mark.parametrize(
    "kind", [ValueError, SystemExit, GeneratorExit, BaseException, TimeoutError, Refusing, Unprintable, ExceptionGroup]
)
def test_an_exception_reaches_the_reader_as_the_very_object(
    kind: type[BaseException], options: dict[str, Any], asynchronous: bool
) -> None:
    error = kind("group", [ValueError()]) if kind is ExceptionGroup else kind()

    async def fail_async() -> None:
        raise error

    def fail() -> None:
        raise error

    work = fail_async if asynchronous else fail
    with weave() as w:
        w.do(**options)(task_named("fails", "", work, asynchronous=asynchronous))
    with pytest.raises(kind) as caught:
        _ = w.result.fails
    assert caught.value is error
    assert w.result.exception is error


@pytest.mark.parametrize("options", [{}, {"timeout": 60.0}], ids=["plain", "timeout"])
def test_stop_iteration_of_a_synchronous_task_is_its_exception(options: dict[str, Any]) -> None:
    with weave() as w:

        @w.do(**options)
        def fails() -> None:
            next(iter(()))

    assert isinstance(w.result.exception, StopIteration)
    with pytest.raises(StopIteration):
        _ = w.result.fails


@pytest.mark.parametrize("source", [list, iter], ids=["list", "iterator"])
@pytest.mark.parametrize("options", [{}, {"timeout": 60.0}], ids=["plain", "timeout"])
def test_stop_iteration_of_an_item_does_not_end_the_map(
    source: Callable[[list[int]], Iterable[int]], options: dict[str, Any]
) -> None:
    with weave() as w:

        @w.do(source([1]), **options)
        def fails(item: int) -> None:
            next(iter(()))

    assert isinstance(w.result.exception, StopIteration)


@pytest.mark.parametrize("options", [{}, {"timeout": 60.0}], ids=["plain", "timeout"])
def test_stop_async_iteration_is_an_exception_like_others(options: dict[str, Any]) -> None:
    with weave() as w:

        @w.do(**options)
        def fails() -> None:
            raise StopAsyncIteration

    assert isinstance(w.result.exception, StopAsyncIteration)


@pytest.mark.parametrize("asynchronous", [True, False], ids=["async", "sync"])
@pytest.mark.parametrize("options", [{}, {"timeout": 60.0}], ids=["plain", "timeout"])
def test_a_keyboard_interrupt_of_a_task_reaches_the_caller_after_everything_has_been_stopped(
    options: dict[str, Any], asynchronous: bool
) -> None:
    stopped = threading.Event()

    async def interrupt_async() -> None:
        raise KeyboardInterrupt

    def interrupt() -> None:
        raise KeyboardInterrupt

    work = interrupt_async if asynchronous else interrupt
    w = weave()

    @w.do
    async def other() -> None:
        try:
            await asyncio.sleep(SECONDS)
        finally:
            stopped.set()

    w.do(**options)(task_named("interrupted", "", work, asynchronous=asynchronous))
    with pytest.raises(KeyboardInterrupt), w:
        pass
    assert stopped.is_set()
    assert w.result.cancelled == {"other"}
    assert isinstance(w.result.exception, KeyboardInterrupt)


async def test_a_keyboard_interrupt_reaches_the_caller_of_an_asynchronous_weave() -> None:
    w = weave()

    @w.do
    def interrupted() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        async with w:
            pass


@pytest.mark.parametrize("options", [{}, {"timeout": 60.0}, {"retries": 2}], ids=["plain", "timeout", "retries"])
def test_a_task_that_cancels_itself_fails_and_says_so(options: dict[str, Any]) -> None:
    with weave() as w:

        @w.do(**options)
        async def cancels_itself() -> None:
            task = asyncio.current_task()
            assert task is not None
            task.cancel()
            await asyncio.sleep(0)

    with pytest.raises(TaskCancelledError, match="Task 'cancels_itself' was cancelled from inside") as caught:
        _ = w.result.cancels_itself
    assert isinstance(caught.value.__cause__, asyncio.CancelledError)


@pytest.mark.parametrize("options", [{}, {"timeout": 60.0}, {"limit_per_minute": 6000}, {"workers": 1}])
def test_an_item_that_cancels_itself_fails_and_says_so(options: dict[str, Any]) -> None:
    with weave() as w:

        @w.do([1, 2], **options)
        async def item(number: int) -> int:
            task = asyncio.current_task()
            assert task is not None
            if number == 1:
                task.cancel()
            await asyncio.sleep(0)
            return number

    with pytest.raises(TaskCancelledError, match="Task 'item' was cancelled from inside"):
        _ = w.result.item


@pytest.mark.parametrize("options", [{}, {"timeout": 60.0}], ids=["plain", "timeout"])
@pytest.mark.parametrize("asynchronous", [True, False], ids=["async", "sync"])
def test_a_task_that_raises_a_cancellation_of_its_own_fails(options: dict[str, Any], asynchronous: bool) -> None:
    async def cancelled_async() -> None:
        raise asyncio.CancelledError("mine")

    def cancelled() -> None:
        raise asyncio.CancelledError("mine")

    work = cancelled_async if asynchronous else cancelled
    with weave() as w:
        w.do(**options)(task_named("fails", "", work, asynchronous=asynchronous))
    assert w.result.exception is not None
    assert w.result.cancelled == set()


def test_a_decorator_that_only_looks_asynchronous_may_fail_at_the_call() -> None:
    class LooksAsynchronous:
        async def __call__(self) -> None: ...

    def refuse(*_: object) -> None:
        raise LookupError("at the call")

    task = LooksAsynchronous()
    with pytest.MonkeyPatch.context() as patch, weave() as w:
        w.do(timeout=5.0)(task)
        patch.setattr(LooksAsynchronous, "__call__", refuse)
    assert isinstance(w.result.exception, LookupError)


def test_a_note_says_which_task_and_environment_an_exception_comes_from() -> None:
    with weave() as w:

        @w.do
        def fails() -> None:
            raise ValueError("x")

    assert w.result.exception is not None
    assert w.result.exception.__notes__ == ["Raised in task 'fails', environment 'default'."]


def test_an_exception_that_two_weaves_raise_is_noted_once() -> None:
    error = ValueError("shared")
    for _ in range(2):
        with weave() as w:

            @w.do
            def fails() -> None:
                raise error

        assert w.result.exception is error
    assert len(error.__notes__) == 1


def test_where_no_thread_can_be_started_the_task_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    start = threading.Thread.start

    def refuse(thread: threading.Thread) -> None:
        if thread.name.startswith("wove-task"):
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", refuse)
    with weave() as w:

        @w.do
        async def first() -> None: ...

        @w.do
        def second(first: None) -> None: ...

        @w.do
        async def third() -> None:
            await asyncio.sleep(SECONDS)

    with pytest.raises(RuntimeError, match="can't start new thread"):
        _ = w.result.second
    assert w.result.cancelled == {"third"}


# --- cancellation by the caller ---


async def test_cancelling_an_asynchronous_weave_cancels_its_tasks_and_leaves_nothing() -> None:
    running, stopped = asyncio.Event(), list[str]()
    before = asyncio.all_tasks()
    w = weave()

    @w.do
    async def task() -> None:
        running.set()
        try:
            await asyncio.sleep(SECONDS)
        finally:
            await asyncio.sleep(0.01)
            stopped.append("task")

    @w.do(range(3))
    async def item(number: int) -> None:
        try:
            await asyncio.sleep(SECONDS)
        finally:
            stopped.append(f"item {number}")

    @w.do
    async def never(task: None) -> None: ...

    async def caller() -> None:
        async with w:
            pass

    calling = asyncio.create_task(caller())
    await running.wait()
    calling.cancel()
    with pytest.raises(asyncio.CancelledError):
        await calling
    assert sorted(stopped) == ["item 0", "item 1", "item 2", "task"]
    assert asyncio.all_tasks() == before
    assert w.result.cancelled == {"task", "item", "never"}
    assert w.result.exception is None
    with pytest.raises(TaskCancelledError, match="Task 'task' was cancelled before it finished"):
        _ = w.result.task


async def test_a_second_cancellation_does_not_cut_the_cleaning_up_short() -> None:
    running, cleaning, cleaned = asyncio.Event(), asyncio.Event(), list[str]()
    before = asyncio.all_tasks()

    async def work() -> None:
        running.set()
        try:
            await asyncio.sleep(SECONDS)
        finally:
            cleaning.set()
            await asyncio.sleep(0.02)
            cleaned.append("cleaned")

    async def caller() -> None:
        async with weave() as w:
            w.do(work)

            @w.do([1])
            async def item(number: int) -> None:
                await work()

    calling = asyncio.create_task(caller())
    await running.wait()
    calling.cancel()
    await cleaning.wait()
    calling.cancel()
    with pytest.raises(asyncio.CancelledError):
        await calling
    assert cleaned == ["cleaned"] * 2
    assert asyncio.all_tasks() == before


async def test_a_weave_can_be_given_up_by_a_timeout_of_the_caller() -> None:
    w = weave()

    @w.do
    async def slow() -> None:
        await asyncio.sleep(SECONDS)

    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01), w:
            pass
    assert w.result.cancelled == {"slow"}


async def test_a_cancelled_weave_does_not_wait_for_blocked_threads() -> None:
    running, release = threading.Event(), threading.Event()

    async def caller() -> None:
        async with weave() as w:

            @w.do
            def blocked() -> None:
                running.set()
                release.wait(SECONDS)

            @w.do(range(3))
            def items(number: int) -> None:
                release.wait(SECONDS)

    calling = asyncio.create_task(caller())
    await asyncio.to_thread(running.wait, SECONDS)
    calling.cancel()
    with pytest.raises(asyncio.CancelledError):
        await calling
    assert not release.is_set()
    release.set()


async def test_a_loop_that_starts_tasks_eagerly_changes_nothing() -> None:
    factory = getattr(asyncio, "eager_task_factory", None)
    if factory is None:
        pytest.skip("eager tasks are new in Python 3.12")
    ran: list[str] = []
    loop = asyncio.get_running_loop()
    loop.set_task_factory(factory)
    try:
        async with weave() as w:

            @w.do
            async def fails() -> None:
                raise LookupError

            @w.do
            async def other() -> None:
                ran.append("other")
                await asyncio.sleep(SECONDS)

        async with weave() as chain:
            for number in range(500):
                needs = f"t{number - 1}" if number else ""
                chain.do(task_named(f"t{number}", needs, sleeping(0)))
    finally:
        loop.set_task_factory(None)
    assert isinstance(w.result.exception, LookupError)
    assert w.result.cancelled == {"other"}
    assert chain.result.exception is None


# --- contexts ---


def test_tasks_see_the_context_variables_of_the_caller() -> None:
    token = request.set("caller's")
    try:
        with weave() as w:

            @w.do
            async def in_loop() -> str:
                return request.get()

            @w.do
            def in_thread() -> str:
                return request.get()

            @w.do(timeout=60.0)
            def in_thread_with_timeout() -> str:
                return request.get()

            @w.do([1])
            async def item_in_loop(item: int) -> str:
                return request.get()

            @w.do([1])
            def item_in_thread(item: int) -> str:
                return request.get()

            @w.do([1], timeout=60.0)
            def item_in_thread_with_timeout(item: int) -> str:
                return request.get()

            @w.do(request.get() for _ in range(1))
            def source_in_thread(item: str) -> str:
                return item

            @w.do(request.get() for _ in range(1))
            async def source_in_loop(item: str) -> str:
                return item

    finally:
        request.reset(token)
    seen = [value[0] if isinstance(value, list) else value for value in w.result]
    assert seen == ["caller's"] * 8


@pytest.mark.parametrize("asynchronous", [True, False], ids=["async", "sync"])
@pytest.mark.parametrize("options", [{}, {"timeout": 60.0}], ids=["plain", "timeout"])
def test_what_one_task_or_item_sets_no_other_one_sees(options: dict[str, Any], asynchronous: bool) -> None:
    def set_and_tell() -> str:
        seen = request.get()
        request.set("a task's")
        return seen

    async def set_and_tell_async() -> str:
        return set_and_tell()

    work = set_and_tell_async if asynchronous else set_and_tell
    with weave(max_workers=1, **options) as w:
        w.do(task_named("first", "", work, asynchronous=asynchronous))
        w.do(task_named("second", "first", work, asynchronous=asynchronous))
        w.do([1, 2])(task_named("items", "item, second", work, asynchronous=asynchronous))
    assert list(w.result) == ["none", "none", ["none", "none"]]
    assert request.get() == "none"


# --- threads ---


def test_no_more_synchronous_tasks_than_max_workers_run_at_once() -> None:
    lock, running, most = threading.Lock(), 0, 0

    def work() -> None:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        threading.Event().wait(0.002)
        with lock:
            running -= 1

    with weave(max_workers=2) as w:
        for number in range(10):
            w.do(task_named(f"t{number}", "", work, asynchronous=False))
        w.do(range(10))(task_named("items", "item", work, asynchronous=False))
        w.do(range(10), timeout=60.0)(task_named("timed", "item", work, asynchronous=False))
    assert w.result.exception is None
    assert most == 2


def test_a_task_that_becomes_ready_is_not_kept_waiting_by_the_rest_of_a_map() -> None:
    started: list[str] = []
    with weave(max_workers=2) as w:

        @w.do(range(50))
        def items(item: int) -> None:
            started.append("item")
            threading.Event().wait(0.001)

        @w.do
        def first() -> None:
            started.append("first")

        @w.do
        def second(first: None) -> None:
            started.append("second")

    assert started.count("item") == 50
    assert started.index("second") < 30


def test_a_weave_of_asynchronous_tasks_starts_no_thread() -> None:
    before = wove_threads()
    with weave() as w:

        @w.do(range(3))
        async def threads(item: int) -> set[threading.Thread]:
            return wove_threads() - before

    assert w.result.threads == [set(), set(), set()]


def test_a_chain_of_a_thousand_synchronous_tasks_uses_few_threads() -> None:
    names: set[str] = set()
    with weave() as w:
        for number in range(1000):
            needs = f"t{number - 1}" if number else ""
            w.do(
                task_named(f"t{number}", needs, lambda: names.add(threading.current_thread().name), asynchronous=False)
            )
    assert w.result.exception is None
    assert len(names) <= 3
