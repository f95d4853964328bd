"""Everything that the adapter asks of Redis, on one event loop. Each question about many jobs is one script."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from itertools import islice
from typing import Any

from arq.constants import abort_jobs_ss, in_progress_key_prefix, job_key_prefix, result_key_prefix, retry_key_prefix
from arq.jobs import SerializationError, serialize_job
from arq.utils import timestamp_ms, to_unix_ms
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError
from redis.exceptions import TimeoutError as RedisTimeoutError

from wove.errors import DeliveryError
from wove.integrations.base import JobState
from wove_arq.connecting import address, address_in, connect
from wove_arq.settings import Settings

_ANSWER_SECONDS = 5.0
# A script that goes through very many jobs would hold up everybody else at this Redis.
_AT_ONCE = 200
# How long a job of the same key, which is just ending, may hold up the next one.
_SUCCESSION_SECONDS = 2.0
_SUCCESSION_PAUSE = 0.02

_KEYS = f"""
local function keys(id)
  return '{job_key_prefix}' .. id, '{in_progress_key_prefix}' .. id,
    '{retry_key_prefix}' .. id, '{result_key_prefix}' .. id
end
"""
# The same as ArqRedis.enqueue_job for many jobs. A job that is there already is the same one if it carries this run.
_ENQUEUE = f"""{_KEYS}
local answers = {{}}
for i = 1, #ARGV, 5 do
  local id, run, data, expires, score = ARGV[i], ARGV[i + 1], ARGV[i + 2], ARGV[i + 3], ARGV[i + 4]
  local job, _, _, result = keys(id)
  local there = redis.call('get', job)
  if there then
    table.insert(answers, string.find(there, run, 1, true) and 1 or 0)
  elseif redis.call('exists', result) == 1 then
    table.insert(answers, 0)
  else
    redis.call('psetex', job, expires, data)
    redis.call('zadd', KEYS[1], score, id)
    table.insert(answers, 1)
  end
end
return answers
"""
_STATES = f"""{_KEYS}
local answers = {{}}
for _, id in ipairs(ARGV) do
  local job, running, tried, result = keys(id)
  local state = 'queued'
  if redis.call('exists', running) == 1 then
    state = 'running'
  elseif redis.call('exists', result) == 1 then
    state = redis.call('get', result)
    redis.call('del', result)
  elseif not redis.call('zscore', KEYS[1], id) then
    state = 'gone'
  elseif redis.call('exists', job) == 0 then
    state = 'expired'
  elseif redis.call('exists', tried) == 1 then
    state = 'left'
  end
  table.insert(answers, state)
end
return answers
"""
# Whether nobody executes the job any more: it is removed then. Otherwise its worker is told to abort it, and what it
# would take to execute it again is removed.
_STOP = f"""{_KEYS}
local answers = {{}}
for i = 2, #ARGV do
  local id = ARGV[i]
  local job, running, tried, result = keys(id)
  if redis.call('exists', running) == 1 then
    redis.call('zadd', KEYS[2], 'NX', ARGV[1], id)
    redis.call('del', job)
    table.insert(answers, 0)
  else
    redis.call('zrem', KEYS[1], id)
    redis.call('zrem', KEYS[2], id)
    redis.call('del', job, tried, result)
    table.insert(answers, 1)
  end
