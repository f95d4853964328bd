"""What a worker service does, whatever its transport: it takes commands, and reports what becomes of their runs.

A run outlives the connection over which it came. Whoever asks again, with the same command or with ``attach_run``, is
told the rest; when nobody has listened for a while, the run is cancelled, unless its orphan policy is ``detach``.
"""

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

from wove.backend.frames import check_frame, frame_from_bytes, json_to_bytes
from wove.backend.types import FINAL_EVENTS
from wove.errors import DeliveryOrphanedError
from wove.services.settings import MIB, ServiceSettings
from wove.services.workers import Job, WorkerPool

# How long a run goes on without anybody who listens.
ABANDONED_SECONDS = 30.0
# How long an outcome is kept for a client that lost its connection, and how much of them.
KEPT_SECONDS = 60.0
KEPT_BYTES = 64 * MIB
# Beyond this, commands are refused: what waits here is held in memory.
MOST_RUNS = 10_000

# Takes a run's id, an event's type and its JSON.
Listener = Callable[[str, str, bytes], None]

logger = logging.getLogger("wove.services")


class BadCommand(ValueError):
    """What came is no command. The text is meant for the client."""


class Busy(RuntimeError):
    """The service takes no runs now, because it is shutting down or has too many. The text is meant for the client."""


class _Run:
    """One run that the service has taken."""

    __slots__ = ("abandoned", "events", "final", "forgotten", "job", "listeners", "may_be_orphaned")

    def __init__(self, job: Job, *, may_be_orphaned: bool) -> None:
        self.job = job
        self.may_be_orphaned = may_be_orphaned
        self.listeners: list[Listener] = []
        # What a new listener is told first: the start, and at the end the final event.
        self.events: list[tuple[str, bytes]] = []
        self.final = False
        self.abandoned: asyncio.TimerHandle | None = None
        self.forgotten: asyncio.TimerHandle | None = None


