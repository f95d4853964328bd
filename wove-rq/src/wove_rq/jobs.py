"""Everything that the adapter asks of Redis: blocking, from any thread."""

import importlib
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from redis import Redis
from redis.backoff import ConstantBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError
from redis.exceptions import TimeoutError as RedisTimeoutError
from redis.retry import Retry as Retries
from rq import Queue, Retry
from rq.command import send_stop_job_command
from rq.exceptions import DuplicateJobError, InvalidJobOperation, NoSuchJobError
from rq.job import Job

from wove.errors import ConfigurationError, DeliveryError
from wove.integrations.base import JobPhase, JobState
from wove_rq.presence import busy_workers, running_jobs
from wove_rq.settings import Settings

FUNCTION = "wove_rq.worker.execute"

# How long Redis may take to accept a connection and to answer; each is tried twice.
_CONNECT_SECONDS = 3.0
_ANSWER_SECONDS = 5.0
# How long a job of the same key, which is just ending, may hold up the next one.
_SUCCESSION_SECONDS = 2.0
_SUCCESSION_PAUSE = 0.02
# A failed job is removed by whoever waited for it; where nobody is left to, RQ does it after this time.
_FAILURE_TTL = 3600

_PHASES: Mapping[str, JobPhase] = {
    "created": "queued",
    "queued": "queued",
    "deferred": "queued",
    "scheduled": "queued",
    "rate_limited": "queued",
    "ready_to_enqueue": "queued",
    "started": "running",
    "finished": "finished",
    "failed": "failed",
    "stopped": "cancelled",
    "canceled": "cancelled",
}
_GONE = JobState("gone", reason="RQ has no such job any more: it has ended, expired or been deleted")


@dataclass(frozen=True, slots=True)
class NewJob:
    """A job to be enqueued.

    Attributes:
        job_id: legal in RQ: letters, digits, ``_`` and ``-``.
        run_id: the run that it carries.
        payload: the argument of the worker's function.
        options: for ``Queue.enqueue``; those of the configuration are added.
    """

    job_id: str
    run_id: str
    payload: Mapping[str, Any]
    options: Mapping[str, Any]

    @property
    def is_keyed(self) -> bool:
        """Whether another run may have the same job id."""
        return self.job_id != self.run_id


