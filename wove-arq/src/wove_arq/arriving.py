"""The adapter's side of outcomes that Redis carries, see `wove_arq.outcomes`."""

import asyncio
import logging
import os
import time
from collections.abc import AsyncIterator
from typing import Any

from redis.exceptions import RedisError

from wove_arq.connecting import connect
from wove_arq.outcomes import stream_of
from wove_arq.settings import Settings

# How long one question may wait for an answer, and how much longer Redis may take for it before it counts as away.
_WAIT_SECONDS, _ANSWER_SECONDS = 5.0, 5.0
_CLOSE_SECONDS = 1.0
# Entries at a time.
_AT_ONCE = 50
_IN_A_ROW_SECONDS, _GATHER_SECONDS = 0.01, 0.003
_FIRST_PAUSE, _LONGEST_PAUSE = 0.05, 1.0

_DROP = """
redis.call('xdel', KEYS[1], unpack(ARGV))
if redis.call('xlen', KEYS[1]) == 0 then
  redis.call('del', KEYS[1])
end
"""

logger = logging.getLogger("wove")


class Arrivals:
    """The outcomes that workers leave in a stream for one adapter. Belongs to the loop on which `open` was called.

    Args:
        settings: where Redis is.

    Attributes:
        name: what payloads call the stream.
    """

    def __init__(self, settings: Settings) -> None:
        self.name = os.urandom(16).hex()
        self._key = stream_of(self.name)
        self._settings = settings
        self._redis: Any = None

    async def open(self) -> bool:
        """Make a connection, which is busy with waiting from then on, and so serves nothing else.

        Returns:
            Whether this Redis has streams, and lets its user have this one.
        """
        try:
            async with asyncio.timeout(_ANSWER_SECONDS):
                self._redis = await connect(self._settings)
                await self._redis.xread({self._key: "0"})
                await self._redis.eval(_DROP, 1, self._key, "0-1")
        except (RedisError, OSError) as error:
            logger.debug("This Redis carries no outcomes, workers post them: %s", error)
            await self._disconnect()
            return False
        return True

    async def outcomes(self) -> AsyncIterator[tuple[str, bytes]]:
        """Yield ids of runs and what is said to be their outcomes: nothing of that has been checked.

        Goes on when Redis has been away. An entry is removed when it has been read, and may be read twice.
        """
        read: list[bytes] = []
        pause = _FIRST_PAUSE
        before, clock = 0.0, time.monotonic
        while True:
            try:
                entries = await self._next(read)
            except (RedisError, OSError) as error:
                logger.debug("Waiting for outcomes in Redis failed, it goes on in %g s: %s", pause, error)
                await asyncio.sleep(pause)
                pause = min(2 * pause, _LONGEST_PAUSE)
                continue
            pause = _FIRST_PAUSE
            read = [entry for entry, _ in entries]
            for _, fields in entries:
                for run_id, outcome in fields.items():
                    yield run_id.decode(errors="replace"), outcome
            if read:
                in_a_row, before = clock() - before < _IN_A_ROW_SECONDS, clock()
                if in_a_row:
                    # They come one by one, and each question costs more than what it is about.
                    await asyncio.sleep(_GATHER_SECONDS)

    async def close(self) -> None:
        """Wait no more, and remove what is left."""
        try:
            async with asyncio.timeout(_CLOSE_SECONDS):
                await self._redis.delete(self._key)
        except (RedisError, OSError) as error:
            logger.debug("The outcomes that are left in Redis expire by themselves: %s", error)
        await self._disconnect()

    async def _disconnect(self) -> None:
        if self._redis is not None:
            await self._redis.aclose(close_connection_pool=True)

    async def _next(self, read: list[bytes]) -> list[tuple[bytes, dict[bytes, bytes]]]:
        """Remove entries that have been read; wait for others, and return them."""
        wait = self._seconds()
        pipeline = self._redis.pipeline(transaction=False)
        if read:
            pipeline.eval(_DROP, 1, self._key, *read)
        # From the beginning: what has been read is gone.
        pipeline.xread({self._key: "0"}, count=_AT_ONCE, block=round(wait * 1000))
        async with asyncio.timeout(wait + _ANSWER_SECONDS):
            answers = await pipeline.execute()
        return entries_in(answers[-1])

    def _seconds(self) -> float:
        """Return how long Redis may be silent before its client gives up."""
        given = self._redis.connection_pool.connection_kwargs.get("socket_timeout")
        return min(_WAIT_SECONDS, given / 2) if given else _WAIT_SECONDS


def entries_in(answer: Any) -> list[tuple[bytes, dict[bytes, bytes]]]:
    """Return the ids and fields of entries in what Redis answers about one stream, in either of its protocols."""
    if isinstance(answer, dict):
        return [entry for parts in answer.values() for entries in parts for entry in entries]
    return [entry for _, entries in answer for entry in entries]
