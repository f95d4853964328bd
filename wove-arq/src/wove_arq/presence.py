"""Keeps ARQ's mark of a running job for a few seconds at a time, so that it does not outlive a dead worker.

By itself the mark lasts as long as a job may take, and only then is the job of a dead worker executed again.
"""

import asyncio
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from weakref import WeakKeyDictionary

from arq.constants import in_progress_key_prefix
from redis.exceptions import RedisError

# How long a job counts as running after its worker's last sign of life.
_ALIVE_SECONDS = 6.0
_SIGN_SECONDS = 1.5
# Jobs that begin within this time, or are over within it, need no question to Redis of their own.
_GATHER_SECONDS = 0.1

logger = logging.getLogger("wove")


class Presence:
    """The jobs that a worker executes right now. One for each worker; belongs to its loop."""

    def __init__(self) -> None:
        self._running: set[str] = set()
        self._fresh: set[str] = set()
        self._idle = asyncio.Event()
        self._signing: asyncio.Task[None] | None = None

    @contextmanager
    def of(self, job_id: str, redis: Any) -> Iterator[None]:
        """Show for the time of a ``with`` block that a job is executed.

        Args:
            job_id: ARQ's id.
            redis: the worker's pool.
        """
        self._running.add(job_id)
        self._fresh.add(job_id)
        self._idle.clear()
        if self._signing is None or self._signing.done():
            self._signing = asyncio.get_running_loop().create_task(self._sign(redis))
        try:
            yield
        finally:
            self._running.discard(job_id)
            if not self._running:
                self._idle.set()

    async def _sign(self, redis: Any) -> None:
        now = asyncio.get_running_loop().time
        due = now() + _SIGN_SECONDS
        while self._running:
            try:
                await asyncio.wait_for(self._idle.wait(), _GATHER_SECONDS)
            except TimeoutError:
                pass
            signed = self._fresh & self._running
            self._fresh.clear()
            if now() >= due:
                due = now() + _SIGN_SECONDS
                signed = set(self._running)
            await _renew(signed, redis)


async def _renew(job_ids: set[str], redis: Any) -> None:
    if not job_ids:
        return
    try:
        async with redis.pipeline(transaction=False) as pipeline:
            for job_id in job_ids:
                pipeline.pexpire(f"{in_progress_key_prefix}{job_id}", int(_ALIVE_SECONDS * 1000))
            await pipeline.execute()
    except (RedisError, OSError) as error:
        logger.debug("Telling Redis that jobs are executed failed: %s", error)


_presences: WeakKeyDictionary[Any, Presence] = WeakKeyDictionary()


def presence_of(redis: Any) -> Presence:
    """Return the one for a worker's pool."""
    found = _presences.get(redis)
    if found is None:
        found = _presences[redis] = Presence()
    return found
