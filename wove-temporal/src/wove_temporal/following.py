"""Waits for the native end of every job: whatever becomes of a worker, the server knows it."""

import asyncio
import logging
from typing import Any

from temporalio.service import RPCError, RPCStatusCode

from wove.backend.types import FINAL_EVENTS
from wove.integrations.base import JobState
from wove.serialization import describe
from wove_temporal.jobs import End, Jobs, NewJob, Submitted

# After a question that the server could not answer.
_FIRST_PAUSE, _LONGEST_PAUSE = 0.25, 5.0
_CLOSE_SECONDS = 1.0
# Most tasks are over before this time, and their own events say so: the server need not be asked about them.
_PATIENCE = 0.25
# While others of the session get on, one that waits for its turn is not asked about for this long: each question costs
# the server as much as a tenth of a short task, and a large map would ask about every one of its items.
_LONGEST_PATIENCE = 5.0
# How often a job that has reached no worker is started again.
_STARTS_AGAIN = 2

logger = logging.getLogger("wove")


class Followers:
    """Follows jobs to their end. Lives as long as the adapter; its loop only.

    A job that the server calls started, and that no worker has ever said a word of, was lost between the two: an
    overloaded server hands out tasks to questions that have just been given up. Temporal's own remedy is to try again
    without limit, also when a worker has died in the middle of a task. Here only what has begun nowhere is tried again.

    Attributes:
        news: run ids with the state of their job, as soon as that has ended.

    Args:
        jobs: knows how to wait for one.
    """

    def __init__(self, jobs: Jobs) -> None:
        # Not bounded itself: one entry per job.
        self.news: asyncio.Queue[tuple[str, JobState]] = asyncio.Queue()
        self._jobs = jobs
        self._followed: dict[str, Submitted] = {}
        self._waiting: dict[str, asyncio.TimerHandle] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._last_heard = float("-inf")

    def expect(self, job: NewJob) -> Submitted:
        """Return the submission of a job that is about to be started: the earlier one if it has been before."""
        return self._followed.setdefault(job.run_id, Submitted(job))

    def drop(self, submitted: Submitted) -> None:
        """Expect nothing of a job that could not be started, unless an earlier start of it succeeded."""
        if submitted.handle is None:
            self._forget(submitted.job.run_id)

    def follow(self, submitted: Submitted, handle: Any) -> None:
        """Begin to wait soon for a job that has been started, unless that is being done already or it is over."""
        if submitted.handle is not None:
            return
        submitted.handle = handle
        run_id = submitted.job.run_id
        if submitted.over:
            self._forget(run_id)
        else:
            self._wait(submitted, asyncio.get_running_loop().time() + _LONGEST_PATIENCE)

    def holders_of(self, job_id: str) -> list[Submitted]:
        """Return the jobs with an id of Temporal's that have been started and have not ended."""
        return [each for each in self._followed.values() if each.job.id == job_id and each.handle is not None]

    def heard(self, run_id: str, event_type: str) -> None:
        """Take note of an event of a run."""
        submitted = self._followed.get(run_id)
        if submitted is None:
            return
        submitted.heard = True
        self._last_heard = asyncio.get_running_loop().time()
        submitted.over = submitted.over or event_type in FINAL_EVENTS
        waiting = self._waiting.get(run_id)
        if waiting is not None and submitted.over:
            waiting.cancel()
            self._forget(run_id)

    async def close(self) -> None:
        """Wait for no job any more."""
        for waiting in self._waiting.values():
            waiting.cancel()
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(list(self._tasks), timeout=_CLOSE_SECONDS)

    def _wait(self, submitted: Submitted, until: float) -> None:
        loop = asyncio.get_running_loop()
        self._waiting[submitted.job.run_id] = loop.call_later(_PATIENCE, self._begin, submitted, until)

    def _begin(self, submitted: Submitted, until: float) -> None:
        loop = asyncio.get_running_loop()
        others_get_on = self._last_heard > loop.time() - _PATIENCE
        if others_get_on and not submitted.heard and loop.time() < until:
            self._wait(submitted, until)
            return
        del self._waiting[submitted.job.run_id]
        task = loop.create_task(self._follow(submitted))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _forget(self, run_id: str) -> None:
        self._followed.pop(run_id, None)
        self._waiting.pop(run_id, None)

    async def _follow(self, submitted: Submitted) -> None:
        try:
            end = await self._end_of(submitted)
            for _ in range(_STARTS_AGAIN):
                if not end.silent or submitted.heard or submitted.given_up:
                    break
                await self._start_again(submitted)
                end = await self._end_of(submitted)
            self.news.put_nowait((submitted.job.run_id, end.state))
        finally:
            self._forget(submitted.job.run_id)

    async def _end_of(self, submitted: Submitted) -> End:
        pause = _FIRST_PAUSE
        while True:
            try:
                return await self._jobs.end(submitted.handle)
            except RPCError as error:
                if error.status is RPCStatusCode.NOT_FOUND:
                    return End(JobState("gone", reason="Temporal has no such job any more"))
                logger.debug("Waiting for %r is interrupted: %s", submitted, error)
            except Exception as error:  # A project's own codec may not understand what its workflow returns.
                return End(JobState("finished", reason=describe(error)))
            await asyncio.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)

    async def _start_again(self, submitted: Submitted) -> None:
        logger.info("%r has reached no worker, although Temporal has handed it out: it is started again.", submitted)
        try:
            submitted.handle = await self._jobs.start_again(submitted.job, submitted.handle)
            if submitted.given_up:
                await self._jobs.stop(submitted.handle)
        except Exception as error:  # Its end is reported as it was.
            logger.warning("%r cannot be started again: %s", submitted, describe(error))
