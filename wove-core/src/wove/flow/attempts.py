"""One call of a task's callable with its options: retries, timeout, thread or loop or remote environment."""

import asyncio
from contextvars import copy_context
from typing import TYPE_CHECKING, Any, cast

from wove.errors import TaskTimeoutError
from wove.flow.mapping import LoopMap, ThreadMap, check_source, item_call
from wove.flow.runs import Outcome, TaskRun, note_where, own_failure
from wove.flow.tasks import callable_by_name

if TYPE_CHECKING:
    from wove.flow.engine import Engine


async def awaited(awaitable: Any, task: str) -> Outcome:
    """Await anything and return its outcome; only a cancellation that was asked of the current asyncio task is
    raised.
    """
    try:
        return await awaitable, None
    except BaseException as error:
        return None, own_failure(error, task)


class Call:
    """Calls one task's callable, or that of a `merge`, in the place that its environment names.

    Args:
        engine: runs the calls of the weave.
        run: the task's record; for `merge`, one that is not part of the graph.
    """

    __slots__ = ("_engine", "_function", "_run")

    def __init__(self, engine: "Engine", run: TaskRun) -> None:
        self._engine = engine
        self._run = run
        spec = run.node.spec
        item = run.node.item_parameter
        self._function = spec.function if item is None else callable_by_name(spec.function, item, spec.parameters)

    async def outcome(self, arguments: dict[str, Any], item: int | None = None) -> Outcome:
        """Make every attempt with these arguments, in the context of the current asyncio task; return the outcome."""
        run, number = self._run, 1
        while True:
            outcome = await self._within_timeout(arguments, number, item)
            failure = outcome[1]
            # Only an Exception is retried: an interrupt or an exit is meant to end things.
            if number > run.options["retries"] or not isinstance(failure, Exception):
                break
            notify = self._engine.hooks.wove_task_retried
            if notify is not None:
                notify(weave=self._engine.weave, task=run.name, item=item, attempt=number, exception=failure)
            number += 1
        if failure is not None:
            note_where(failure, task=run.name, environment=run.environment, item=item)
        return outcome

    async def _within_timeout(self, arguments: dict[str, Any], number: int, item: int | None) -> Outcome:
        seconds = self._run.options["timeout"]
        if seconds is None:
            return await self._attempt(arguments, number, item)
        try:
            async with asyncio.timeout(seconds):
                return await self._attempt(arguments, number, item)
        except TimeoutError:
            # The attempt returns its own TimeoutErrors as outcomes, so this one can only be the deadline.
            return None, TaskTimeoutError(self._run.name, seconds)

    async def _attempt(self, arguments: dict[str, Any], number: int, item: int | None) -> Outcome:
        engine, run = self._engine, self._run

        async def attempt() -> Outcome:
            notify = engine.hooks.wove_task_started
            if notify is not None:
                place = run.environment
                notify(weave=engine.weave, task=run.name, item=item, attempt=number, environment=place)
            return await self._place(arguments, number, item)

        around = engine.hooks.wove_around_task
        if around is None:
            return await attempt()
        return await around(
            attempt, weave=engine.weave, task=run.name, environment=run.environment, attempt=number, item=item
        )

    async def _place(self, arguments: dict[str, Any], number: int, item: int | None) -> Outcome:
        run = self._run
        if not run.is_local:
            remote = self._engine.remotely(run, self._function, arguments, attempt=number, item=item)
            return await awaited(remote, run.name)
        if run.node.spec.is_async:
            return await awaited(self._function(**arguments), run.name)
        value, failure = await self._engine.in_thread(copy_context(), self._function, arguments)
        if failure is None and hasattr(type(value), "__await__"):
            return await awaited(value, run.name)
        return value, failure


async def map_over(engine: "Engine", run: TaskRun, source: Any, arguments: dict[str, Any]) -> Outcome:
    """Run a mapped task's callable over a source.

    Returns:
        The list of values in the order of the items, or the first failure.
    """
    try:
        check_source(run, source)
        if _fits_threads(engine, run, source):
            values = await ThreadMap(engine, run, item_call(run, arguments)).outcome(source)
            return await _settled(engine, run, values)
        parameter = cast(str, run.node.item_parameter)
        call = Call(engine, run)

        async def one(item: Any, index: int) -> Outcome:
            return await call.outcome({parameter: item, **arguments}, index)

        plain = run.plain and engine.unobserved and run.node.spec.is_async
        return await LoopMap(engine, run, one, item_call(run, arguments) if plain else None).outcome(source)
    except Exception as error:  # The source, not an item.
        return None, error


def _fits_threads(engine: "Engine", run: TaskRun, source: Any) -> bool:
    """Whether threads may drain the items by themselves: nothing of an item concerns the loop."""
    options = run.options
    return (
        run.is_local
        and not run.node.spec.is_async
        and engine.unobserved
        and engine.hooks.wove_task_retried is None
        and options["timeout"] is None
        and options["limit_per_minute"] is None
        and not hasattr(type(source), "__aiter__")
    )


async def _settled(engine: "Engine", run: TaskRun, outcome: Outcome) -> Outcome:
    """Await what a synchronous callable returned where it returned awaitables, as a lambda around a coroutine does."""
    values, failure = outcome
    if failure is not None or not any(hasattr(type(value), "__await__") for value in values):
        return outcome

    async def value_of(value: Any) -> Any:
        return await value if hasattr(type(value), "__await__") else value

    async def one(value: Any, index: int) -> Outcome:
        return await awaited(value_of(value), run.name)

    return await LoopMap(engine, run, one).outcome(values)
