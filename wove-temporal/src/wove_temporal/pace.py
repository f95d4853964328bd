"""How many jobs are being started at a time: as many as the server answers about as fast as it answers one."""

import asyncio
import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

# Answers may take so many times what the fastest one took before a server counts as busy.
_TOLERANCE = 3.0
# How much the latest answer counts beside the earlier ones.
_WEIGHT = 0.2
# The fastest answer is forgotten after one to two times this: a network may have become slower for good.
_MEMORY_SECONDS = 30.0
# A server that has not answered by then is away, or so slow that it does not help to ask it for less.
_PATIENCE = 1.0


class Concurrency:
    """A limit that follows from how long answers take.

    A server that is asked for more than it can do does none of it any sooner, and has more to do: what it starts before
    a worker asks for it waits in its database. A distant one that could do more must not wait for its own answers.

    Attributes:
        limit: how many questions may be under way.

    Args:
        fewest: the limit to begin with; it never becomes lower.
        most: nor higher.
    """

    def __init__(self, fewest: int = 4, most: int = 64) -> None:
        self.limit = fewest
        self._fewest, self._most = fewest, most
        self._recent: float | None = None
        self._fastest = self._fastest_before = math.inf
        self._since = -math.inf

    def answered(self, seconds: float, *, now: float) -> int:
        """Take note of how long an answer took.

        Args:
            seconds: how long.
            now: the time, in seconds of a monotonic clock.

        Returns:
            How the limit has changed: -1, 0 or 1.
        """
        if now - self._since > _MEMORY_SECONDS:
            self._fastest_before, self._fastest, self._since = self._fastest, seconds, now
        self._fastest = min(self._fastest, seconds)
        self._recent = seconds if self._recent is None else self._recent + (seconds - self._recent) * _WEIGHT
        is_busy = self._recent > _TOLERANCE * min(self._fastest, self._fastest_before)
        return self._change(max(self.limit - 1, self._fewest) if is_busy else min(self.limit + 1, self._most))

    def unanswered(self) -> int:
        """Take note that an answer is not coming: nobody has to wait for others to learn that the server is away.

        Returns:
            How the limit has changed.
        """
        return self._change(self._most)

    def _change(self, limit: int) -> int:
        before, self.limit = self.limit, limit
        return limit - before


class Pace:
    """Lets as many questions be under way as a `Concurrency` says, in the order in which they come.

    Args:
        concurrency: the limit.
    """

    def __init__(self, concurrency: Concurrency) -> None:
        self._concurrency = concurrency
        # Those who wait are as many as tasks are being submitted: the weave bounds them.
        self._places = asyncio.Semaphore(concurrency.limit)

    @asynccontextmanager
    async def place(self) -> AsyncIterator[None]:
        """Wait for a place, for the time of one question."""
        loop = asyncio.get_running_loop()
        await self._places.acquire()
        waiting = loop.call_later(_PATIENCE, self._give_up_waiting)
        change = 0
        try:
            began = loop.time()
            yield
            change = self._concurrency.answered(loop.time() - began, now=loop.time())
        finally:
            waiting.cancel()
            self._free(1 + change)

    def _give_up_waiting(self) -> None:
        self._free(self._concurrency.unanswered())

    def _free(self, places: int) -> None:
        for _ in range(places):
            self._places.release()
