"""Asks the controller how all jobs are doing, in one question for all of them."""

import asyncio
import logging
import time
from collections.abc import Mapping, Sequence

from wove.backend.threads import in_daemon_thread
from wove.integrations.base import JobState
from wove_slurm.jobs import Job, Jobs
from wove_slurm.logs import Logs
from wove_slurm.states import Row, state_of

# A job that has just been submitted may be missing from an answer that was on its way.
_MOST_MISSES = 2
# While somebody waits for the end of a job.
_HURRY_SECONDS = 0.25
_HURRIES = 20
# When a job that was to be cancelled is still there, Slurm is asked again.
_CANCEL_AGAIN_SECONDS = 10.0
_SLOWEST_SECONDS = 60.0
# How long a controller may need to come to a submission that it has got.
_GHOST_SECONDS = 600.0

News = list[tuple[str, JobState]]

logger = logging.getLogger("wove")


class Watcher:
    """Knows the jobs that are not over yet, and finds out when they are. Lives as long as its adapter; its loop only.

    A job stays here after its run has ended, until Slurm says that the job has, too: then its log is removed.

    Args:
        jobs: asks Slurm.
        logs: of the jobs.
        interval: seconds between two questions.
        patience: for how many seconds a job may wait for what it can never get; None: for ever.
    """

    def __init__(self, jobs: Jobs, logs: Logs, *, interval: float, patience: float | None) -> None:
        self._jobs = jobs
        self._logs = logs
        self._interval = interval
        self._patience = patience
        self._known: dict[str, Job] = {}
        self._changed = asyncio.Event()
        self._hurries = 0
        self._failures = 0

    def add(self, job: Job) -> None:
        """Watch a job."""
        self._known[job.run_id] = job
        self._changed.set()

    @property
    def has_jobs(self) -> bool:
        """Whether any job is not over yet."""
        return bool(self._known or self._jobs.ghosts)

    def find(self, run_id: str) -> Job | None:
        """Return the job of a run, unless it is over."""
        return self._known.get(run_id)

    def hurry(self) -> None:
        """Ask soon, and again soon after that, because the end of a job is expected."""
        self._hurries = _HURRIES
        self._changed.set()

    async def wait(self) -> None:
        """Return when it is time for the next question; there is none without jobs."""
        self._changed.clear()
        if not self.has_jobs:
            await self._changed.wait()
            self._changed.clear()
        seconds = min(self._interval * 2**self._failures, max(_SLOWEST_SECONDS, self._interval))
        if not self._hurries:
            await self._pause(seconds)
        if self._hurries:
            self._hurries -= 1
            await asyncio.sleep(min(seconds, _HURRY_SECONDS))

    async def look(self) -> News:
        """Ask Slurm once, and return the runs whose jobs are over, or wait for something else than before.

        Raises:
            ConnectionError: the controller does not answer.
        """
        asked = list(self._known.values())
        try:
            news = await in_daemon_thread(self._look, asked)
        except Exception:
            self._failures = min(self._failures + 1, 10)
            raise
        self._failures = 0
        for run_id, state in news:
            if state.over:
                self._known.pop(run_id, None)
        if not any(job.unwanted for job in self._known.values()):
            self._hurries = 0
        return news

    def last_look(self) -> bool:
        """Ask Slurm once more, and tell whether any job has not begun and is not to be cancelled. Blocks."""
        self._look(list(self._known.values()))
        return any(
            not job.unwanted and (job.seen is None or job.seen.phase == "queued") for job in self._known.values()
        )

    async def _pause(self, seconds: float) -> None:
        """Wait so many seconds, or until something makes haste; new jobs do not."""
        deadline = time.monotonic() + seconds
        while not self._hurries and (left := deadline - time.monotonic()) > 0:
            try:
                async with asyncio.timeout(left):
                    await self._changed.wait()
            except TimeoutError:
                return
            self._changed.clear()

    # --- in a thread ---

    def _look(self, asked: Sequence[Job]) -> News:
        rows = self._jobs.rows()
        now = time.monotonic()
        self._lay_ghosts(rows, asked, now)
        missing = [job for job in asked if not self._see(job, rows)]
        ended = self._jobs.ended_rows([job.key for job in missing]) if missing else {}
        for job in missing:
            job.seen = ended.get(job.key)
        news = [(job.run_id, self._over(job)) for job in asked if self._is_over(job, is_missing=job in missing)]
        over = {run_id for run_id, _ in news}
        living = [job for job in asked if job.run_id not in over]
        news += self._waiting(living)
        news += self._give_up([job for job in living if self._is_hopeless(job, now)], now)
        self._insist([job for job in living if job.unwanted and now - (job.told or now) > _CANCEL_AGAIN_SECONDS], now)
        return news

    def _see(self, job: Job, rows: Mapping[str, Row]) -> bool:
        """Note what Slurm says about a job, and tell whether it says anything."""
        row = rows.get(job.key)
        if job.in_doubt and (row is None or row.is_over):
            row = _double(job, rows) or row
        if row is None:
            job.misses += 1
            return False
        job.misses = 0
        job.seen = row
        return True

    def _is_over(self, job: Job, *, is_missing: bool) -> bool:
        if job.seen is not None and job.seen.is_over:
            return True
        # One that was cancelled before it began is forgotten at once.
        return is_missing and (job.unwanted or job.misses >= _MOST_MISSES)

    def _over(self, job: Job) -> JobState:
        path = self._jobs.path_of(job)
        what = f"Slurm's job {job.key}"
        if job.seen is not None and job.seen.is_over:
            state = state_of(job.seen, what=what, tail=self._logs.tail(path))
        elif job.unwanted:
            state = JobState("cancelled", reason=f"{what} was cancelled")
        else:
            state = JobState("gone", reason=f"{what} has ended, or was cancelled before it began")
        self._logs.remove(path)
        return state

    def _waiting(self, jobs: Sequence[Job]) -> News:
        """Return why jobs wait or that they do not any more, where that has changed: should a weave lose its patience,
        its error says so.
        """
        news = []
        for job in jobs:
            reason = job.seen.waits_for if job.seen is not None else None
            begun = job.seen.phase == "running" if job.seen is not None else job.begun
            if reason != job.waits_for or begun != job.begun:
                job.waits_for, job.begun = reason, begun
                told = f"Slurm's job {job.key} waits: {reason}" if reason else None
                news.append((job.run_id, JobState("running" if begun else "queued", reason=told)))
        return news

    def _is_hopeless(self, job: Job, now: float) -> bool:
        if job.unwanted or job.seen is None or not job.seen.is_hopeless:
            job.hopeless_since = None
            return False
        job.hopeless_since = job.hopeless_since or now
        return self._patience is not None and now - job.hopeless_since >= self._patience

    def _give_up(self, hopeless: Sequence[Job], now: float) -> News:
        """Cancel jobs that Slurm will never start. They stay known until they are gone."""
        self._insist(hopeless, now)
        return [
            (job.run_id, state_of(job.seen, what=f"Slurm cannot start the job {job.key}: it"))
            for job in hopeless
            if job.seen is not None
        ]

    def _insist(self, jobs: Sequence[Job], now: float) -> None:
        for job in jobs:
            job.unwanted, job.told = True, now
        if jobs:
            self._jobs.cancel([job.key for job in jobs])

    def _lay_ghosts(self, rows: Mapping[str, Row], asked: Sequence[Job], now: float) -> None:
        """Cancel jobs that Slurm took although it could not say so, and whose runs have failed since."""
        if not self._jobs.ghosts:
            return
        known = {job.key for job in asked}
        found = [row for row in rows.values() if row.name in self._jobs.ghosts and row.key not in known]
        alive = [row.key for row in found if not row.is_over]
        if alive:
            logger.info("Cancelling %s, whose submission was thought to have failed.", ", ".join(alive))
            self._jobs.cancel(alive)
        laid = {row.name for row in found if row.is_over}
        for name, since in list(self._jobs.ghosts.items()):
            if name in laid or now - since > _GHOST_SECONDS:
                self._jobs.ghosts.pop(name, None)


def _double(job: Job, rows: Mapping[str, Row]) -> Row | None:
    """Return another job with the same name and index that is not over, and let the handle follow it."""
    index = job.key.partition("_")[2]
    for row in rows.values():
        if row.name == job.name and row.key.partition("_")[2] == index and not row.is_over:
            job.key = row.key
            return row
    return None
