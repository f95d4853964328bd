"""Keeps ARQ's mark of a running job for a few seconds at a time, so that it does not outlive a dead worker.

By itself the mark lasts as long as a job may take, and only then is the job of a dead worker executed again.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from weakref import WeakKeyDictionary

from wove_arq.exchange import Exchange

# Several times in `ALIVE_SECONDS`.
_SIGN_SECONDS = 1.5


class Presence:
    """The jobs that a worker executes right now. One for each worker; belongs to its loop.

    Attributes:
        exchange: what they say to Redis.
    """

    def __init__(self) -> None:
        self.exchange = Exchange()
        self._running: set[str] = set()
        self._idle = asyncio.Event()
        self._signing: asyncio.Task[None] | None = None

    @asynccontextmanager
    async def of(self, job_id: str, redis: Any) -> AsyncIterator[bool]:
        """Show for the time of an ``async with`` block, and from its very beginning, that a job is executed.

        Args:
            job_id: ARQ's id.
            redis: the worker's pool.

        Yields:
            Whether Redis has said meanwhile that the adapter has not taken the job back.
        """
        self._running.add(job_id)
        self._idle.clear()
        if self._signing is None or self._signing.done():
            self._signing = asyncio.get_running_loop().create_task(self._sign(redis))
        try:
            # The adapter deletes what a worker shall not begin.
            yield await self.exchange.say(job_id, redis)
        finally:
            self._running.discard(job_id)
            if not self._running:
                self._idle.set()

    async def _sign(self, redis: Any) -> None:
        while self._running:
            try:
                await asyncio.wait_for(self._idle.wait(), _SIGN_SECONDS)
            except TimeoutError:
                await asyncio.gather(*(self.exchange.say(job_id, redis) for job_id in self._running))


_presences: WeakKeyDictionary[Any, Presence] = WeakKeyDictionary()


def presence_of(redis: Any) -> Presence:
    """Return the one for a worker's pool."""
    found = _presences.get(redis)
    if found is None:
        found = _presences[redis] = Presence()
    return found
