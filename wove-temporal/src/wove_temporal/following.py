"""Waits for the native end of every job: whatever becomes of a worker, the server knows it."""

import asyncio
import logging
from typing import Any

from temporalio.service import RPCError, RPCStatusCode

from wove.integrations.base import JobState
from wove.serialization import describe
from wove_temporal.jobs import Jobs

# After a question that the server could not answer.
_FIRST_PAUSE, _LONGEST_PAUSE = 0.25, 5.0
_CLOSE_SECONDS = 1.0

logger = logging.getLogger("wove")


class Followers:
    """Follows jobs to their end. Lives as long as the adapter; its loop only.

    Attributes:
        news: run ids with the state of their job, as soon as that has ended.

    Args:
        jobs: knows how to wait for one.
    """

    def __init__(self, jobs: Jobs) -> None:
        # Not bounded itself: one entry per job.
        self.news: asyncio.Queue[tuple[str, JobState]] = asyncio.Queue()
        self._jobs = jobs
        self._tasks: dict[str, asyncio.Task[None]] = {}

    def follow(self, run_id: str, handle: Any) -> None:
        """Begin to wait for a job, unless that is being done already."""
        if run_id not in self._tasks:
            task = asyncio.get_running_loop().create_task(self._follow(run_id, handle))
            self._tasks[run_id] = task
            task.add_done_callback(lambda _: self._tasks.pop(run_id, None))

    async def close(self) -> None:
        """Wait for no job any more."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=_CLOSE_SECONDS)

    async def _follow(self, run_id: str, handle: Any) -> None:
        pause = _FIRST_PAUSE
        while True:
            try:
                state = await self._jobs.end(handle)
            except RPCError as error:
                if error.status is not RPCStatusCode.NOT_FOUND:
                    logger.debug("Waiting for the job of run %s is interrupted: %s", run_id, error)
                    await asyncio.sleep(pause)
                    pause = min(2 * pause, _LONGEST_PAUSE)
                    continue
                state = JobState("gone", reason="Temporal has no such job any more")
            except Exception as error:  # A project's own codec may not understand what its workflow returns.
                state = JobState("finished", reason=describe(error))
            self.news.put_nowait((run_id, state))
            return
