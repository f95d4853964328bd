"""`ARQAdapter`: lets tasks of a weave run on ARQ workers."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any

from wove.backend.threads import in_daemon_thread
from wove.integrations.base import BackendAdapter, JobState
from wove.integrations.gathering import Gathering
from wove.integrations.jobs import is_detached, job_id_of, seconds_left
from wove_arq.outcomes import LARGEST, asking
from wove_arq.settings import read_settings

if TYPE_CHECKING:
    from wove_arq.arriving import Arrivals
    from wove_arq.jobs import Jobs, NewJob

# What is larger waits at the callback receiver instead: ARQ encodes jobs on the event loop.
_LARGEST_PAYLOAD = 256 * 1024
_CLOSE_SECONDS = 1.0
# How long a job that was stopped is waited for, to remove what ARQ keeps of it.
_REMOVAL_SECONDS = 60.0
_FIRST_PAUSE, _LONGEST_PAUSE = 0.05, 1.0

logger = logging.getLogger("wove")


class Submitted:
    """The handle of a job.

    Attributes:
        job_id: ARQ's id.
        state: what ARQ said when the job was over.
    """

    __slots__ = ("job_id", "state")

    def __init__(self, job_id: str) -> None:
        self.job_id = job_id
        self.state: JobState | None = None

    def __repr__(self) -> str:
        return f"<ARQ job {self.job_id}>"


class ARQAdapter(BackendAdapter):
    """Submits tasks to ARQ workers that have `wove_arq.worker.run_payload` among their functions.

    ``executor_config``: ``redis_settings`` or ``pool``; ``function_name``, ``queue_name``, ``job_serializer``,
    ``enqueue_options``. The README has a table.
    """

    required_modules = ("arq", "redis")
    install_hint = "pip install wove-arq"
    max_payload_bytes = _LARGEST_PAYLOAD
    poll_interval = 1.5
    carries_outcomes = True
    capabilities = frozenset(
        "cancel_queued cancel_running_async cancel_running_sync deduplicate detect_dead_process detect_dead_worker "
        "detect_lost_job graceful_stop max_argument_20mb queues_without_worker separate_process".split()
    )

    _jobs: "Jobs | None" = None
    # None where workers post all outcomes.
    _arrivals: "Arrivals | None" = None
    _removing: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Check the configuration and connect to Redis.

        Raises:
            ConfigurationError: a key is missing or wrong; the message names it and shows an example.
            ConnectionError: Redis cannot be reached; the message names it, without credentials.
        """
        self._unwanted = Gathering(self._stop)
        self._stopping: set[str] = set()
        settings = read_settings(self.config, name=self.name)
        # ARQ takes a while to import.
        jobs = await in_daemon_thread(import_module, "wove_arq.jobs")
        self._jobs = jobs.Jobs(settings)
        await self._connected.connect()
        # A count of tries that begins anew with each delivery does not show that there has been an outcome.
        if self.carries_outcomes and "_job_try" not in settings.options:
            arriving = await in_daemon_thread(import_module, "wove_arq.arriving")
            arrivals: Arrivals = arriving.Arrivals(settings)
            self._arrivals = arrivals if await arrivals.open() else None

    async def submit_many(
        self, submissions: Sequence[tuple[dict[str, Any], dict[str, Any]]]
    ) -> Sequence[Submitted | Exception]:
        """Enqueue jobs in one go; the id of each is the idempotency key, or else the run's id.

        Returns:
            For each job its handle, or a DeliveryError: Redis refuses the job, or another weave's job has the same
            idempotency key.

        Raises:
            ConnectionError: Redis cannot be reached.
        """
        jobs = [_new_job(self._asking(payload, frame), frame) for payload, frame in submissions]
        refusals = await self._connected.enqueue(jobs)
        return [refusal or Submitted(job.job_id) for job, refusal in zip(jobs, refusals, strict=True)]

    async def cancel(self, run_id: str, submission: Any, frame: dict[str, Any]) -> None:
        """Remove a job that has not begun; let a worker that allows it abort one that runs."""
        if not isinstance(submission, Submitted) or submission.state is not None:
            return
        await self._unwanted.add(submission.job_id)

    async def poll(self, submissions: Mapping[str, Any]) -> Mapping[str, JobState]:
        """Return what ARQ says about jobs, and whether the workers that began them are still there."""
        handles: dict[str, Submitted] = dict(submissions)
        states = await self._connected.states([each.job_id for each in handles.values() if each.state is None])
        for handle in handles.values():
            said = states.get(handle.job_id)
            # ARQ has nothing more to say of these, and nothing that would have to be cancelled.
            if handle.state is None and said is not None and said.phase in ("failed", "finished"):
                handle.state = said
        return {run_id: handle.state or states[handle.job_id] for run_id, handle in handles.items()}

    async def watch(self) -> AsyncIterator[tuple[str, JobState]]:
        """Yield the outcomes that workers leave in Redis."""
        if self._arrivals is None:
            await asyncio.Event().wait()
            return
        async for run_id, outcome in self._arrivals.outcomes():
            # Anybody may have left it there. If it is refused, that says nothing about the job.
            yield run_id, JobState("running", outcome=outcome)

    async def close(self) -> None:
        """Wait a moment for jobs that are being stopped, then close the connections."""
        if self._jobs is None:
            return
        await self._unwanted.close(_CLOSE_SECONDS)
        # Begun by the cancel that was still gathering, perhaps.
        if self._removing is not None:
            await asyncio.wait([self._removing], timeout=_CLOSE_SECONDS)
            self._removing.cancel()
            await asyncio.wait([self._removing], timeout=_CLOSE_SECONDS)
        if self._arrivals is not None:
            await self._arrivals.close()
        await self._jobs.close()

    @property
    def _connected(self) -> "Jobs":
        if self._jobs is None:
            raise RuntimeError(f"The adapter {self.name!r} has not been started.")
        return self._jobs

    def _asking(self, payload: Mapping[str, Any], frame: Mapping[str, Any]) -> Mapping[str, Any]:
        # What a detached task has to say may come when nobody waits for it here any more.
        if self._arrivals is None or is_detached(frame):
            return payload
        # What is larger than the receiver takes is posted, so that the worker hears of that.
        return asking(payload, self._arrivals.name, min(LARGEST, self.config.get("callback_max_bytes") or LARGEST))

    async def _stop(self, job_ids: list[str]) -> None:
        self._stopping |= await self._connected.stop(job_ids)
        if self._stopping and (self._removing is None or self._removing.done()):
            self._removing = asyncio.get_running_loop().create_task(self._remove_stopped())

    async def _remove_stopped(self) -> None:
        """Remove what ARQ keeps of stopped jobs, as soon as nobody executes them any more."""
        pause, deadline = _FIRST_PAUSE, time.monotonic() + _REMOVAL_SECONDS
        try:
            while self._stopping and time.monotonic() < deadline:
                await asyncio.sleep(pause)
                pause = min(2 * pause, _LONGEST_PAUSE)
                await self._stop_again()
        finally:
            await self._forget_stopping()

    async def _forget_stopping(self) -> None:
        if self._stopping:
            try:
                await self._connected.forget(self._stopping)
            except Exception as error:  # Redis is away.
                logger.debug("What ARQ's workers were asked could not be taken back: %s", error)
            self._stopping.clear()

    async def _stop_again(self) -> None:
        asked = set(self._stopping)
        try:
            left = await self._connected.stop(asked)
        except Exception as error:  # Redis is away for a moment, perhaps.
            logger.debug("Removing stopped jobs from ARQ failed: %s", error)
        else:
            self._stopping -= asked - left


def _new_job(payload: Mapping[str, Any], frame: Mapping[str, Any]) -> "NewJob":
    from wove_arq.jobs import NewJob

    return NewJob(job_id_of(frame), str(frame["run_id"]), payload, seconds_left(payload, frame))
