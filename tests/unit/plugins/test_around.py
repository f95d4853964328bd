"""Async context managers around an attempt: they observe its outcome and cannot change it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from contextvars import ContextVar
from types import TracebackType

import pytest

from tests.unit.plugins.conftest import Registering
from wove.plugins import active_hooks, hookimpl

Outcome = tuple[object, BaseException | None]

span: ContextVar[str] = ContextVar("span", default="none")


class Spans:
    """Notes when its managers are entered, and with which exception they are left."""

    def __init__(self, name: str, notes: list[object]) -> None:
        self.name = name
        self.notes = notes

    @hookimpl
    def wove_around_task(self) -> AbstractAsyncContextManager[None]:
        return self._span()

    @asynccontextmanager
    async def _span(self) -> AsyncIterator[None]:
        self.notes.append(f"enter {self.name}")
        try:
            yield
        except BaseException as error:
            self.notes.append((f"leave {self.name}", error))
            raise
        self.notes.append((f"leave {self.name}", None))


class Decorated:
    """The way most plugins will be written: the hook itself is the generator."""

    def __init__(self) -> None:
        self.seen: list[tuple[object, ...]] = []

    @hookimpl
    @asynccontextmanager
    async def wove_around_task(
        self, weave: str, task: str, environment: str, attempt: int, item: int | None
    ) -> AsyncIterator[None]:
        self.seen.append((weave, task, environment, attempt, item))
        token = span.set(f"span of {task}")
        yield
        span.reset(token)


class Manager:
    """A manager that does what a test wants when it is entered and left."""

    def __init__(
        self,
        *,
        entering: BaseException | None = None,
        leaving: BaseException | None = None,
        suppress: bool = False,
        until: asyncio.Event | None = None,
    ) -> None:
        self.entering = entering
        self.leaving = leaving
        self.suppress = suppress
        self.until = until
        self.left_with: list[BaseException | None] = []
        self.leaving_began = asyncio.Event()

    @hookimpl
    def wove_around_task(self) -> "Manager":
        return self

    async def __aenter__(self) -> None:
        if self.entering is not None:
            raise self.entering

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        self.left_with.append(error)
        self.leaving_began.set()
        if self.until is not None:
            await self.until.wait()
        if self.leaving is not None:
            raise self.leaving
        return self.suppress


async def _attempt(outcome: Outcome) -> Outcome:
    await asyncio.sleep(0)
    return outcome


async def _around(outcome: Outcome = ("result", None)) -> Outcome:
    around = active_hooks().wove_around_task
    assert around is not None
    return await around(
        lambda: _attempt(outcome), weave="w1", task="report", environment="default", attempt=1, item=None
    )


FAILURE: Outcome = (None, ValueError("the task's own"))


async def test_managers_nest_around_the_attempt(take: Registering) -> None:
    notes: list[object] = []
    take(Spans("inner", notes))
    take(Spans("outer", notes))
    assert await _around() == ("result", None)
    assert notes == ["enter outer", "enter inner", ("leave inner", None), ("leave outer", None)]


async def test_a_failed_attempt_is_seen_by_every_manager_and_stays_the_outcome(take: Registering) -> None:
    notes: list[object] = []
    take(Spans("inner", notes))
    take(Spans("outer", notes))
    assert await _around(FAILURE) is FAILURE
    assert notes[2:] == [("leave inner", FAILURE[1]), ("leave outer", FAILURE[1])]


async def test_what_a_manager_sets_is_seen_by_the_attempt(take: Registering) -> None:
    plugin = Decorated()
    take(plugin)
    around = active_hooks().wove_around_task
    assert around is not None

    async def attempt() -> Outcome:
        return span.get(), None

    outcome = await around(attempt, weave="w1", task="report", environment="jobs", attempt=2, item=7)
    assert outcome == ("span of report", None)
    assert span.get() == "none"
    assert plugin.seen == [("w1", "report", "jobs", 2, 7)]


async def test_a_manager_that_suppresses_the_failure_is_not_heard(take: Registering) -> None:
    take(Manager(suppress=True))
    assert await _around(FAILURE) is FAILURE


async def test_a_generator_that_swallows_the_failure_is_not_heard(take: Registering) -> None:
    class Swallowing:
        @hookimpl
        @asynccontextmanager
        async def wove_around_task(self) -> AsyncIterator[None]:
            try:
                yield
            except ValueError:
                pass

    take(Swallowing())
    assert await _around(FAILURE) is FAILURE


@pytest.mark.parametrize("outcome", [("result", None), FAILURE], ids=["success", "failure"])
@pytest.mark.parametrize("error", [OSError("plugin"), asyncio.CancelledError("plugin")], ids=repr)
async def test_a_manager_that_raises_when_left_is_logged_and_the_outcome_stays(
    take: Registering, caplog: pytest.LogCaptureFixture, outcome: Outcome, error: BaseException
) -> None:
    outer = Manager()
    take(Manager(leaving=error), "acme")
    take(outer)
    assert await _around(outcome) is outcome
    assert outer.left_with == [outcome[1]]
    assert "Plugin 'acme': wove_around_task raised while it was left" in caplog.text


@pytest.mark.parametrize("error", [OSError("plugin"), asyncio.CancelledError("plugin")], ids=repr)
async def test_a_manager_that_raises_when_entered_is_logged_and_not_left(
    take: Registering, caplog: pytest.LogCaptureFixture, error: BaseException
) -> None:
    broken, inner = Manager(entering=error), Manager()
    take(inner)
    take(broken, "acme")
    assert await _around() == ("result", None)
    assert broken.left_with == []
    assert inner.left_with == [None]
    assert "Plugin 'acme': wove_around_task raised while it was entered" in caplog.text


async def test_a_manager_may_raise_the_failure_itself_again(
    take: Registering, caplog: pytest.LogCaptureFixture
) -> None:
    take(Manager(leaving=FAILURE[1]))
    assert await _around(FAILURE) is FAILURE
    assert caplog.records == []


@pytest.mark.parametrize("failure", [StopIteration(1), StopAsyncIteration(), GeneratorExit()], ids=repr)
async def test_an_exception_that_a_generator_cannot_raise_stays_the_outcome(
    take: Registering, failure: BaseException
) -> None:
    notes: list[object] = []
    take(Spans("span", notes))
    outcome: Outcome = (None, failure)
    assert await _around(outcome) is outcome


class Offering:
    def __init__(self, offered: object) -> None:
        self.offered = offered

    @hookimpl
    def wove_around_task(self) -> object:
        if isinstance(self.offered, BaseException):
            raise self.offered
        return self.offered


async def test_a_plugin_may_leave_a_task_alone(take: Registering, caplog: pytest.LogCaptureFixture) -> None:
    take(Offering(None))
    assert await _around() == ("result", None)
    assert caplog.records == []


@pytest.mark.parametrize("offered", [object(), OSError("no collector")], ids=["no manager", "raises"])
async def test_a_plugin_that_offers_no_manager_is_logged(
    take: Registering, caplog: pytest.LogCaptureFixture, offered: object
) -> None:
    take(Offering(offered), "acme")
    assert await _around() == ("result", None)
    assert "Plugin 'acme': wove_around_task" in caplog.text


async def test_a_cancelled_attempt_leaves_every_manager_with_the_cancellation(take: Registering) -> None:
    manager = Manager(suppress=True)
    take(manager)
    around = active_hooks().wove_around_task
    assert around is not None
    started = asyncio.Event()

    async def attempt() -> Outcome:
        started.set()
        await asyncio.Event().wait()
        return "never", None

    running = asyncio.ensure_future(
        around(attempt, weave="w1", task="report", environment="default", attempt=1, item=None)
    )
    await started.wait()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert [type(error) for error in manager.left_with] == [asyncio.CancelledError]


async def test_a_cancellation_while_a_manager_is_left_goes_through_and_the_others_are_left(take: Registering) -> None:
    inner, outer = Manager(until=asyncio.Event()), Manager()
    take(inner)
    take(outer)
    running = asyncio.ensure_future(_around())
    await inner.leaving_began.wait()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert [type(error) for error in outer.left_with] == [asyncio.CancelledError]


async def test_a_cancellation_while_a_manager_is_entered_goes_through_and_the_others_are_left(
    take: Registering,
) -> None:
    entering = asyncio.Event()

    class Slow(Manager):
        async def __aenter__(self) -> None:
            entering.set()
            await asyncio.Event().wait()

    slow, outer = Slow(), Manager()
    take(slow)
    take(outer)
    running = asyncio.ensure_future(_around())
    await entering.wait()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert slow.left_with == []
    assert [type(error) for error in outer.left_with] == [asyncio.CancelledError]
