"""Runs one callable over many items: on the event loop, or drained by threads from one queue."""

import asyncio
import threading
from collections import deque
from collections.abc import (
    AsyncIterator,
    Callable,
    Coroutine,
    ItemsView,
    Iterable,
    Iterator,
    KeysView,
    Sequence,
    ValuesView,
)
from itertools import islice
from time import perf_counter
from typing import TYPE_CHECKING, Any

from wove.flow.runs import Outcome, TaskRun, note_where, own_failure

if TYPE_CHECKING:
    from wove.flow.engine import Engine

# Iterating over these can neither block nor run anybody's code.
_PLAIN = (list, tuple, range, dict, set, frozenset, str, bytes, deque, KeysView, ValuesView, ItemsView)
_PULL_SECONDS = 0.005
_PULL_ITEMS = 1000


def plain_items(source: Any) -> Sequence[Any] | None:
    """Return the items of a builtin container; None for anything whose iteration may block or never end."""
    if type(source) in (list, tuple, range):
        items: Sequence[Any] = source
        return items
    return list(source) if isinstance(source, _PLAIN) else None


def check_source(run: TaskRun, source: Any) -> None:
    """Raise TypeError unless a mapped task's source can be iterated over."""
    if isinstance(source, Iterable) or hasattr(type(source), "__aiter__") or hasattr(type(source), "__getitem__"):
        return
    name = run.node.spec.source_name
    what = f"the result of {name!r}" if name else "a value"
    kind = type(source).__name__
    raise TypeError(f"Task {run.name!r} is mapped over {what} of type {kind!r}, which cannot be iterated over.")


def too_many(run: TaskRun, limit: int) -> RuntimeError:
    return RuntimeError(
        f"Task {run.name!r} is mapped over more than max_pending={limit} items. "
        "Raise max_pending or map over fewer items."
    )


class LoopMap:
    """Maps on the event loop: an asyncio task for each item, at most `workers` at a time, evenly spaced if limited per
    minute.

    Lives as long as the mapped task; used on the weave's loop only.

    Args:
        engine: the weave's engine.
        run: the record of the mapped task.
        call: runs one item to its outcome, given its index; every exception but a cancellation is part of the outcome.
        plain: the coroutine function itself, where no option asks for more than one call of it.
    """

    def __init__(
        self,
        engine: "Engine",
        run: TaskRun,
        call: Callable[[Any, int], Coroutine[Any, Any, Outcome]],
        plain: Callable[[Any], Coroutine[Any, Any, Any]] | None = None,
    ) -> None:
        self._engine = engine
        self._run = run
        self._call = call
        self._plain = plain
        self._loop = engine.loop
        self._results: list[Any] = []
        self._spans: list[tuple[float, float] | None] = []
        run.items = self._spans
        self._tasks: set[asyncio.Task[None]] = set()
        self._failures: list[BaseException] = []
        self._limit = run.options["workers"] or 0
        per_minute = run.options["limit_per_minute"]
        self._interval = 60.0 / per_minute if per_minute else 0.0
        self._next_start = 0.0
        self._wake: asyncio.Future[None] | None = None

    async def outcome(self, source: Any) -> Outcome:
        """Run all items of the source; the result is the list of values in the items' order, or the first failure."""
        try:
            await self._start_all(source)
            while self._tasks and not self._failures:
                await self._sleep()
        finally:
            await self._end_tasks()
        if self._failures:
            return None, self._failures[0]
        return self._results, None

    async def _start_all(self, source: Any) -> None:
        most = self._engine.max_pending
        items = plain_items(source)
        if items is not None:
            if most is not None and len(items) > most:
                raise too_many(self._run, most)
            if not self._limit and not self._interval:
                for item in items:
                    self._start(item)
                return
            pulled = _pull_plain(items)
        else:
            pulled = self._engine.pull(source, self._run.context)
        async for item in pulled:
            if most is not None and len(self._results) >= most:
                raise too_many(self._run, most)
            await self._wait_for_turn()
            if self._failures:
                return
            self._start(item)

    async def _wait_for_turn(self) -> None:
        while self._limit and len(self._tasks) >= self._limit and not self._failures:
            await self._sleep()
        if self._interval:
            now = self._loop.time()
            while now < self._next_start and not self._failures:
                await self._sleep(self._next_start - now)
                now = self._loop.time()
            self._next_start = max(now, self._next_start) + self._interval

    def _start(self, item: Any) -> None:
        index = len(self._results)
        self._results.append(None)
        self._spans.append(None)
        one = self._one(index, item) if self._plain is None else self._one_plain(index, item, self._plain)
        task = self._loop.create_task(one, context=self._run.context.copy())
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    async def _one(self, index: int, item: Any) -> None:
        started = perf_counter()
        value, failure = await self._call(item, index)
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
            failure = own_failure(error, self._run.name)
            self._failed(failure, index)
        self._spans[index] = (started, perf_counter())

    def _failed(self, failure: BaseException, index: int) -> None:
        note_where(failure, task=self._run.name, environment=self._run.environment, item=index)
        self._failures.append(failure)
        self._engine.failures.append(failure)

    def _ended(self, task: "asyncio.Task[None]") -> None:
        self._tasks.discard(task)
        if (self._failures or self._limit or not self._tasks) and self._wake is not None and not self._wake.done():
            self._wake.set_result(None)

    async def _sleep(self, seconds: float | None = None) -> None:
        self._wake = self._loop.create_future()
        timer = None if seconds is None else self._loop.call_later(seconds, self._wake_up, self._wake)
        try:
            await self._wake
        finally:
            self._wake = None
            if timer is not None:
                timer.cancel()

    @staticmethod
    def _wake_up(wake: "asyncio.Future[None]") -> None:
        if not wake.done():
            wake.set_result(None)

    async def _end_tasks(self) -> None:
        pending = list(self._tasks)
        for task in pending:
            task.cancel()
        if pending:
            await asyncio.wait(pending)