class Jobs:
    """The jobs of one queue.

    Args:
        settings: which queue, and how jobs are enqueued.

    Raises:
        ConfigurationError: the import path leads to no queue, or the serializer to none.
    """

    def __init__(self, settings: Settings) -> None:
        self._terminate = settings.terminate
        self._options = dict(settings.options)
        self._options.setdefault("result_ttl", 0)
        self._options.setdefault("failure_ttl", _FAILURE_TTL)
        if isinstance(self._options.get("retry"), int):
            self._options["retry"] = Retry(max=self._options["retry"])
        # RQ checks for duplicates only where neither of these is asked for.
        self._unique = not {"rate_limit", "depends_on"} & self._options.keys()
        self._in_bulk = not {"rate_limit", "enqueue_at", "enqueue_in"} & self._options.keys()
        self._owns_connection = settings.queue is None
        self._queue: Queue = _own_queue(settings) if settings.queue is None else _given_queue(settings.queue)
        self._redis: Any = self._queue.connection
        self._suspects: set[str] = set()

    def connect(self) -> None:
        """Make sure that Redis answers.

        Raises:
            ConnectionError: it does not; names its address without credentials.
        """
        with self._reachable():
            self._redis.ping()
            self._queue.get_redis_server_version()

    def enqueue(self, jobs: Sequence[NewJob]) -> list[DeliveryError | None]:
        """Enqueue jobs, in one go those whose id no other run can have.

        Returns:
            None for each job that is enqueued, or why RQ does not take it.

        Raises:
            ConnectionError: Redis cannot be reached. None, some or all of the jobs have arrived.
            DeliveryError: Redis refuses them.
        """
        bulk = [job for job in jobs if not job.is_keyed] if self._in_bulk and len(jobs) > 1 else []
        together = {job.job_id for job in bulk}
        patience = time.monotonic() + _SUCCESSION_SECONDS
        with self._reachable():
            if bulk:
                self._queue.enqueue_many([self._data(job) for job in bulk])
            return [None if job.job_id in together else self._enqueue_one(job, patience) for job in jobs]

    def states(self, job_ids: Sequence[str]) -> dict[str, JobState]:
        """Return how jobs are doing; those that have failed are removed from RQ.

        Raises:
            ConnectionError: Redis cannot be reached.
        """
        with self._reachable():
            rows = self._rows(job_ids)
            states = {job_id: _state(status) for job_id, (status, _) in rows.items()}
            started = {job_id: worker for job_id, (status, worker) in rows.items() if status == "started"}
            for job_id, worker in self._deserted(started).items():
                states[job_id] = JobState("gone", reason=f"RQ worker {worker!r} does not execute the job any more")
            failed = [job_id for job_id, state in states.items() if state.phase in ("failed", "cancelled")]
            for job in self._fetched(failed):
                states[job.id] = JobState(states[job.id].phase, reason=_reason(job))
                job.delete()
            return states

    def stop(self, job_ids: Sequence[str]) -> set[str]:
        """Remove jobs that have not begun or are over, and tell workers to end those that run.

        Returns:
            The ids of the jobs that their workers have been told to end; see `remove_ended`.

        Raises:
            ConnectionError: Redis cannot be reached.
        """
        told = set()
        with self._reachable():
            jobs = {job.id: job for job in self._fetched(job_ids)}
            for job_id in set(job_ids) - jobs.keys():
                # A job that expired leaves its id in the queue.
                self._queue.remove(job_id)
            names = {job.worker_name for job in jobs.values() if job.worker_name}
            busy = busy_workers(self._redis, names)
            for job in jobs.values():
                if not (job.get_status(refresh=False) == "started" and job.worker_name in busy):
                    job.delete()
                elif self._terminate and self._told(job.id):
                    told.add(job.id)
        return told

    def remove_ended(self, job_ids: Iterable[str], *, all_of_them: bool = False) -> set[str]:
        """Remove those of the jobs that are over, and return those that are not.

        Args:
            job_ids: jobs that have been told to end.
            all_of_them: whether to remove the others too.

        Raises:
            ConnectionError: Redis cannot be reached.
        """
        with self._reachable():
            states = {job_id: _state(status) for job_id, (status, _) in self._rows(list(job_ids)).items()}
            for job in self._fetched([job_id for job_id, state in states.items() if state.over or all_of_them]):
                job.delete()
        return {job_id for job_id, state in states.items() if not state.over}

    def close(self) -> None:
        """Close the connections, unless they are the project's own."""
        if self._owns_connection:
            self._redis.close()
            self._redis.connection_pool.disconnect()

    @property
    def address(self) -> str:
        """Where Redis is, without user name and password."""
        settings = self._redis.connection_pool.connection_kwargs
        if settings.get("path"):
            return str(settings["path"])
        return f"{settings.get('host', 'localhost')}:{settings.get('port', 6379)}"

    def _arguments(self, job: NewJob) -> dict[str, Any]:
        options = {**job.options, **self._options}
        if job.is_keyed:
            options["meta"] = {**options.get("meta", {}), "wove_run_id": job.run_id}
        return options

    def _data(self, job: NewJob) -> Any:
        options = self._arguments(job)
        timeout = options.pop("job_timeout")
        return Queue.prepare_data(FUNCTION, args=(job.payload,), timeout=timeout, job_id=job.job_id, **options)

    def _enqueue_one(self, job: NewJob, patience: float) -> DeliveryError | None:
        while True:
            try:
                self._enqueue_unique(job)
                return None
            except DuplicateJobError:
                if self._is_same(job):
                    return None
            if time.monotonic() >= patience:
                return DeliveryError(
                    f"RQ has a job {job.job_id!r} already, and its result goes to another weave: "
                    "a task with the same delivery_idempotency_key is queued or running."
                )
            time.sleep(_SUCCESSION_PAUSE)

    def _enqueue_unique(self, job: NewJob) -> None:
        options = self._arguments(job)
        at, delay = options.pop("enqueue_at", None), options.pop("enqueue_in", None)
        arguments = {"args": (job.payload,), "job_id": job.job_id, "unique": self._unique, **options}
        if at is not None:
            self._queue.enqueue_at(at, FUNCTION, **arguments)
        elif delay is not None:
            self._queue.enqueue_in(delay, FUNCTION, **arguments)
        else:
            self._queue.enqueue(FUNCTION, **arguments)

    def _is_same(self, job: NewJob) -> bool:
        """Tell whether the job that is there carries the same run; one that is over makes way."""
        for there in self._fetched([job.job_id]):
            if not job.is_keyed or there.get_meta(refresh=False).get("wove_run_id") == job.run_id:
                return True
            if _state(there.get_status(refresh=False)).over:
                there.delete()
        return False

    def _rows(self, job_ids: Sequence[str]) -> dict[str, tuple[str, str]]:
        """Return status and worker's name of jobs; both are empty for one that is not there."""
        with self._redis.pipeline(transaction=False) as pipeline:
            for job_id in job_ids:
                pipeline.hmget(self._queue.job_class.key_for(job_id), "status", "worker_name")
            rows = pipeline.execute() if job_ids else []
        return {job_id: (_as_text(row[0]), _as_text(row[1])) for job_id, row in zip(job_ids, rows, strict=True)}

    def _deserted(self, started: Mapping[str, str]) -> dict[str, str]:
        """Return jobs that neither their worker nor a process of their own executes any more, seen twice.

        RQ itself notices that a worker has died after a minute and a half, and never that a job's process has ended
        with the exit code 0 in the middle of the job.
        """
        busy = busy_workers(self._redis, {name for name in started.values() if name})
        orphans = {job_id: worker for job_id, worker in started.items() if worker and worker not in busy}
        if orphans:
            # A worker that was killed alone leaves a process which finishes its job.
            for job_id in running_jobs(self._redis):
                orphans.pop(job_id, None)
        confirmed = {job_id: worker for job_id, worker in orphans.items() if job_id in self._suspects}
        self._suspects = self._suspects.difference(started) | orphans.keys()
        return confirmed

    def _fetched(self, job_ids: Sequence[str]) -> list[Job]:
        if not job_ids:
            return []
        found = self._queue.job_class.fetch_many(job_ids, connection=self._redis, serializer=self._queue.serializer)
        return [job for job in found if job is not None]

    def _told(self, job_id: str) -> bool:
        try:
            send_stop_job_command(self._redis, job_id, serializer=self._queue.serializer)
        except (InvalidJobOperation, NoSuchJobError):
            return False  # It has ended in this moment.
        return True

    @contextmanager
    def _reachable(self) -> Any:
        try:
            yield
        except (RedisConnectionError, RedisTimeoutError) as error:
            raise ConnectionError(
                f"Redis at {self.address} cannot be reached: {str(error).rstrip('.')}. "
                "Is it running, and is redis_url right?"
            ) from error
        except RedisError as error:
            raise DeliveryError(f"Redis at {self.address} refuses it: {error}") from error


