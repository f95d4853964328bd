"""Keeps ARQ's mark of a running job for a few seconds at a time, so that it does not outlive a dead worker.

By itself the mark lasts as long as a job may take, and only then is the job of a dead worker executed again.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from typing import Any
from weakref import WeakKeyDictionary

from arq.constants import in_progress_key_prefix, job_key_prefix
from redis.exceptions import RedisError

# How long a job counts as running after its worker's last sign of life.
_ALIVE_SECONDS = 6.0
_SIGN_SECONDS = 1.5

logger = logging.getLogger("wove")


class Presence:
    """The jobs that a worker executes right now. One for each worker; belongs to its loop."""

    def __init__(self) -> None:
        self._running: set[str] = set()
        self._fresh: set[str] = set()
        self._wanted: set[str] = set()
        self._showing: asyncio.Task[None] | None = None
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
            await self._show(job_id, redis)
            yield job_id in self._wanted
        finally:
            self._running.discard(job_id)
            self._wanted.discard(job_id)
            if not self._running:
                self._idle.set()

    async def _show(self, job_id: str, redis: Any) -> None:
        """Tell Redis of a job, together with the others that begin while it is being told of earlier ones."""
        self._fresh.add(job_id)
        while job_id in self._fresh:
            if self._showing is None or self._showing.done():
                self._showing = asyncio.get_running_loop().create_task(self._show_fresh(redis))
            await asyncio.shield(self._showing)

    async def _show_fresh(self, redis: Any) -> None:
        fresh, self._fresh = self._fresh, set()
        self._wanted |= await _shown(fresh, redis) & self._running

    async def _sign(self, redis: Any) -> None:
        while self._running:
            try:
                await asyncio.wait_for(self._idle.wait(), _SIGN_SECONDS)
            except TimeoutError:
                await _renew(set(self._running), redis)


async def _renew(job_ids: Collection[str], redis: Any) -> None:
    try:
        async with redis.pipeline(transaction=False) as pipeline:
            _expire_soon(job_ids, pipeline)
            await pipeline.execute()
    except (RedisError, OSError) as error:
        logger.debug("Telling Redis that jobs are executed failed: %s", error)


async def _shown(job_ids: Collection[str], redis: Any) -> set[str]:
    """As `_renew`; return those of the jobs that are still there: the adapter deletes what a worker shall not begin."""
    try:
        async with redis.pipeline(transaction=False) as pipeline:
            _expire_soon(job_ids, pipeline)
            for job_id in job_ids:
                pipeline.exists(f"{job_key_prefix}{job_id}")
            answers = await pipeline.execute()
    except (RedisError, OSError) as error:
        logger.debug("Telling Redis that jobs are executed failed: %s", error)
        return set()
    return {job_id for job_id, is_there in zip(job_ids, answers[len(job_ids) :], strict=True) if is_there == 1}


def _expire_soon(job_ids: Collection[str], pipeline: Any) -> None:
    for job_id in job_ids:
        pipeline.pexpire(f"{in_progress_key_prefix}{job_id}", int(_ALIVE_SECONDS * 1000))


_presences: WeakKeyDictionary[Any, Presence] = WeakKeyDictionary()


def presence_of(redis: Any) -> Presence:
    """Return the one for a worker's pool."""
    found = _presences.get(redis)
    if found is None:
        found = _presences[redis] = Presence()
    return found
