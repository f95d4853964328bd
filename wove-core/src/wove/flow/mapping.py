"""Runs one callable over many items: on the event loop, or drained by threads from one queue."""

import asyncio
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextlib import aclosing
from contextvars import Context
from time import perf_counter
from typing import TYPE_CHECKING, Any

from wove.flow.runs import Outcome, TaskRun, all_ended, cancelled_inside, discard, note_where
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
            self._spawn(self._feed(source if items is None else items, plain=items is not None))
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
                    async for item in items:
                        if not await self._start_in_turn(item):
                            return
        except BaseException as error:
            if self._closing and isinstance(error, asyncio.CancelledError):
                raise
            # The source failed, not an item: the task's own failure, which the runner notes.
            self._failures.append(self._failure(error))

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
        self._spawn(self._one(index, item) if self._plain is None else self._one_plain(index, item, self._plain))

    def _spawn(self, coroutine: Coroutine[Any, Any, None]) -> None:
        task = self._engine.start(coroutine, self._run.context.copy())
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

    def _ended(self, task: "asyncio.Task[None]") -> None:
        self._tasks.discard(task)
        if self._turn is not None and not self._turn.done():
            self._turn.set_result(None)
        if (self._failures or not self._tasks) and self._over is not None and not self._over.done():
            self._over.set_result(None)


class ThreadMap:
    """Maps a synchronous callable: threads drain the items, so that an item costs neither a future nor a wake-up.

    Each thread that takes an item starts the next thread first, as long as there are items and threads to be had.

    Attributes:
        items: the items, by index, of the calls that returned an awaitable and may be made again.
    """

    def __init__(self, engine: "Engine", run: TaskRun, call: Callable[[Any], Any]) -> None:
        self._engine = engine
        self._run = run
        self._call = call
        self._workers = min(run.options["workers"] or engine.max_workers, engine.max_workers)
        self._attempts = run.options["retries"] + 1
        # The first is held while the source gives an item, which may take long; the second for moments.
        self._source_lock = threading.Lock()
        self._lock = threading.Lock()
        self._source: Iterator[Any] = iter(())
        self._length: int | None = None
        self._exhausted = False
        self._results: list[Any] = []
        self._spans: list[tuple[float, float] | None] = []
        run.items = self._spans
        self.items: dict[int, Any] = {}
        self._failures: list[BaseException] = []
        # Threads that drain, or stand in the queue to go on with it; those that are at it; all that ever were.
        self._draining = 0
        self._busy = 0
        self._threads = 0
        self._given_up = False
        self._cut_short = False
        self._over: asyncio.Future[None] | None = None

    async def outcome(self, source: Any) -> Outcome:
        """Run all items; the result is the list of values in the items' order, or the first failure."""
        most = self._engine.max_pending
        items = plain_items(source)
        if items is not None:
            if most is not None and len(items) > most:
                raise too_many(self._run, most)
            self._length = len(items)
        if self._length == 0:
            return [], None
        self._source = _in_context(source, self._run.context.copy()) if items is None else iter(items)
        self._over = self._engine.loop.create_future()
        self._add_thread()
        try:
            await self._over
        finally:
            self._give_up()
            if self._failures or self._over.cancelled():
                for value in self._results:
                    discard(value)
        if self._failures:
            return None, self._failures[0]
        if self._cut_short:
            raise asyncio.CancelledError
        return self._results, None

    def _add_thread(self) -> None:
        with self._lock:
            if self._threads == self._workers or self._given_up:
                return
            self._threads += 1
            self._draining += 1
        self._engine.threads.submit(self._drain, urgent=self._run.is_merge)

    def _enter(self) -> bool:
        with self._lock:
            self._busy += not self._given_up
            return not self._given_up

    def _drain(self) -> None:
        if not self._enter():
            return
        again = False
        try:
            # Whoever waits for a thread gets this one after the item; the map goes to the end of the queue.
            while not again and self._take_one():
                again = self._engine.threads.crowded
        except BaseException as error:  # The source itself failed.
            self._failed(error)
        with self._lock:
            self._busy -= 1
            self._draining -= not again
            last, given_up = self._draining == 0, self._given_up
        if given_up:
            self._engine.threads.restore()
        elif again:
            self._engine.threads.submit(self._drain, urgent=self._run.is_merge)
        elif last:
            self._engine.call_soon(self._all_ended)

    def _take_one(self) -> bool:
        with self._source_lock:
            if self._exhausted:
                return False
            if self._engine.stopping:
                self._cut_short = True
                return False
            try:
                item = next(self._source)
            except StopIteration:
                self._exhausted = True
                return False
            index = len(self._results)
            most = self._engine.max_pending
            if most is not None and index >= most:
                raise too_many(self._run, most)
            self._results.append(None)
            self._spans.append(None)
        if self._threads < self._workers and (self._length is None or index + 1 < self._length):
            self._add_thread()
        self._run_item(index, item)
        return True

    def _run_item(self, index: int, item: Any) -> None:
        started = perf_counter()
        for attempt in range(1, self._attempts + 1):
            try:
                value = self._run.context.copy().run(self._call, item)
            except BaseException as error:
                if attempt < self._attempts and isinstance(error, Exception) and not self._failures:
                    continue
                note_where(error, task=self._run.name, environment=self._run.environment, item=index)
                self._failed(error)
            else:
                self._keep(index, value, item)
            break
        self._spans[index] = (started, perf_counter())

    def _keep(self, index: int, value: Any, item: Any) -> None:
        self._results[index] = value
        if self._attempts > 1 and hasattr(type(value), "__await__"):
            self.items[index] = item
        if self._given_up:
            discard(value)

    def _failed(self, error: BaseException) -> None:
        with self._lock:
            self._failures.append(error)
            self._engine.failures.append(error)
            self._exhausted = True
            first = len(self._failures) == 1
        if first:
            # What the other threads are just doing gets a moment to end, so that their failures are not lost.
            self._engine.call_soon(self._give_up_soon)

    def _give_up_soon(self) -> None:
        self._engine.loop.call_later(self._engine.SETTLE_SECONDS, self._all_ended)

    def _give_up(self) -> None:
        """Wait for no thread any more; those that are stuck get replaced."""
        with self._lock:
            self._given_up = self._exhausted = True
            stuck = self._busy
        for _ in range(stuck):
            self._engine.threads.replace()

    def _all_ended(self) -> None:
        if self._over is not None and not self._over.done():
            self._over.set_result(None)


def _in_context(source: Any, context: Context) -> Iterator[Any]:
    """Iterate within one context: what a generator sets, it finds again."""
    # Already this may block: a database query, a lazy file.
    iterator = context.run(iter, source)
    end = object()
    while (item := context.run(next, iterator, end)) is not end:
        yield item


def item_call(run: TaskRun, arguments: dict[str, Any]) -> Callable[[Any], Any]:
    """Return a callable of the item alone, as cheap to call as can be."""
    spec = run.node.spec
    function = spec.function
    parameter = run.node.item_parameter or ""
    if not arguments and spec.parameters.positional and parameter == spec.parameters.names[0]:
        return function
    if parameter in spec.parameters.positional_only:
        return lambda item: function(item, **arguments)
    return lambda item: function(**{parameter: item}, **arguments)
