"""One call of a task's callable with its options: retries, timeout, thread or loop or remote environment."""

import asyncio
from contextvars import copy_context
from typing import TYPE_CHECKING, Any

from wove.errors import TaskTimeoutError
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

    async def outcome(self, arguments: dict[str, Any], item: int | None = None, *, first: int = 1) -> Outcome:
        """Make every attempt with these arguments, in the context of the current asyncio task; return the outcome.

        Args:
            arguments: by name.
            item: the index of the item that is among them.
            first: the number of the first attempt to make.
        """
        run, number = self._run, first
        # Each coroutine in between costs a remote task of many a few microseconds.
        plain = self._engine.unobserved and run.options["timeout"] is None
        attempt = self._place if plain else self._within_timeout
        while True:
            outcome = await attempt(arguments, number, item)
            failure = outcome[1]
            # Only an Exception is retried: an interrupt or an exit is meant to end things.
            if number > run.options["retries"] or not isinstance(failure, Exception) or self._given_up():
                break
            notify = self._engine.hooks.wove_task_retried
            if notify is not None:
                notify(weave=self._engine.weave, task=run.name, item=item, attempt=number, exception=failure)
            number += 1
        if failure is not None:
            note_where(failure, task=run.name, environment=run.environment, item=item)
        return outcome

    def _given_up(self) -> bool:
        current = asyncio.current_task()
        return self._engine.stopping or (current is not None and current.cancelling() > 0)

    async def _within_timeout(self, arguments: dict[str, Any], number: int, item: int | None) -> Outcome:
        seconds = self._run.options["timeout"]
        if seconds is None:
            return await self._attempt(arguments, number, item)
        try:
            async with asyncio.timeout(seconds) as clock:
                return await self._attempt(arguments, number, item, clock)
        except TimeoutError:
            # The attempt returns its own TimeoutErrors as outcomes, so this one can only be the deadline.
            return None, TaskTimeoutError(self._run.name, seconds)

    async def _attempt(
        self, arguments: dict[str, Any], number: int, item: int | None, clock: asyncio.Timeout | None = None
    ) -> Outcome:
        engine, run = self._engine, self._run

        async def attempt() -> Outcome:
            notify = engine.hooks.wove_task_started
            if notify is not None:
                place = run.environment
                notify(weave=engine.weave, task=run.name, item=item, attempt=number, environment=place)
            return await self._place(arguments, number, item, clock)

        around = engine.hooks.wove_around_task
        if around is None:
            return await attempt()
        return await around(
            attempt, weave=engine.weave, task=run.name, environment=run.environment, attempt=number, item=item
        )

    async def _place(
        self, arguments: dict[str, Any], number: int, item: int | None, clock: asyncio.Timeout | None = None
    ) -> Outcome:
        engine, run = self._engine, self._run
        if not run.is_local:
            try:
                return await engine.remotely(run, self._function, arguments, attempt=number, item=item), None
            except BaseException as error:
                return None, own_failure(error, run.name)
        if run.node.spec.is_async:
            try:
                value = self._function(**arguments)
            except BaseException as error:  # A decorator may look asynchronous and be it in part only.
                return None, error
        else:
            value, failure = await engine.in_thread(
                copy_context(), self._function, arguments, urgent=run.is_merge, clock=clock
            )
            if failure is not None or not hasattr(type(value), "__await__"):
                return value, failure
        return await awaited(value, run.name)