end
return answers
"""
_GONE = JobState("gone", reason="ARQ has no such job any more: it has ended, failed or been deleted")
_EXPIRED = JobState("gone", reason="the job has expired in ARQ's queue")
_LEFT = JobState("gone", reason="the ARQ worker that had begun it has died or was stopped")


@dataclass(frozen=True, slots=True)
class NewJob:
    """A job to be enqueued.

    Attributes:
        job_id: the run's id, or its idempotency key.
        run_id: the run that it carries.
        payload: the argument of the worker's function.
        expires: seconds after which it is not started any more; None is ARQ's own default.
    """

    job_id: str
    run_id: str
    payload: Mapping[str, Any]
    expires: float | None = None


class Jobs:
    """The jobs of one queue. Belongs to the loop on which `connect` was called.

    Args:
        settings: which queue, and how jobs are enqueued.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._options = dict(settings.options)
        self._redis: Any = None
        self._address: Callable[[], str] = lambda: address_in(settings)
        self._suspects: set[str] = set()

    async def connect(self) -> None:
        """Make a connection.

        Raises:
            ConfigurationError: the settings do not suffice to make one.
            ConnectionError: Redis does not answer; names its address without credentials.
        """
        async with self._reachable():
            self._redis = await connect(self._settings)
            self._address = lambda: address(self._redis)
            await self._redis.ping()
        self._queue = self._redis.default_queue_name
        self._enqueue = self._redis.register_script(_ENQUEUE)
        self._ask = self._redis.register_script(_STATES)
        self._stop = self._redis.register_script(_STOP)

    async def close(self) -> None:
        """Close the connections."""
        if self._redis is not None:
            await self._redis.aclose(close_connection_pool=True)

    async def enqueue(self, jobs: Sequence[NewJob]) -> list[Exception | None]:
        """Enqueue jobs.

        Returns:
            None for each job that is enqueued, or why ARQ does not take it.

        Raises:
            ConnectionError: Redis cannot be reached. None, some or all of the jobs have arrived.
            DeliveryError: Redis refuses them.
        """
        refusals: dict[str, Exception] = {}
        # A map with one idempotency key is one job.
        waiting = {job.run_id: job for job in jobs}
        patience = time.monotonic() + _SUCCESSION_SECONDS
        while waiting:
            waiting = await self._enqueue_once(waiting, refusals)
            if waiting and time.monotonic() >= patience:
                refusals |= {run_id: _taken(job.job_id) for run_id, job in waiting.items()}
                break
            if waiting:
                await asyncio.sleep(_SUCCESSION_PAUSE)
        return [refusals.get(job.run_id) for job in jobs]

    async def states(self, job_ids: Sequence[str]) -> dict[str, JobState]:
        """Return how jobs are doing. What ARQ keeps of a failed one is removed.

        Raises:
            ConnectionError: Redis cannot be reached.
        """
        said = await self._each(self._ask, job_ids, keys=[self._queue])
        left = {job_id for job_id, state in said.items() if state == b"left"}
        # A job that its worker gave back is taken by the next one within moments.
        confirmed = left & self._suspects
        self._suspects = self._suspects.difference(said) | left
        return {job_id: self._state(state, confirmed=job_id in confirmed) for job_id, state in said.items()}

    async def stop(self, job_ids: Iterable[str]) -> set[str]:
        """Remove jobs that nobody executes, and ask the workers to abort those that run. May be repeated.

        Returns:
            The ids of the jobs that are still executed.

        Raises:
            ConnectionError: Redis cannot be reached.
        """
        keys = [self._queue, abort_jobs_ss]
        answers = await self._each(self._stop, list(job_ids), keys=keys, first=[timestamp_ms()])
        return {job_id for job_id, over in answers.items() if not over}

    async def forget(self, job_ids: Iterable[str]) -> None:
        """Take back what workers have been asked by `stop`: ARQ does so only in a worker that executes the job.

        Raises:
            ConnectionError: Redis cannot be reached.
        """
        async with self._reachable():
            await self._redis.zrem(abort_jobs_ss, *job_ids)

    async def _enqueue_once(self, jobs: Mapping[str, NewJob], refusals: dict[str, Exception]) -> dict[str, NewJob]:
        """Return the jobs that have to wait for another one of the same key."""
        rows: dict[str, list[Any]] = {}
        for run_id, job in jobs.items():
            try:
                rows[run_id] = self._row(job)
            except SerializationError as error:
                cause = error.__cause__ or error
                refusals[run_id] = DeliveryError(f"job_serializer cannot encode the job: {cause!r}")
        answers: list[int] = []
        pending = iter(rows.values())
        async with self._reachable():
            while batch := list(islice(pending, _AT_ONCE)):
                answers += await self._enqueue(keys=[self._queue], args=[each for row in batch for each in row])
        return {run_id: jobs[run_id] for run_id, taken in zip(rows, answers, strict=True) if not taken}

    def _row(self, job: NewJob) -> list[Any]:
        now = timestamp_ms()
        options = self._options
        if options.get("_defer_until") is not None:
            score = to_unix_ms(options["_defer_until"])
        else:
            score = now + _milliseconds(options.get("_defer_by", 0))
        limit = options.get("_expires", job.expires)
        expires = score - now + self._redis.expires_extra_ms if limit is None else _milliseconds(limit)
        data = serialize_job(
            self._settings.function_name,
            (job.payload,),
            {},
            options.get("_job_try"),
            now,
            serializer=self._redis.job_serializer,
        )
        # Redis refuses to keep anything for no time.
        return [job.job_id, job.run_id, data, max(expires, 1), score]

    async def _each(
        self, script: Any, job_ids: Sequence[str], *, keys: Sequence[str], first: Sequence[Any] = ()
    ) -> dict[str, Any]:
        answers: dict[str, Any] = {}
        pending = iter(job_ids)
        async with self._reachable():
            while batch := list(islice(pending, _AT_ONCE)):
                answers |= zip(batch, await script(keys=keys, args=[*first, *batch]), strict=True)
        return answers

    def _state(self, said: bytes, *, confirmed: bool) -> JobState:
        match said:
            case b"running":
                return JobState("running")
            case b"queued":
                return JobState("queued")
            case b"left":
                return _LEFT if confirmed else JobState("queued")
            case b"gone":
                return _GONE
            case b"expired":
                return _EXPIRED
        return self._result(said)

    def _result(self, kept: bytes) -> JobState:
        """Return what a kept result says, without unpickling what anybody may have written to Redis."""
        name = self._settings.function_name
        if f"function {name!r} not found".encode() in kept:
            return JobState(
                "failed", reason=f"the ARQ worker has no function {name!r}; give it {name!r} or another queue"
            )
        for reason in ("job expired", "retries exceeded"):
            if reason.encode() in kept:
                return JobState("failed", reason=f"ARQ says: {reason}")
        return JobState("finished")

    @asynccontextmanager
    async def _reachable(self) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(_ANSWER_SECONDS):
                yield
        except (RedisConnectionError, RedisTimeoutError, OSError) as error:
            why = str(error).rstrip(".") or "no answer in time"
            raise ConnectionError(
                f"Redis at {self._address()} cannot be reached: {why}. Is it running, and is redis_settings right?"
            ) from error
        except RedisError as error:
            raise DeliveryError(f"Redis at {self._address()} refuses it: {error}") from error


def _milliseconds(given: float | timedelta) -> int:
    return round(1000 * (given.total_seconds() if isinstance(given, timedelta) else given))


def _taken(job_id: str) -> DeliveryError:
    return DeliveryError(
        f"ARQ has a job {job_id!r} already, and its result goes to another weave: "
        "a task with the same delivery_idempotency_key is queued or running."
    )
