"""Runs one callable over many items on the event loop."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import aclosing
from time import perf_counter
from typing import TYPE_CHECKING, Any

from wove.flow.runs import Outcome, TaskRun, all_ended, cancelled_inside, note_where
from wove.flow.sources import plain_items, pulled, too_many

if TYPE_CHECKING:
    from wove.flow.engine import Engine


class LoopMap:
    """Maps on the event loop: an asyncio task for each item, at most `workers` at a time, evenly spaced if limited per
    minute.

    Lives as long as the mapped task; used on the weave's loop only.

    Args:
        engine: the weave's engine.
        run: the record of the mapped task.
        call: runs one item to its outcome, given its index; every exception but a cancellation is part of the outcome.
        plain: the coroutine function itself, where no option asks for more than one call of it.
        limit: the most items at a time, or None.
    """

    def __init__(
        self,
        engine: "Engine",
        run: TaskRun,
        call: Callable[[Any, int], Coroutine[Any, Any, Outcome]],
        plain: Callable[[Any], Coroutine[Any, Any, Any]] | None = None,
        *,
        limit: int | None = None,
    ) -> None:
        self._engine = engine
        self._run = run
        self._call = call
        self._plain = plain
        self._results: list[Any] = []
        self._spans: list[tuple[float, float] | None] = []
        run.items = self._spans
        # The items that run, and the feeder that starts them one by one, if there is one.
        self._tasks: set[asyncio.Task[None]] = set()
        self._feeder: asyncio.Task[None] | None = None
        self._feeding = False
        self._failures: list[BaseException] = []
        self._closing = False
        self._cut_short = False
        self._limit = limit or 0
        per_minute = run.options["limit_per_minute"]
        self._interval = 60.0 / per_minute if per_minute else 0.0
        self._next_start = 0.0
        # What the feeder waits for, and what `outcome` waits for.
        self._turn: asyncio.Future[None] | None = None
        self._over: asyncio.Future[None] | None = None

    async def outcome(self, source: Any) -> Outcome:
        """Run all items of the source; the result is the list of values in the items' order, or the first failure."""
        try:
            self._begin(source)
            while self._tasks and not self._failures:
                self._over = self._engine.loop.create_future()
                await self._over
            if self._failures and self._run.on_threads and self._tasks:
                # Threads cannot be stopped: what they are doing gets a moment to end, lest its failure be lost.
                await asyncio.wait(self._tasks, timeout=self._engine.SETTLE_SECONDS)
        finally:
            self._closing = True
            for task in self._tasks:
                # A feeder that closes its source already is left to it.
                if task is not self._feeder or self._feeding:
                    task.cancel()
            await all_ended(self._tasks)
        if self._failures:
            return None, self._failures[0]
        if self._cut_short:
            raise asyncio.CancelledError
        return self._results, None

    def _begin(self, source: Any) -> None:
        most = self._engine.max_pending
        items = plain_items(source)
        if items is not None and most is not None and len(items) > most:
            raise too_many(self._run, most)
        if items is None or self._limit or self._interval:
            self._feeding = True
            feeding = self._feed(source if items is None else items, plain=items is not None)
            self._feeder = self._engine.start(feeding, self._run.context.copy())
            self._keep(self._feeder)
            return
        for item in items:
            self._start(item)

    async def _feed(self, source: Any, *, plain: bool) -> None:
        try:
            if plain:
                for item in source:
                    if not await self._start_in_turn(item):
                        return
            else:
                async with aclosing(pulled(self._engine, self._run, source)) as items:
                    await self._feed_from(items)
        except BaseException as error:
            if self._closing and isinstance(error, asyncio.CancelledError):
                raise
            # The source failed, not an item: the task's own failure, which the runner notes.
            self._failures.append(self._failure(error))

    async def _feed_from(self, items: AsyncIterator[Any]) -> None:
        try:
            async for item in items:
                if not await self._start_in_turn(item):
                    return
        finally:
            self._feeding = False

    async def _start_in_turn(self, item: Any) -> bool:
        """Start an item as soon as the limits let it; return whether the map goes on."""
        most = self._engine.max_pending
        if most is not None and len(self._results) >= most:
            raise too_many(self._run, most)
        # The feeder is one of the tasks.
        while self._limit and len(self._tasks) > self._limit:
            self._turn = self._engine.loop.create_future()
            await self._turn
        if self._interval:
            await self._pause()
        if self._closing or self._failures or self._engine.stopping:
            self._cut_short = True
            return False
        self._start(item)
        return True

    async def _pause(self) -> None:
        loop = self._engine.loop
        await asyncio.sleep(self._next_start - loop.time())
        self._next_start = max(loop.time(), self._next_start) + self._interval

    def _start(self, item: Any) -> None:
        index = len(self._results)
        self._results.append(None)
        self._spans.append(None)
        one = self._one(index, item) if self._plain is None else self._one_plain(index, item, self._plain)
        self._keep(self._engine.start(one, self._run.context.copy()))

    def _keep(self, task: "asyncio.Task[None]") -> None:
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    async def _one(self, index: int, item: Any) -> None:
        started = perf_counter()
        try:
            value, failure = await self._call(item, index)
        except BaseException as error:
            value, failure = None, self._failure(error)
        self._spans[index] = (started, perf_counter())
        if failure is None:
            self._results[index] = value
        else:
            self._failed(failure, index)

    async def _one_plain(self, index: int, item: Any, function: Callable[[Any], Coroutine[Any, Any, Any]]) -> None:
        # The same without the layers in between: a fan-out of thousands of items should cost what the loop costs.
        started = perf_counter()
        try:
            self._results[index] = await function(item)
        except BaseException as error:
            self._failed(self._failure(error), index)
        self._spans[index] = (started, perf_counter())

    def _failure(self, error: BaseException) -> BaseException:
        if not isinstance(error, asyncio.CancelledError):
            return error
        if self._closing:
            raise error
        return cancelled_inside(error, self._run.name)

    def _failed(self, failure: BaseException, index: int) -> None:
        note_where(failure, task=self._run.name, environment=self._run.environment, item=index)
        self._failures.append(failure)
        self._engine.failures.append(failure)
        self._engine.stopping |= not self._run.is_merge

    def _ended(self, task: "asyncio.Task[None]") -> None:
        self._tasks.discard(task)
        if self._turn is not None and not self._turn.done():
            self._turn.set_result(None)
        if (self._failures or not self._tasks) and self._over is not None and not self._over.done():
            self._over.set_result(None)
