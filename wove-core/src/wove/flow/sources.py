"""What a mapped task is mapped over: plain containers, and what has to be asked item by item."""

import asyncio
from collections import deque
from collections.abc import (
    AsyncGenerator,
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

from wove.flow.runs import TaskRun, all_ended

if TYPE_CHECKING:
    from wove.flow.engine import Engine

# Iterating over these can neither block nor run anybody's code.
_PLAIN = (list, tuple, range, dict, set, frozenset, str, bytes, deque, KeysView, ValuesView, ItemsView)
_CHUNK_SECONDS = 0.005
_CHUNK_ITEMS = 1000


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
    what = f"{'an initial value' if run.node.source_task is None else 'the result of'} {name!r}" if name else "a value"
    kind = type(source).__name__
    raise TypeError(f"Task {run.name!r} is mapped over {what} of type {kind!r}, which cannot be iterated over.")


def too_many(run: TaskRun, limit: int) -> RuntimeError:
    return RuntimeError(
        f"Task {run.name!r} is mapped over more than max_pending={limit} items. "
        "Raise max_pending or map over fewer items."
    )


async def pulled(engine: "Engine", run: TaskRun, source: Any) -> AsyncGenerator[Any, None]:
    """Iterate over anything; what may block is iterated over on a thread, only as far as items are asked for.

    Close it (`contextlib.aclosing`) when it is given up: an asynchronous source is closed with it.
    """
    if hasattr(type(source), "__aiter__"):
        iterator = aiter(source)
        try:
            async for item in iterator:
                yield item
        finally:
            close = getattr(iterator, "aclose", None)
            if close is not None:
                await close()
        return
    # One context for all of it: what a generator sets, it finds again.
    context = run.context.copy()
    iterator, failure = await engine.in_thread(context, lambda: iter(source), {}, urgent=run.is_merge)
    if failure is not None:
        raise failure
    exhausted = False
    while not exhausted:
        chunk = _Chunk(engine, iterator)
        taking = engine.start(engine.in_thread(context, chunk.take, {}, urgent=run.is_merge))
        taking.add_done_callback(chunk.wake_up)
        try:
            while await chunk.has_items(taking):
                yield chunk.items.popleft()
        finally:
            taking.cancel()
            await all_ended([taking])
        exhausted, failure = taking.result()
        if failure is not None:
            raise failure


class _Chunk:
    """Some items, taken from an iterator on a thread and handed to the loop one by one: the first does not wait for
    the second.

    `take` runs on the thread, everything else on the loop.
    """

    __slots__ = ("_engine", "_iterator", "_news", "_told", "items")

    def __init__(self, engine: "Engine", iterator: Iterator[Any]) -> None:
        self.items: deque[Any] = deque()
        self._engine = engine
        self._iterator = iterator
        self._news: asyncio.Future[None] | None = None
        self._told = False

    def take(self) -> bool:
        """Take items for a few milliseconds, at least one if there are any; return whether there are no more."""
        taken = 0
        until = perf_counter() + _CHUNK_SECONDS
        for item in islice(self._iterator, _CHUNK_ITEMS):
            self.items.append(item)
            taken += 1
            # One wake-up of the loop serves all items that come until it is awake.
            if not self._told:
                self._told = True
                self._engine.call_soon(self.wake_up)
            if perf_counter() > until:
                return False
        return taken < _CHUNK_ITEMS

    async def has_items(self, taking: "asyncio.Task[Any]") -> bool:
        """Wait until there are items, or the taking has ended without any more."""
        while not self.items:
            self._told = False
            if taking.done():
                return bool(self.items)
            if not self.items:
                self._news = self._engine.loop.create_future()
                await self._news
        return True

    def wake_up(self, _: object = None) -> None:
        if self._news is not None and not self._news.done():
            self._news.set_result(None)
