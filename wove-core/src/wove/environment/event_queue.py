"""Events on their way from an executor's connections to whoever awaits its `recv`."""

import asyncio
from collections import deque
from typing import Any


class EventQueue:
    """A queue of event frames with one reader at a time, all on one loop.

    Not bounded: it holds a few events for each run in flight, and whoever sends runs also receives.
    """

    __slots__ = ("_events", "_reader")

    def __init__(self) -> None:
        self._events: deque[dict[str, Any]] = deque()
        self._reader: asyncio.Future[None] | None = None

    def put(self, event: dict[str, Any]) -> None:
        """Append an event."""
        self._events.append(event)
        if self._reader is not None and not self._reader.done():
            self._reader.set_result(None)

    async def get(self) -> dict[str, Any]:
        """Return the next event; waits until there is one. A reader that is cancelled loses none."""
        while not self._events:
            self._reader = asyncio.get_running_loop().create_future()
            try:
                await self._reader
            finally:
                self._reader = None
        return self._events.popleft()
