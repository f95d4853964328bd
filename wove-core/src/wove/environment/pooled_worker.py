"""A worker process together with the runs that it has been given."""

import asyncio
import logging
import os
import sys
from typing import Any, Protocol

from wove.backend.frames import Part, deserialize_event, frame_from_bytes
from wove.backend.framing import Frame, pack
from wove.backend.stdio_codec import RETURNED, command_line, pack_run, recall_command, unpack_event
from wove.backend.task_threads import DEFAULT_THREADS
from wove.backend.threads import in_daemon_thread
from wove.backend.types import FINAL_EVENTS
from wove.environment.stdio_run import StdioRun
from wove.environment.stdio_settings import StdioSettings
from wove.environment.worker_command import StartedWorker, WorkerExit
from wove.environment.worker_process import WorkerProcess

# What a cancelled run may still take before its process is ended, if nothing else runs there.
CANCEL_GRACE = 2.0
# Runs that lie ready in the worker, so that it never waits for this side; only where no other worker could take them.
_AHEAD = 64
# More than this waits here and not on the way to the worker.
_MOST_UNSENT = 4 << 20

# A worker that ends before it begins anything is replaced; one that always does is not replaced for ever.
_MOST_RETURNS = 3

_log = logging.getLogger("wove.environment")


class Pool(Protocol):
    """What a worker tells its pool."""

    def has_room(self) -> None:
        """Something has left the worker: it can take another run."""

    def returned(self, run: StdioRun) -> None:
        """The worker gives a run back that it has not begun."""

    def lost(self, worker: "PooledWorker", again: list[StdioRun], end: WorkerExit) -> None:
        """The worker is gone. The runs in `again` have certainly not begun there, or shall begin once more."""


