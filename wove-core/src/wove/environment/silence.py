"""A time limit that each sign of life sets anew."""

import asyncio
from collections.abc import Callable
from types import TracebackType


class Silence:
    """Ends its block with a `TimeoutError` when it has not been `broken` for too long. May be entered again.

    Used on one event loop. Setting an `asyncio.Timeout` anew means one more timer in the loop's heap; there are five
    signs of life in the shortest conversation, so here one timer goes on from sign to sign.

    Args:
        limit: returns the seconds that may pass until the next sign; None for any number.

    Attributes:
        expired: whether the block was ended.
    """

    __slots__ = ("_due", "_limit", "_loop", "_timeout", "_timer", "expired")

    def __init__(self, limit: Callable[[], float | None]) -> None:
        self.expired = False
        self._limit = limit
        self._loop = asyncio.get_running_loop()
        self._due: float | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._timeout: asyncio.Timeout | None = None

    def broken(self) -> None:
        """Let the clock start again. Does nothing outside of the block."""
        limit = self._limit()
        self._due = None if limit is None else self._loop.time() + limit
        if self._due is not None and (self._timer is None or self._timer.when() > self._due):
            self._wake_at(self._due)

    async def __aenter__(self) -> None:
        self.expired = False
        self._timeout = await asyncio.timeout(None).__aenter__()
        self.broken()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        timeout, self._timeout = self._timeout, None
        if timeout is not None:
            await timeout.__aexit__(kind, error, trace)

    def _wake_at(self, when: float) -> None:
        if self._timeout is None:
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_at(when, self._look)

    def _look(self) -> None:
        self._timer = None
        if self._due is None or self._timeout is None:
            return
        now = self._loop.time()
        if self._due > now:
            self._wake_at(self._due)
        else:
            self.expired = True
            self._timeout.reschedule(now)
