"""Runs one synchronous callable over many items, drained by threads from one queue."""

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextvars import Context
from time import perf_counter
from typing import TYPE_CHECKING, Any

from wove.flow.runs import Outcome, TaskRun, discard, note_where
from wove.flow.sources import plain_items, too_many

if TYPE_CHECKING:
    from wove.flow.engine import Engine


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
        wanted = False
        try:
            await self._over
            wanted = not self._failures and not self._cut_short
        finally:
            self._give_up()
            if not wanted:
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
            self._engine.stopping |= not self._run.is_merge
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
