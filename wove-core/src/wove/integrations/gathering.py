"""One conversation with a backend instead of many, for what adapters are asked again and again at one moment."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Generic, TypeVar

T = TypeVar("T")

_MOMENT_SECONDS = 0.005
_CANCEL_SECONDS = 1.0


class Gathering(Generic[T]):
    """Gathers the items of one moment, such as the runs of a whole map to be cancelled, and deals with them together.

    Lives as long as its adapter; its loop only.

    Args:
        deal: deals with items. While it does, others may be gathered and dealt with.
    """

    def __init__(self, deal: Callable[[list[T]], Coroutine[Any, Any, None]]) -> None:
        self._deal = deal
        # Not bounded itself: one entry per run in flight, for a moment.
        self._items: list[T] = []
        self._gathering: asyncio.Task[None] | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def add(self, item: T) -> None:
        """Return when an item has been dealt with; raises what that raised. Cancelling the caller does not stop it."""
        self._items.append(item)
        if self._gathering is None:
            self._gathering = asyncio.get_running_loop().create_task(self._deal_soon())
            self._tasks.add(self._gathering)
            self._gathering.add_done_callback(self._tasks.discard)
        await asyncio.shield(self._gathering)

    async def close(self, seconds: float) -> None:
        """Wait for what is being dealt with, and stop what is not done after some seconds."""
        if not self._tasks:
            return
        _, late = await asyncio.wait(list(self._tasks), timeout=seconds)
        for task in late:
            task.cancel()
        if late:
            await asyncio.wait(late, timeout=_CANCEL_SECONDS)

    async def _deal_soon(self) -> None:
        await asyncio.sleep(_MOMENT_SECONDS)
        items, self._items = self._items, []
        self._gathering = None
        await self._deal(items)