class PooledWorker:
    """One worker of a pool on the background loop. It takes runs while its process is still starting.

    Attributes:
        runs: what it has been given and has not finished, in the order in which it was given.
        retiring: a cancelled run does not stop, so it gets no more runs; its process is ended as soon as nobody waits
            for any run that has begun there.
    """

    def __init__(self, settings: StdioSettings, pool: Pool) -> None:
        self.runs: dict[str, StdioRun] = {}
        self.retiring = False
        self._settings = settings
        self._pool = pool
        self._process: WorkerProcess | None = None
        self._in_threads = 0
        self._threads = settings.threads or DEFAULT_THREADS
        self._loop = asyncio.get_running_loop()

    async def start(self) -> None:
        """Start the process and send it what has been given until then.

        Raises:
            OSError: it cannot be started.
            RuntimeError: the interpreter is about to exit.
        """
        command = self._settings.command
        starting = self._loop.create_task(in_daemon_thread(command.start))
        try:
            started = await asyncio.shield(starting)
        except asyncio.CancelledError:
            starting.add_done_callback(_discard)
            raise
        own = command.argv is None
        self._process = WorkerProcess(
            started,
            settings={"threads": self._threads, **({"path": _import_path()} if own else {})},
            greet=own,
            on_frame=self._on_frame,
            on_line=self._on_line,
            on_writable=self._pool.has_room,
            on_exit=self._on_exit,
        )
        for run in list(self.runs.values()):
            self._send(self._process, run)
        self._pool.has_room()

    def can_take(self, run: StdioRun) -> bool:
        """Tell whether the worker would work on the run soon."""
        if self._process is not None and self._process.unsent > _MOST_UNSENT:
            return False
        return run.is_coroutine or self._in_threads < self._capacity()

    def take(self, run: StdioRun) -> None:
        """Take a run."""
        self.runs[run.run_id] = run
        self._in_threads += not run.is_coroutine
        if self._process is not None:
            self._send(self._process, run)

    def cancel(self, run: StdioRun, frame: dict[str, Any]) -> None:
        """Stop a run that the worker has taken."""
        run.given_up = True
        if self._process is None:
            self._forget(run)
            run.cancelled()
            return
        self._process.write(pack(frame) if self._process.speaks_frames else [command_line(frame)])
        self._loop.call_later(CANCEL_GRACE, self._insist, run)

    async def close(self) -> None:
        """End the process; what it is still working on is lost."""
        for run in list(self.runs.values()):
            self._forget(run)
            run.shut_down()
        if self._process is not None:
            await self._process.close()

    def _capacity(self) -> float:
        if self._settings.threads is None and not self._speaks_frames():
            return float("inf")
        return self._threads + (_AHEAD if self._settings.processes == 1 and self._speaks_frames() else 0)

    def _speaks_frames(self) -> bool:
        return self._settings.command.argv is None or (self._process is not None and self._process.speaks_frames)

    def _send(self, process: WorkerProcess, run: StdioRun) -> None:
        try:
            if process.speaks_frames:
                pickled = run.pickles.get(run.frame["callable"], what=Part("the callable", run.frame))
                run.sent_until = process.write(pack_run(run.frame, *pickled, coroutine=run.is_coroutine))
            else:
                run.sent_until = process.write([command_line(run.frame)])
        except BaseException as error:  # Pickling runs the user's own code.
            self._forget(run)
            run.fail(error, retryable=False)

    def _forget(self, run: StdioRun) -> None:
        del self.runs[run.run_id]
        self._in_threads -= not run.is_coroutine

    def _on_frame(self, frame: Frame) -> None:
        run = self.runs.get(frame.head["run_id"])
        if run is None:
            return  # What nobody waits for is not even unpickled.
        if frame.head["type"] == RETURNED:
            self._forget(run)
            self._pool.returned(run)
            return
        started = frame.head.pop("started", False)
        self._deliver(run, unpack_event(frame), started)

    def _on_line(self, line: bytes) -> None:
        if not line.strip():
            return
        try:
            payload = frame_from_bytes(line)
            run = self.runs.get(payload["run_id"])
            event = None if run is None else deserialize_event(payload)
        except (ValueError, KeyError, TypeError):
            text = line[:200].decode("utf-8", "replace")
            _log.warning("%s wrote a line on stdout that is no frame: %s", self._settings.command, text)
            if self._process is not None:
                self._process.note(text)
            return
        if run is not None and event is not None:
            self._deliver(run, event)

    def _deliver(self, run: StdioRun, event: dict[str, Any], started: bool = False) -> None:
        final = event["type"] in FINAL_EVENTS
        if final:
            self._forget(run)
        run.deliver(event, started)
        if final:
            if self.retiring:
                self._retire()
            self._pool.has_room()

    def _insist(self, run: StdioRun) -> None:
        if self.runs.get(run.run_id) is not run:
            return
        self.retiring = True
        if self._process is not None and self._speaks_frames():
            begun = {run.run_id for run in self._begun()}
            for run_id in self.runs.keys() - begun:
                self._process.write(pack(recall_command(run_id)))
        self._retire()

    def _retire(self) -> None:
        """Go on with retiring, or stop it if everything that was cancelled has ended after all."""
        self.retiring = any(run.given_up for run in self.runs.values())
        if self.retiring and self._process is not None and all(run.given_up for run in self._begun()):
            self._process.kill()

    def _begun(self) -> list[StdioRun]:
        """Return the runs that may have begun: the worker takes synchronous ones in order, `threads` at a time."""
        if not self._speaks_frames():
            return list(self.runs.values())
        synchronous = [run for run in self.runs.values() if not run.is_coroutine]
        return [run for run in self.runs.values() if run.is_coroutine] + synchronous[: self._threads]

    def _lost_with(self, end: WorkerExit) -> dict[str, StdioRun]:
        """Return the runs that end with the process: those that may have begun, or all of them if it is of no use to
        try again.
        """
        if end.hopeless:
            return dict(self.runs)
        begun = {run.run_id: run for run in self._begun() if run.sent_until <= end.received}
        if begun:
            return begun
        for run in self.runs.values():
            run.returns += 1
        return {run.run_id: run for run in self.runs.values() if run.returns > _MOST_RETURNS}

    def _on_exit(self, end: WorkerExit) -> None:
        lost = self._lost_with(end)
        again = [run for run_id, run in self.runs.items() if run_id not in lost or (not end.hopeless and run.requeue())]
        self.runs.clear()
        self._in_threads = 0
        for run in lost.values():
            if run not in again:
                run.lost(self._settings.command, end)
        self._pool.lost(self, again, end)


def _import_path() -> list[str]:
    """Return where this process finds modules, so that its worker finds the same ones."""
    return [os.path.abspath(place) for place in map(str, sys.path)]


def _discard(starting: "asyncio.Task[StartedWorker]") -> None:
    if not starting.cancelled() and starting.exception() is None:
        starting.result().discard()
