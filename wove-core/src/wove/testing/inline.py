"""Reference adapters: a whole backend in this process, and one that treats its jobs badly.

`InlineAdapter` is the smallest adapter that does everything the contract allows. `FaultyAdapter` is what a backend may
be like at its worst; Wove has to keep its promises with it, too.
"""

import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from wove.errors import ConfigurationError
from wove.integrations.base import BackendAdapter, JobPhase, JobState
from wove.integrations.worker import run

Treatment = Literal["run", "drop", "lose", "delay", "duplicate", "reorder", "die"]

_DELAY_SECONDS = 0.2


@dataclass(slots=True)
class _Job:
    id: str
    payload: dict[str, Any]
    phase: JobPhase = "queued"
    exit_code: int | None = None
    reason: str | None = None
    due: float = 0.0
    treatment: Treatment = "run"
    executing: int = 0


class InlineBackend:
    """A queue of payloads and the threads that work on it. Its methods may be called from any thread.

    Pickled, it becomes a new and empty one of the same size: another process has a backend of its own.

    Attributes:
        reachable: whether clients find the backend.

    Args:
        workers: the number of threads; they start with the first job.
    """

    def __init__(self, workers: int = 8) -> None:
        self.reachable = True
        self._size = workers
        self._changed = threading.Condition()
        self._queue: deque[_Job] = deque()
        self._jobs: dict[str, _Job] = {}
        self._threads: list[threading.Thread] = []
        self._working = True

    def __reduce__(self) -> tuple[type["InlineBackend"], tuple[int]]:
        return InlineBackend, (self._size,)

    def put(self, job_id: str, payload: dict[str, Any], treatment: Treatment = "run") -> str:
        """Take a job in, unless one of that id is there already, and return its id.

        Raises:
            ConnectionError: the backend is not reachable.
        """
        self._require_reachable()
        with self._changed:
            if job_id in self._jobs:
                return job_id
            job = self._jobs[job_id] = _Job(job_id, payload, treatment=treatment)
            self._queue_up(job)
            self._start_threads()
            self._changed.notify_all()
        return job_id

    def remove(self, job_id: str) -> None:
        """Forget a job that has not started; any other stays."""
        self._require_reachable()
        with self._changed:
            job = self._jobs.get(job_id)
            if job is not None and job.phase == "queued":
                del self._jobs[job_id]
                self._queue = deque(other for other in self._queue if other is not job)

    def state(self, job_id: str) -> JobState | None:
        """Return what is known of a job; None for one that was never seen."""
        self._require_reachable()
        with self._changed:
            job = self._jobs.get(job_id)
            return JobState(job.phase, job.exit_code, job.reason) if job is not None else None

    def unfinished(self) -> list[str]:
        """Return the ids of the jobs that wait or run."""
        with self._changed:
            return [job.id for job in self._jobs.values() if job.phase in ("queued", "running")]

    def resume(self) -> None:
        """Let threads take jobs, as they do from the start."""
        with self._changed:
            self._working = True
            self._start_threads()
            self._changed.notify_all()

    def pause(self) -> None:
        """Let no thread take another job, as if no worker was up."""
        with self._changed:
            self._working = False
            self._changed.notify_all()

    def _require_reachable(self) -> None:
        if not self.reachable:
            raise ConnectionError("The inline backend is down.")

    def _queue_up(self, job: _Job) -> None:
        if job.treatment == "delay":
            job.due = time.monotonic() + _DELAY_SECONDS
        if job.treatment in ("drop", "lose"):
            job.phase = "gone" if job.treatment == "lose" else "queued"
            return
        if job.treatment == "reorder":
            # It waits until later ones have overtaken it.
            job.due = time.monotonic() + _DELAY_SECONDS / 4
        self._queue.append(job)
        if job.treatment == "duplicate":
            self._queue.append(job)

    def _start_threads(self) -> None:
        while self._working and len(self._threads) < self._size:
            thread = threading.Thread(target=self._work, name="inline-worker", daemon=True)
            self._threads.append(thread)
            thread.start()

    def _work(self) -> None:
        while True:
            with self._changed:
                job = self._next()
                if job is None:
                    self._threads.remove(threading.current_thread())
                    return
                job.phase = "running"
                job.executing += 1
            self._execute(job)

    def _next(self) -> _Job | None:
        """Wait for a job that is due; None when there is nothing to do any more, and the thread may end."""
        idle_until = time.monotonic() + 1.0
        while self._working:
            now = time.monotonic()
            for job in self._queue:
                if job.due <= now:
                    self._queue.remove(job)
                    return job
            if not self._queue and now > idle_until:
                return None
            self._changed.wait(0.05 if self._queue else 0.5)
        return None

    def _execute(self, job: _Job) -> None:
        phase: JobPhase = "finished"
        if job.treatment == "die":
            phase, job.exit_code, job.reason = "failed", 137, "Killed"
        else:
            try:
                run(job.payload)
            except BaseException as error:
                # A thread that ends would be a worker less: what is wrong is the job's state, as in any backend.
                phase, job.reason = "failed", repr(error)
        with self._changed:
            job.executing -= 1
            if not job.executing:
                job.phase = phase
            self._changed.notify_all()