def _own_queue(settings: Settings) -> Queue:
    connection = Redis.from_url(
        settings.redis_url or "",
        socket_connect_timeout=_CONNECT_SECONDS,
        socket_timeout=_ANSWER_SECONDS,
        retry=Retries(ConstantBackoff(0.05), 1),
    )
    try:
        return Queue(settings.queue_name, connection=connection, serializer=settings.serializer)
    except (ImportError, AttributeError, ValueError, NotImplementedError) as error:
        raise ConfigurationError(
            f"serializer: RQ knows no {settings.serializer!r} ({error}). Give 'json', 'pickle' or an import path."
        ) from error


def _given_queue(given: Any) -> Queue:
    if not isinstance(given, str):
        return given  # type: ignore[no-any-return]
    module, _, name = given.partition(":")
    try:
        found = getattr(importlib.import_module(module), name)
    except Exception as error:  # An import runs the project's own code.
        raise ConfigurationError(
            f"queue: {given!r} leads to no RQ queue ({type(error).__name__}: {error}). "
            "Give an import path such as 'myproject.jobs:queue'."
        ) from error
    if not isinstance(found, Queue):
        raise ConfigurationError(f"queue: {given!r} leads to a {type(found).__name__}, which is no RQ queue.")
    return found


def _state(status: Any) -> JobState:
    phase = _PHASES.get(str(getattr(status, "value", status) or ""))
    return _GONE if phase is None else JobState(phase)


def _reason(job: Job) -> str | None:
    """Return the last line of what RQ noted when the job failed."""
    result = job.latest_result()
    lines = (result.exc_string if result is not None and result.exc_string else "").strip().splitlines()
    return lines[-1].strip() if lines else None


def _as_text(value: bytes | str | None) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else value or ""