class WorkerService:
    """Executes commands in worker processes. Belongs to one event loop."""

    def __init__(self, settings: ServiceSettings) -> None:
        self.settings = settings
        self._pool = WorkerPool(settings.processes, settings.threads, on_event=self._on_event)
        self._runs: dict[str, _Run] = {}
        self._ended: OrderedDict[str, int] = OrderedDict()
        self._ended_bytes = 0
        # Cancelled before their command came: the two may overtake each other on different connections.
        self._cancelled: OrderedDict[str, None] = OrderedDict()
        self._starting: asyncio.Task[None] | None = None
        self._stopping: asyncio.Task[None] | None = None
        self._idle = asyncio.Event()
        self._idle.set()
        self.draining = False

    @property
    def running(self) -> int:
        """How many runs have not ended."""
        return len(self._runs) - len(self._ended)

    async def start(self) -> None:
        """Start the worker processes, once; not after `stop`."""
        if self.draining:
            return
        if self._starting is None:
            self._starting = asyncio.ensure_future(self._pool.start())
        await asyncio.shield(self._starting)

    async def stop(self, grace: float | None = None) -> None:
        """Take no more runs, let the others finish, report those that have not, and end the worker processes.

        Args:
            grace: seconds for the runs to finish; None for those of the settings. Counts in the first call alone.
        """
        self.draining = True
        if self._stopping is None:
            self._stopping = asyncio.ensure_future(self._stop(self.settings.grace if grace is None else grace))
        await asyncio.shield(self._stopping)

    def hurry(self) -> None:
        """End the grace of a `stop` that is under way."""
        self._idle.set()

    async def _stop(self, grace: float) -> None:
        try:
            async with asyncio.timeout(grace):
                await self._idle.wait()
        except TimeoutError:
            pass
        for run in [run for run in self._runs.values() if not run.final]:
            error = DeliveryOrphanedError("The service was shut down before the task had ended.", state="cancelled")
            self._on_event(run.job.run_id, "task_error", run.job.lost(error))
        for run_id in list(self._ended):
            self._forget(run_id)
        if self._starting is not None:
            await asyncio.wait([self._starting])
        await self._pool.close()

    def take(self, body: bytes, listener: Listener) -> str | None:
        """Carry out one command, whose sender has been verified.

        Args:
            body: the command's JSON.
            listener: is told every event of the run, until its final one or until `leave`.

        Returns:
            The id of the run that the listener now listens to; None where everything has been said.

        Raises:
            BadCommand: it is no command.
            Busy: the service takes no runs now.
        """
        try:
            frame = frame_from_bytes(body)
            kind = check_frame(frame)
        except ValueError as error:
            raise BadCommand(str(error)) from None
        if kind == "run_task":
            return self._run(frame, body, listener)
        if kind == "attach_run":
            return self._attach(frame, listener)
        if kind == "cancel_task":
            self._cancel(frame["run_id"], body)
        elif kind != "shutdown":
            raise BadCommand(
                f"No command is of type {kind[:80]!r}. Types: run_task, cancel_task, attach_run, shutdown."
            )
        return None

    def leave(self, run_id: str, listener: Listener) -> None:
        """Tell a listener nothing more."""
        run = self._runs.get(run_id)
        if run is None or listener not in run.listeners:
            return
        run.listeners.remove(listener)
        if not run.listeners and not run.final and run.may_be_orphaned:
            loop = asyncio.get_running_loop()
            run.abandoned = loop.call_later(ABANDONED_SECONDS, self._abandon, run)

    def _run(self, frame: dict[str, Any], body: bytes, listener: Listener) -> str | None:
        run_id: str = frame["run_id"]
        for field in ("callable_pickle", "args_pickle"):
            # The value of a large command is a view of its bytes.
            if not isinstance(frame.get(field), str | memoryview):
                raise BadCommand(f"A run_task command needs {field!r}, the base64 of a pickle.")
        if run_id not in self._runs:
            if self.draining:
                raise Busy("The service is shutting down.")
            if self.running >= MOST_RUNS:
                raise Busy(f"The service has {self.running} runs to do and takes no more now.")
            self._begin(frame, body)
        return self._listen(self._runs[run_id], listener)

    def _begin(self, frame: dict[str, Any], body: bytes) -> None:
        job = Job(frame["run_id"], frame.get("task_id"), _one_line(body), is_coroutine=frame.get("coroutine") is True)
        delivery = frame.get("delivery")
        policy = delivery.get("delivery_orphan_policy") if isinstance(delivery, dict) else None
        self._runs[job.run_id] = _Run(job, may_be_orphaned=policy != "detach")
        self._idle.clear()
        if job.run_id in self._cancelled:
            self._on_event(job.run_id, "task_cancelled", job.cancelled())
        else:
            self._pool.submit(job)

    def _attach(self, frame: dict[str, Any], listener: Listener) -> str | None:
        run = self._runs.get(frame["run_id"])
        if run is not None:
            return self._listen(run, listener)
        job = Job(frame["run_id"], frame.get("task_id"), b"", is_coroutine=False)
        message = "The service does not know the run: it was started again meanwhile, or the run never arrived."
        listener(job.run_id, "task_error", job.lost(DeliveryOrphanedError(message, state="gone")))
        return None

    def _listen(self, run: _Run, listener: Listener) -> str | None:
        if run.abandoned is not None:
            run.abandoned.cancel()
            run.abandoned = None
        for kind, event in run.events:
            listener(run.job.run_id, kind, event)
        if run.final:
            return None
        if listener not in run.listeners:
            run.listeners.append(listener)
        return run.job.run_id

    def _cancel(self, run_id: str, body: bytes) -> None:
        run = self._runs.get(run_id)
        if run is None:
            self._cancelled[run_id] = None
            if len(self._cancelled) > MOST_RUNS:
                self._cancelled.popitem(last=False)
        elif not run.final:
            self._pool.cancel(run_id, _one_line(body))

    def _abandon(self, run: _Run) -> None:
        logger.info("Run %s is cancelled: nobody has listened to it for %g s.", run.job.run_id, ABANDONED_SECONDS)
        frame = {"type": "cancel_task", "run_id": run.job.run_id, "task_id": run.job.task_id}
        self._pool.cancel(run.job.run_id, json_to_bytes(frame))

    def _on_event(self, run_id: str, kind: str, event: bytes) -> None:
        run = self._runs.get(run_id)
        if run is None or run.final:
            return
        run.final = kind in FINAL_EVENTS
        if run.final or kind == "task_started":
            run.events.append((kind, event))
        listeners = list(run.listeners)
        if run.final:
            run.listeners.clear()
            self._keep(run, len(event))
        for listener in listeners:
            listener(run_id, kind, event)

    def _keep(self, run: _Run, size: int) -> None:
        """Remember the outcome for a while, for a client whose connection breaks before it has read it."""
        run_id = run.job.run_id
        run.job.line = b""
        if run.abandoned is not None:
            run.abandoned.cancel()
        run.forgotten = asyncio.get_running_loop().call_later(KEPT_SECONDS, self._forget, run_id)
        self._ended[run_id] = size
        self._ended_bytes += size
        while self._ended_bytes > KEPT_BYTES and len(self._ended) > 1:
            self._forget(next(iter(self._ended)))
        if not self.running:
            self._idle.set()

    def _forget(self, run_id: str) -> None:
        timer = self._runs.pop(run_id).forgotten
        if timer is not None:
            timer.cancel()
        self._ended_bytes -= self._ended.pop(run_id)


def _one_line(body: bytes) -> bytes:
    # Within strings JSON has no line breaks; between them they mean no more than spaces.
    return body.replace(b"\n", b" ")