async def _pull_plain(items: Iterable[Any]) -> AsyncIterator[Any]:
    for item in items:
        yield item


def pull_chunk(iterator: Iterator[Any]) -> list[Any]:
    """Take items for a few milliseconds, at least one; an empty list means that there are no more."""
    chunk: list[Any] = []
    until = perf_counter() + _PULL_SECONDS
    for item in islice(iterator, _PULL_ITEMS):
        chunk.append(item)
        if perf_counter() > until:
            break
    return chunk


class ThreadMap:
    """Maps a synchronous callable: threads drain the items, so that an item costs neither a future nor a wake-up.

    Each thread that takes an item starts the next thread first, as long as there are items and threads to be had.
    """

    def __init__(self, engine: "Engine", run: TaskRun, call: Callable[[Any], Any]) -> None:
        self._engine = engine
        self._run = run
        self._call = call
        self._workers = min(run.options["workers"] or engine.max_workers, engine.max_workers)
        self._attempts = run.options["retries"] + 1
        self._lock = threading.Lock()
        self._source: Any = ()
        self._items: Iterator[Any] | None = None
        self._length: int | None = None
        self._results: list[Any] = []
        self._spans: list[tuple[float, float] | None] = []
        run.items = self._spans
        self._failures: list[BaseException] = []
        self._active = 0
        self._spawned = 0
        self._exhausted = False
        self._over: asyncio.Future[None] | None = None

    async def outcome(self, source: Any) -> Outcome:
        """Run all items; the result is the list of values in the items' order, or the first failure."""
        most = self._engine.max_pending
        items = plain_items(source)
        if items is not None:
            if most is not None and len(items) > most:
                raise too_many(self._run, most)
            self._length = len(items)
        self._source = source if items is None else items
        if self._length == 0:
            return [], None
        self._over = self._engine.loop.create_future()
        with self._lock:
            self._add_thread()
        try:
            await self._over
        finally:
            self._exhausted = True
        if self._failures:
            return None, self._failures[0]
        return self._results, None

    def _add_thread(self) -> None:
        self._spawned += 1
        self._active += 1
        self._engine.threads.submit(self._drain)

    def _drain(self) -> None:
        try:
            while self._take_one():
                pass
        except BaseException as error:  # The source itself failed.
            self._failed(error)
        with self._lock:
            self._active -= 1
            last = self._active == 0
        if last:
            self._engine.call_soon(self._all_ended)

    def _take_one(self) -> bool:
        with self._lock:
            if self._exhausted:
                return False
            if self._items is None:
                # Already this may block: a database query, a lazy file.
                self._items = iter(self._source)
            try:
                item = next(self._items)
            except StopIteration:
                self._exhausted = True
                return False
            index = len(self._results)
            most = self._engine.max_pending
            if most is not None and index >= most:
                raise too_many(self._run, most)
            self._results.append(None)
            self._spans.append(None)
            if self._spawned < self._workers and (self._length is None or index + 1 < self._length):
                self._add_thread()
        self._run_item(index, item)
        return True

    def _run_item(self, index: int, item: Any) -> None:
        started = perf_counter()
        for attempt in range(1, self._attempts + 1):
            try:
                self._results[index] = self._run.context.copy().run(self._call, item)
            except BaseException as error:
                if attempt < self._attempts and isinstance(error, Exception) and not self._exhausted:
                    continue
                note_where(error, task=self._run.name, environment=self._run.environment, item=index)
                self._failed(error)
            break
        self._spans[index] = (started, perf_counter())

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

    def _all_ended(self) -> None:
        if self._over is not None and not self._over.done():
            self._over.set_result(None)


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
