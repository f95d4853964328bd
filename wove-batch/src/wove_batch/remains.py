"""What has to be removed from AWS later: payloads of jobs that go on, jobs that could not be ended, or may exist."""

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass

from wove_batch.jobs import DESCRIBED_AT_ONCE, Jobs
from wove_batch.payloads import Payloads
from wove_batch.states import ENDED
from wove_batch.threads import BoundedThreads

_FIRST_PAUSE, _LONGEST_PAUSE = 1.0, 10.0
_CANCEL_SECONDS = 1.0
# ListJobs is asked so often for a job whose creation was not confirmed.
_LOOKS = 3

logger = logging.getLogger("wove")


@dataclass(frozen=True, slots=True)
class _Payload:
    """An object that is needed as long as its job has not ended: AWS Batch may begin the job again."""

    key: str
    detached: bool


class Remains:
    """Looks after what remains until there is nothing left. Lives as long as its adapter; its loop only.

    Args:
        jobs, payloads: through which AWS is asked; payloads is None without a bucket.
        threads: where that happens.
    """

    def __init__(self, jobs: Jobs, payloads: Payloads | None, threads: BoundedThreads) -> None:
        self._jobs = jobs
        self._payloads = payloads
        self._threads = threads
        self._kept: dict[str, _Payload] = {}
        self._unneeded: set[str] = set()
        self._to_end: set[str] = set()
        self._doubtful: dict[str, int] = {}
        self._pause = _FIRST_PAUSE
        self._sweeping: asyncio.Task[None] | None = None

    def keep(self, key: str, job_id: str, *, detached: bool) -> None:
        """Remove a payload when its job has ended; that of a detached job is not removed by `close`."""
        self._kept[job_id] = _Payload(key, detached)
        self._wake()

    def drop(self, key: str) -> None:
        """Remove a payload: there is no job for it."""
        self._unneeded.add(key)
        self._wake()

    def end(self, job_id: str) -> None:
        """End a job as soon as AWS can be reached."""
        self._to_end.add(job_id)
        self._wake()

    def end_if_created(self, name: str) -> None:
        """End a job of which it is not known whether it has been created."""
        self._doubtful[name] = _LOOKS
        self._wake()

    async def close(self) -> None:
        """Remove at once what nobody needs any more; a job that waits for a detached task keeps its payload."""
        if self._sweeping is not None:
            self._sweeping.cancel()
            await asyncio.wait([self._sweeping], timeout=_CANCEL_SECONDS)
        self._unneeded |= {payload.key for payload in self._kept.values() if not payload.detached}
        await self._tidy()

    def _wake(self) -> None:
        self._pause = _FIRST_PAUSE
        if self._sweeping is None or self._sweeping.done():
            self._sweeping = asyncio.get_running_loop().create_task(self._sweep())

    async def _sweep(self) -> None:
        while self._kept or self._unneeded or self._to_end or self._doubtful:
            await asyncio.sleep(self._pause)
            self._pause = min(2 * self._pause, _LONGEST_PAUSE)
            try:
                await self._look_for_ended()
            except Exception as error:  # AWS is away for a moment, perhaps.
                logger.debug("Asking AWS Batch for jobs that have ended failed: %s", error)
            await self._tidy()

    async def _look_for_ended(self) -> None:
        known = list(self._kept)
        for first in range(0, len(known), DESCRIBED_AT_ONCE):
            asked = known[first : first + DESCRIBED_AT_ONCE]
            described = await self._threads.run(self._jobs.describe, asked)
            for job_id in asked:
                if described.get(job_id, {}).get("status", ENDED[0]) in ENDED:
                    self._unneeded.add(self._kept.pop(job_id).key)

    async def _tidy(self) -> None:
        """Do what can be done now; what fails is left for the next time."""
        try:
            await self._find_doubtful()
            for job_id in list(self._to_end):
                await self._threads.run(self._jobs.end, job_id)
                self._to_end.discard(job_id)
            if self._unneeded:
                await self._remove(sorted(self._unneeded))
        except Exception as error:  # The same.
            logger.debug("Tidying up in AWS failed: %s", error)

    async def _find_doubtful(self) -> None:
        for name in list(self._doubtful):
            found = await self._threads.run(self._jobs.find, name)
            self._doubtful[name] -= 1
            if found is not None and found.get("status") not in ENDED:
                self._to_end.add(str(found["jobId"]))
            if found is not None or not self._doubtful[name]:
                del self._doubtful[name]

    async def _remove(self, keys: Sequence[str]) -> None:
        if self._payloads is not None:
            await self._threads.run(self._payloads.remove, keys)
        self._unneeded.difference_update(keys)