class InlineAdapter(BackendAdapter):
    """Runs tasks on threads of this process, through the whole path of a backend.

    Configuration: ``backend`` is the `InlineBackend`; one of its own if omitted. ``max_payload_bytes`` sets the
    adapter's limit.
    """

    poll_interval = 0.2
    capabilities: ClassVar[frozenset[str]] = frozenset(
        "cancel_queued cancel_running_async cancel_running_sync deduplicate detect_lost_job max_argument_20mb "
        "queues_without_worker".split()
    )
    limitations: ClassVar[Mapping[str, str]] = {
        "detect_dead_process": "tasks run on threads of the weave's own process",
        "detect_dead_worker": "the worker is the weave's own process",
        "graceful_stop": "the worker is the weave's own process",
        "separate_process": "tasks run on threads of the weave's own process",
    }

    async def start(self) -> None:
        """Find the backend.

        Raises:
            ConfigurationError: ``backend`` is something else.
            ConnectionError: it is not reachable.
        """
        backend = self.config.get("backend")
        if backend is not None and not isinstance(backend, InlineBackend):
            raise ConfigurationError(
                f"executor_config of {self.name!r}: backend must be an InlineBackend(), not {type(backend).__name__}."
            )
        self.backend = backend or InlineBackend()
        self.max_payload_bytes = self.config.get("max_payload_bytes", self.max_payload_bytes)
        if not self.backend.reachable:
            raise ConnectionError("The inline backend is down.")

    async def submit(self, payload: dict[str, Any], frame: dict[str, Any]) -> Any:
        """Put a payload into the queue; the job's id is the idempotency key, or else the run's id."""
        return self.backend.put(_job_id(frame), payload)

    async def cancel(self, run_id: str, submission: Any, frame: dict[str, Any]) -> None:
        """Remove a job that has not started."""
        if submission is not None:
            self.backend.remove(submission)

    async def poll(self, submissions: Mapping[str, Any]) -> Mapping[str, JobState]:
        """Return the states of jobs."""
        states = {run_id: self.backend.state(job_id) for run_id, job_id in submissions.items()}
        return {run_id: state for run_id, state in states.items() if state is not None}


class FaultyAdapter(InlineAdapter):
    """Treats one submission after the other as ``treatments`` says, and starts over at the end of that list.

    Configuration: ``treatments``, a sequence of ``"run"``; ``"drop"``: accepted and forgotten; ``"lose"``: reported as
    gone; ``"delay"``; ``"duplicate"``: run twice, at the same time; ``"reorder"``: overtaken by later ones; ``"die"``:
    reported as failed with exit code 137 without an event.
    """

    async def start(self) -> None:
        """Find the backend and the list of treatments."""
        await super().start()
        self._treatments: Sequence[Treatment] = self.config.get("treatments") or ("run",)
        self._submitted = 0

    async def submit(self, payload: dict[str, Any], frame: dict[str, Any]) -> Any:
        """Put a payload into the queue, to be treated as its turn demands."""
        treatment = self._treatments[self._submitted % len(self._treatments)]
        self._submitted += 1
        return self.backend.put(_job_id(frame), payload, treatment)


def _job_id(frame: Mapping[str, Any]) -> str:
    delivery = frame.get("delivery") or {}
    return str(delivery.get("delivery_idempotency_key") or frame["run_id"])
