"""Exceptions of every kind: each reaches the reader of its task, and says where it comes from."""

import asyncio
import threading
from collections.abc import Callable, Iterable
from typing import Any

import pytest

from tests.support.tasks import task_named
from tests.support.waiting import SECONDS
from wove import weave
from wove.errors import TaskCancelledError

pytestmark = pytest.mark.usefixtures("nothing_is_left")


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
