"""The processes that execute the tasks of a service. The service itself never unpickles anything.

Each is a `wove.stdio_worker` that speaks JSON lines: a command goes in as it came over the network, verified but never
decoded, and its events go out as they are.
"""

import asyncio
import os
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace

from wove.backend.final_events import cancelled_event, error_event
from wove.backend.frames import frame_from_bytes, frame_to_bytes, json_to_bytes
from wove.backend.framing import FRAMING_VARIABLE
from wove.backend.types import FINAL_EVENTS
from wove.environment.worker_command import WorkerCommand, WorkerExit
from wove.environment.worker_process import WorkerProcess
from wove.errors import DeliveryError, DeliveryOrphanedError

# A cancelled run that has not ended after this long holds its process back: it gets no new runs, and is ended as soon
# as nobody waits for anything that runs in it.
CANCEL_GRACE = 2.0

# What our own worker writes. Reading a 20 MB result only to see whose it is would hold up every other run.
_EVENT = re.compile(rb'\{"type": ?"([a-z_]+)", ?"run_id": ?"([^"\\]+)"')


@dataclass(slots=True, eq=False)
class Job:
    """A run as the processes see it.

    Attributes:
        line: its ``run_task`` command, without line breaks.
        is_coroutine: its client says that it needs no thread.
        given_up: it has been cancelled.
    """

    run_id: str
    task_id: str | None
    line: bytes
    is_coroutine: bool
    given_up: bool = False

    @property
    def ids(self) -> dict[str, str | None]:
        return {"run_id": self.run_id, "task_id": self.task_id}

    def lost(self, error: DeliveryError) -> bytes:
        """Return the event that ends the run because of its process or of the service, not because of itself."""
        return frame_to_bytes(error_event(self.ids, error, source="executor", retryable=True))

    def cancelled(self) -> bytes:
        """Return the event that ends the run because somebody wanted that."""
        return frame_to_bytes(cancelled_event(self.ids))


class _Worker:
    """One process and the runs that it has been given."""

    def __init__(self, pool: "WorkerPool") -> None:
        self.jobs: dict[str, Job] = {}
        self.in_threads = 0
        self.retiring = False
        self.process: WorkerProcess | None = None
        self._pool = pool

    async def start(self, command: WorkerCommand) -> None:
        process = await asyncio.to_thread(command.start)
        self.process = WorkerProcess(
            process,
            settings={},
            greet=False,
            on_frame=lambda frame: None,
            on_line=self._on_line,
            on_writable=lambda: None,
            on_exit=self._on_exit,
        )
        self.process.write([self._pool.greeting, *(job.line + b"\n" for job in self.jobs.values())])

    def take(self, job: Job) -> None:
        self.jobs[job.run_id] = job
        self.in_threads += not job.is_coroutine
        if self.process is not None:
            self.process.write([job.line + b"\n"])

    def forget(self, job: Job) -> None:
        del self.jobs[job.run_id]
        self.in_threads -= not job.is_coroutine

    def cancel(self, job: Job, line: bytes) -> None:
        if self.process is not None:
            self.process.write([line + b"\n"])
        asyncio.get_running_loop().call_later(CANCEL_GRACE, self._insist, job)

    def _on_line(self, line: bytes) -> None:
        kind, run_id = _read_event(line)
        job = self.jobs.get(run_id)
        if job is None:
            return
        if kind in FINAL_EVENTS:
            self.forget(job)
            if self.retiring:
                self._retire()
        self._pool.heard(job, kind, line)

    def _insist(self, job: Job) -> None:
        if self.jobs.get(job.run_id) is job:
            self.retiring = True
            self._retire()

    def _retire(self) -> None:
        self.retiring = any(job.given_up for job in self.jobs.values())
        if self.retiring and self.process is not None and all(job.given_up for job in self.jobs.values()):
            self.process.kill()

    def _on_exit(self, end: WorkerExit) -> None:
        jobs = list(self.jobs.values())
        self.jobs.clear()
        self.in_threads = 0
        self._pool.lost(self, jobs, end)


