"""`RQAdapter`: lets tasks of a weave run on RQ workers."""

import asyncio
import hashlib
import logging
import re
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from wove.backend.threads import in_daemon_thread
from wove.integrations.base import BackendAdapter, JobState
from wove.integrations.gathering import Gathering
from wove.integrations.jobs import job_id_of, seconds_left
from wove_rq.settings import read_settings

if TYPE_CHECKING:
    from wove_rq.jobs import Jobs, NewJob

# What is larger waits at the callback receiver instead: RQ compresses jobs, in the process that submits.
_LARGEST_PAYLOAD = 256 * 1024
_CLOSE_SECONDS = 3.0
# How long a job that was stopped is waited for, to remove what RQ keeps of it.
_REMOVAL_SECONDS = 60.0
_FIRST_PAUSE, _LONGEST_PAUSE = 0.05, 1.0
# https://github.com/rq/rq: letters, digits, underscores and dashes.
_LEGAL_ID = re.compile(r"[A-Za-z0-9_-]{1,128}")

logger = logging.getLogger("wove")


class Submitted:
    """The handle of a job.

    Attributes:
        job_id: RQ's id.
        state: what RQ said when the job had failed; it is removed from RQ then.
    """

    __slots__ = ("job_id", "state")

    def __init__(self, job_id: str) -> None:
        self.job_id = job_id
        self.state: JobState | None = None

    def __repr__(self) -> str:
        return f"<RQ job {self.job_id}>"


class RQAdapter(BackendAdapter):
    """Submits tasks to RQ workers that have this distribution installed.

    ``executor_config``: ``queue`` or ``redis_url``; ``queue_name``, ``serializer``, ``enqueue_options``,
    ``terminate_on_cancel``. The README has a table.
    """

    required_modules = ("rq", "redis")
    install_hint = "pip install wove-rq"
    max_payload_bytes = _LARGEST_PAYLOAD
    poll_interval = 2.0
    capabilities = frozenset(
        "cancel_queued cancel_running_async cancel_running_sync deduplicate detect_dead_process detect_dead_worker "
        "detect_lost_job graceful_stop max_argument_20mb queues_without_worker separate_process".split()
    )

    _jobs: "Jobs | None" = None

    async def start(self) -> None:
        """Check the configuration and connect to Redis.

        Raises:
            ConfigurationError: a key is missing or wrong; the message names it and shows an example.
            ConnectionError: Redis cannot be reached; the message names it, without credentials.
        """
        self._unwanted = Gathering(self._stop)
        self._stopping: set[str] = set()
        self._removing: asyncio.Task[None] | None = None
        self._settings = read_settings(self.config, name=self.name)
        await in_daemon_thread(self._connect)

    def _connect(self) -> None:
        # RQ takes a while to import.
        from wove_rq.jobs import Jobs

        self._jobs = Jobs(self._settings)
        self._jobs.connect()

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
        return await in_daemon_thread(self._enqueue, submissions)

    def _enqueue(self, submissions: Sequence[tuple[dict[str, Any], dict[str, Any]]]) -> list[Submitted | Exception]:
        jobs = [_new_job(payload, frame) for payload, frame in submissions]
        refusals = self._connected.enqueue(jobs)
        return [refusal or Submitted(job.job_id) for job, refusal in zip(jobs, refusals, strict=True)]

    async def cancel(self, run_id: str, submission: Any, frame: dict[str, Any]) -> None:
        """Remove a job that has not begun; end one that runs, unless ``terminate_on_cancel`` is off."""
        if not isinstance(submission, Submitted) or submission.state is not None:
            return
        await self._unwanted.add(submission.job_id)

    async def poll(self, submissions: Mapping[str, Any]) -> Mapping[str, JobState]:
        """Return what RQ says about jobs, and whether their workers are still there."""
        handles: dict[str, Submitted] = dict(submissions)
        unknown = [handle.job_id for handle in handles.values() if handle.state is None]
        states = await in_daemon_thread(self._connected.states, unknown)
        for handle in handles.values():
            said = states.get(handle.job_id)
            if handle.state is None and said is not None and said.phase in ("failed", "cancelled"):
                handle.state = said
        return {run_id: handle.state or states[handle.job_id] for run_id, handle in handles.items()}

    async def close(self) -> None:
        """Wait a moment for jobs that are being stopped, then close the connections."""
        if self._jobs is None:
            return
        deadline = time.monotonic() + _CLOSE_SECONDS
        await self._unwanted.close(_CLOSE_SECONDS)
        if self._removing is not None:
            await asyncio.wait([self._removing], timeout=max(deadline - time.monotonic(), 0.0))
            self._removing.cancel()
        await in_daemon_thread(self._jobs.close)

    @property
    def _connected(self) -> "Jobs":
        if self._jobs is None:
            raise RuntimeError(f"The adapter {self.name!r} has not been started.")
        return self._jobs

    async def _stop(self, job_ids: list[str]) -> None:
        self._stopping |= await in_daemon_thread(self._connected.stop, job_ids)
        if self._stopping and (self._removing is None or self._removing.done()):
            self._removing = asyncio.get_running_loop().create_task(self._remove_stopped())

    async def _remove_stopped(self) -> None:
        """Remove what RQ keeps of stopped jobs, as soon as they have ended."""
        pause, deadline = _FIRST_PAUSE, time.monotonic() + _REMOVAL_SECONDS
        while self._stopping:
            await asyncio.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)
            is_last = time.monotonic() >= deadline
            asked = set(self._stopping)
            left = await self._left_of(asked, all_of_them=is_last)
            self._stopping -= asked if is_last else asked - left

    async def _left_of(self, asked: set[str], *, all_of_them: bool) -> set[str]:
        try:
            return await in_daemon_thread(lambda: self._connected.remove_ended(asked, all_of_them=all_of_them))
        except Exception as error:  # RQ removes them after failure_ttl.
            logger.debug("Removing stopped jobs from RQ failed: %s", error)
            return asked


def _new_job(payload: Mapping[str, Any], frame: Mapping[str, Any]) -> "NewJob":
    from wove_rq.jobs import NewJob

    options: dict[str, Any] = {
        "description": f"wove: {payload.get('task_name') or payload.get('task_id')}",
        # RQ's own default would end every job after three minutes.
        "job_timeout": -1,
    }
    left = seconds_left(payload, frame)
    if left is not None:
        options |= {"job_timeout": left, "ttl": left}
    return NewJob(_legal(job_id_of(frame)), str(frame["run_id"]), payload, options)


def _legal(job_id: str) -> str:
    """Return an idempotency key in characters that RQ takes. Run ids are legal as they are."""
    return job_id if _LEGAL_ID.fullmatch(job_id) else f"key-{hashlib.sha256(job_id.encode()).hexdigest()[:40]}"
