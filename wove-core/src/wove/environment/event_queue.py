"""Events on their way from an executor's connections to whoever awaits its `recv`, or listens."""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any

from wove.backend.stdio_codec import started_event

Listener = Callable[[dict[str, Any], bool], bool]
"""Takes an event at once, and that its run has started, if this is not known yet; returns whether it has done so."""

# As many events are heard at once before the loop looks at its timers and sockets again.
_HEARD_AT_ONCE = 64


class EventQueue:
    """A queue of event frames with one reader at a time, all on one loop.

    Not bounded: it holds a few events for each run in flight, and whoever sends runs also receives.

    A reader that also listens is spared a turn of the loop for each event: what its listener takes at once does not
    pass through the queue.
    """

    __slots__ = ("_events", "_heard", "_listener", "_reader")

    def __init__(self) -> None:
        self._events: deque[dict[str, Any] | Exception] = deque()
        self._reader: asyncio.Future[None] | None = None
        self._listener: Listener | None = None
        self._heard = 0

    def listen(self, listener: Listener | None) -> None:
        """Offer each event to a listener first, from now on. What it raises is raised by `get`."""
        self._listener = listener

    def put(self, event: dict[str, Any], *, started: bool = False) -> None:
        """Append an event, unless the listener takes it.

        Args:
            event: the event.
            started: it is final, and says also that the run has started; who reads is told so by an event before it.
        """
        if self._listener is not None and not self._events and self._heard < _HEARD_AT_ONCE:
            try:
                taken = self._listener(event, started)
            except Exception as failure:
                self.fail(failure)
                return
            if taken:
                self._heard += 1
                return
        if started:
            self._append({**started_event(event)})
        self._append(event)

    def fail(self, error: Exception) -> None:
        """Let `get` raise an error when all events before it have been read."""
        self._append(error)

    async def get(self) -> dict[str, Any]:
        """Return the next event; waits until there is one. A reader that is cancelled loses none.

        Raises:
            Exception: the error that `fail` was given, or that the listener raised.
        """
        while not self._events:
            self._heard = 0
            self._reader = asyncio.get_running_loop().create_future()
            try:
                await self._reader
            finally:
                self._reader = None
        event = self._events.popleft()
        if isinstance(event, Exception):
            raise event
        return event

    def _append(self, event: dict[str, Any] | Exception) -> None:
        self._events.append(event)
        if self._reader is not None and not self._reader.done():
            self._reader.set_result(None)