class WorkerPool:
    """Spreads runs over a fixed number of processes and replaces those that end. Belongs to one event loop.

    Args:
        processes: how many.
        threads: how many synchronous tasks run side by side in one process; more wait here.
        on_event: called with a run's id, an event's type and its JSON, for every event.
    """

    def __init__(self, processes: int, threads: int, *, on_event: Callable[[str, str, bytes], None]) -> None:
        self._count = processes
        self._threads = threads
        path = [os.path.abspath(place) for place in sys.path]
        # A worker expects a run id in every line, also where it means nothing.
        self.greeting = json_to_bytes({"type": "hello", "run_id": "none", "threads": threads, "path": path}) + b"\n"
        self._on_event = on_event
        # Without its framing variable, Wove's own worker speaks JSON lines.
        self._command = WorkerCommand(env=((FRAMING_VARIABLE, ""),))
        self._workers: list[_Worker] = []
        self._waiting: dict[str, Job] = {}
        self._starting: set[asyncio.Task[None]] = set()
        self._closed = asyncio.Event()

    async def start(self) -> None:
        """Start the processes.

        Raises:
            OSError: one cannot be started.
        """
        workers = [_Worker(self) for _ in range(self._count)]
        started = await asyncio.gather(*(worker.start(self._command) for worker in workers), return_exceptions=True)
        self._workers += [worker for worker in workers if worker.process is not None]
        for failure in started:
            if failure is not None:
                await self.close()
                raise failure

    def submit(self, job: Job) -> None:
        """Give a run to the process that has least to do, or keep it until one has room."""
        worker = None if self._waiting and not job.is_coroutine else self._worker_for(job)
        if worker is not None:
            worker.take(job)
        else:
            self._waiting[job.run_id] = job

    def cancel(self, run_id: str, line: bytes) -> None:
        """Stop a run: one that waits never starts, one that runs is told. Does nothing for a run that has ended.

        Args:
            run_id: the run.
            line: the ``cancel_task`` command.
        """
        job = self._waiting.pop(run_id, None)
        if job is not None:
            self._on_event(run_id, "task_cancelled", job.cancelled())
            return
        for worker in self._workers:
            if run_id in worker.jobs:
                worker.jobs[run_id].given_up = True
                worker.cancel(worker.jobs[run_id], line)

    async def close(self) -> None:
        """End every process; what still runs is lost without an event."""
        self._closed.set()
        self._waiting.clear()
        # A start that is under way is not cancelled: nobody would know its process.
        await asyncio.gather(*self._starting)
        for worker in self._workers:
            worker.jobs.clear()
        running = [worker.process for worker in self._workers if worker.process is not None]
        await asyncio.gather(*(process.close() for process in running))

    # What the processes say.

    def heard(self, job: Job, kind: str, line: bytes) -> None:
        """Pass an event on, and let waiting runs follow a final one."""
        if kind in FINAL_EVENTS:
            self._fill()
        self._on_event(job.run_id, kind, line)

    def lost(self, worker: _Worker, jobs: list[Job], end: WorkerExit) -> None:
        """Report the runs of a process that has ended, and start another one in its place."""
        self._workers.remove(worker)
        if self._closed.is_set():
            return
        # A worker that speaks JSON lines says nothing before its first event, so its silence means nothing.
        end = replace(end, was_ready=True)
        message = f"The worker process (pid {end.pid}) of the service {end}. {end.advice()}"
        if end.stderr:
            message += f" Its last lines on stderr:\n{end.stderr}"
        error = DeliveryOrphanedError(message, state="failed", exit_code=end.code, reason=end.stderr or str(end))
        for job in jobs:
            if job.given_up:
                self._on_event(job.run_id, "task_cancelled", job.cancelled())
            else:
                self._on_event(job.run_id, "task_error", job.lost(error))
        self._replace(pause=0.0 if jobs else 1.0)

    def _replace(self, *, pause: float) -> None:
        if self._closed.is_set():
            return
        task = asyncio.ensure_future(self._start_another(pause))
        self._starting.add(task)
        task.add_done_callback(self._starting.discard)

    async def _start_another(self, pause: float) -> None:
        # A worker that ends before it has done anything would be started over and over again without a pause.
        try:
            async with asyncio.timeout(pause):
                await self._closed.wait()
            return
        except TimeoutError:
            pass
        worker = _Worker(self)
        try:
            await worker.start(self._command)
        except OSError as error:
            waiting, self._waiting = self._waiting, {}
            for job in waiting.values():
                failure = DeliveryError(f"The service cannot start a worker process: {error}.")
                self._on_event(job.run_id, "task_error", job.lost(failure))
            self._replace(pause=5.0)
            return
        self._workers.append(worker)
        self._fill()

    def _fill(self) -> None:
        while self._waiting:
            job = next(iter(self._waiting.values()))
            worker = self._worker_for(job)
            if worker is None:
                return
            del self._waiting[job.run_id]
            worker.take(job)

    def _worker_for(self, job: Job) -> _Worker | None:
        usable = [worker for worker in self._workers if not worker.retiring]
        if not job.is_coroutine:
            usable = [worker for worker in usable if worker.in_threads < self._threads]
        return min(usable, key=lambda worker: len(worker.jobs), default=None)


def _read_event(line: bytes) -> tuple[str, str]:
    found = _EVENT.match(line)
    if found is not None:
        return found[1].decode("ascii"), found[2].decode("ascii")
    try:
        frame = frame_from_bytes(line)
    except ValueError:
        return "", ""
    return str(frame.get("type")), str(frame.get("run_id"))
