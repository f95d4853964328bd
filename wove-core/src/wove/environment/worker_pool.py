"""The worker processes of one configuration, shared by every environment and weave that uses it."""

import asyncio
from typing import Any

from wove.backend.sharing import SharedResources
from wove.environment.pooled_worker import PooledWorker
from wove.environment.stdio_run import StdioRun
from wove.environment.stdio_settings import StdioSettings
from wove.environment.worker_command import WorkerExit
from wove.errors import ConfigurationError


class WorkerPool:
    """Spreads runs over up to ``processes`` workers; a process is started when every other one is busy.

    Lives on the background loop. Runs that no worker can take yet wait here, as objects that are not pickled yet; how
    many there are is up to the weave (``delivery_max_in_flight``).
    """

    def __init__(self, settings: StdioSettings) -> None:
        self._settings = settings
        self._workers: list[PooledWorker] = []
        self._waiting: dict[str, StdioRun] = {}
        self._starting: set[asyncio.Task[None]] = set()
        self._closed = False

    async def open(self) -> None:
        """Start the first worker.

        Raises:
            OSError: it cannot be started.
        """
        worker = PooledWorker(self._settings, self)
        await worker.start()
        self._workers.append(worker)

    def submit(self, run: StdioRun) -> None:
        """Give a run to a worker, or keep it until one has room."""
        if self._closed:
            run.shut_down()
            return
        worker = None if self._waiting else self._worker_for(run)
        if worker is not None:
            worker.take(run)
        else:
            self._waiting[run.run_id] = run

    def cancel(self, run: StdioRun, frame: dict[str, Any]) -> None:
        """Stop a run; it ends with ``task_cancelled`` when it has stopped. Does nothing for one that has ended."""
        if self._waiting.get(run.run_id) is run:
            del self._waiting[run.run_id]
            run.cancelled()
            return
        for worker in self._workers:
            if worker.runs.get(run.run_id) is run:
                worker.cancel(run, frame)

    async def close(self) -> None:
        """End every worker process. Takes little more than a second at the most."""
        self._closed = True
        waiting, self._waiting = self._waiting, {}
        for run in waiting.values():
            run.shut_down()
        # A process that is just being started can only be ended after that.
        await asyncio.gather(*self._starting, return_exceptions=True)
        await asyncio.gather(*(worker.close() for worker in self._workers))

    # What the workers say.

    def has_room(self) -> None:
        """Give waiting runs to workers, the oldest first, until no worker takes another one."""
        while self._waiting and not self._closed:
            run = next(iter(self._waiting.values()))
            worker = self._worker_for(run)
            if worker is None:
                return
            del self._waiting[run.run_id]
            worker.take(run)

    def returned(self, run: StdioRun) -> None:
        """Find another worker for a run, before those that came later."""
        self._take_back([run])
        self.has_room()

    def lost(self, worker: PooledWorker, again: list[StdioRun], end: WorkerExit) -> None:
        """Take the runs back that are to begin in another worker.

        If workers end before they have said anything, so would the next one: then nothing is tried again.
        """
        self._workers.remove(worker)
        self._take_back(again)
        if end.hopeless and not self._workers:
            waiting, self._waiting = self._waiting, {}
            for run in waiting.values():
                run.lost(self._settings.command, end)
        self.has_room()

    def _take_back(self, runs: list[StdioRun]) -> None:
        for run in runs:
            if run.given_up:
                run.cancelled()
        self._waiting = {run.run_id: run for run in runs if not run.given_up} | self._waiting

    def _worker_for(self, run: StdioRun) -> PooledWorker | None:
        best: PooledWorker | None = None
        usable = 0
        for worker in self._workers:
            if worker.retiring:
                continue
            usable += 1
            if worker.can_take(run) and (best is None or len(worker.runs) < len(best.runs)):
                best = worker
        if (best is None or best.runs) and usable < self._settings.processes:
            return self._grow()
        return best

    def _grow(self) -> PooledWorker:
        worker = PooledWorker(self._settings, self)
        self._workers.append(worker)
        task = asyncio.ensure_future(self._start(worker))
        self._starting.add(task)
        task.add_done_callback(self._starting.discard)
        return worker

    async def _start(self, worker: PooledWorker) -> None:
        try:
            await worker.start()
        except (OSError, RuntimeError) as error:
            self._workers.remove(worker)
            for run in list(worker.runs.values()):
                run.fail(cannot_start(run.environment, self._settings, error))
            self.has_room()


def cannot_start(environment: str, settings: StdioSettings, error: OSError | RuntimeError) -> ConfigurationError:
    """Return the error for a worker command that the system refuses to start."""
    return ConfigurationError(
        f"Environment {environment!r}: the worker command ({settings.command}) cannot be started ({error}). "
        "Check executor_config['command'] and that the program is installed and executable."
    )


async def _open(settings: StdioSettings) -> WorkerPool:
    pool = WorkerPool(settings)
    await pool.open()
    return pool


worker_pools: SharedResources[StdioSettings, WorkerPool] = SharedResources(_open, WorkerPool.close)
