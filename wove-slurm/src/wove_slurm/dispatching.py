"""Hands jobs to sbatch: what becomes ready while it runs goes with the next call."""

import asyncio
from collections.abc import Sequence

from wove.backend.threads import in_daemon_thread
from wove_slurm.jobs import Job, NewJob
from wove_slurm.placing import Placement

# More do not make the controller take jobs any faster, and fewer would let a call that hangs hold up all others.
_CALLS_AT_A_TIME = 2
_CLOSE_SECONDS = 1.0

Pending = tuple[NewJob, "asyncio.Future[Job]"]


class Dispatcher:
    """Submits jobs in as few calls as possible, without ever waiting for more. Lives as long as its adapter; its loop
    only.

    Args:
        placement: submits them.
    """

    def __init__(self, placement: Placement) -> None:
        self._placement = placement
        # Not bounded itself: one entry per run in flight, until Slurm has taken it.
        self._waiting: list[Pending] = []
        self._calls: set[asyncio.Task[None]] = set()

    async def submit(self, jobs: Sequence[NewJob]) -> list[Job | Exception]:
        """Return the handle of each job, or why there is none."""
        loop = asyncio.get_running_loop()
        futures: list[asyncio.Future[Job]] = [loop.create_future() for _ in jobs]
        self._waiting += zip(jobs, futures, strict=True)
        self._proceed()
        if futures:
            await asyncio.wait(futures)
        return [future.exception() or future.result() for future in futures]  # type: ignore[misc]

    async def close(self) -> None:
        """Wait for nobody: what is on its way ends with its program."""
        for call in self._calls:
            call.cancel()
        if self._calls:
            await asyncio.wait(list(self._calls), timeout=_CLOSE_SECONDS)

    def _proceed(self) -> None:
        while self._waiting and len(self._calls) < _CALLS_AT_A_TIME:
            batch = next(self._placement.batches([job for job, _ in self._waiting]))
            pending, self._waiting = self._waiting[: len(batch)], self._waiting[len(batch) :]
            call = asyncio.get_running_loop().create_task(self._hand_over(pending))
            self._calls.add(call)
            call.add_done_callback(self._end)

    def _end(self, call: "asyncio.Task[None]") -> None:
        self._calls.discard(call)
        if not call.cancelled():
            self._proceed()

    async def _hand_over(self, pending: Sequence[Pending]) -> None:
        try:
            handles = await in_daemon_thread(self._placement.submit, [job for job, _ in pending])
        except asyncio.CancelledError:
            for _, future in pending:
                future.cancel()
            raise
        except Exception as error:
            for _, future in pending:
                future.set_exception(error)
        else:
            for (_, future), handle in zip(pending, handles, strict=True):
                future.set_result(handle)
