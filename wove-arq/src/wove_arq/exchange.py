"""One conversation with Redis for all jobs of a worker: what they have to say at one moment travels together.

Each trip costs a worker as much as a short task does.
"""

import asyncio
import hashlib
import logging
from collections.abc import Sequence
from typing import Any, NamedTuple

from arq.constants import in_progress_key_prefix, job_key_prefix, retry_key_prefix
from redis.exceptions import NoScriptError, RedisError, ResponseError

from wove_arq.outcomes import CARRIED_TRIES, KEPT_SECONDS

# Redis is away, or does not answer soon enough to be waited for.
_ANSWER_SECONDS = 2.0
# How long a job counts as running after its worker's last sign of life.
ALIVE_SECONDS = 6.0
# What is said at a time: a script that takes long would hold up everybody else at this Redis.
_AT_ONCE, _MOST_BYTES = 200, 1 << 20
# ARQ keeps its count of tries for so long.
_TRIES_SECONDS = 88400

# First the ids of jobs that are executed: whether each is still there. Then, four for each, the outcomes: whether each
# is in its stream. From then on its job has nothing to say any more if it is delivered again; ARQ deletes its count of
# tries with the job.
_SAY = f"""
local answers = {{}}
local first = ARGV[1] + 2
for i = 2, first - 1 do
  redis.call('pexpire', '{in_progress_key_prefix}' .. ARGV[i], {int(ALIVE_SECONDS * 1000)})
  table.insert(answers, redis.call('exists', '{job_key_prefix}' .. ARGV[i]))
end
for i = first, #ARGV, 4 do
  local added = redis.pcall('xadd', ARGV[i], '*', ARGV[i + 2], ARGV[i + 3])
  if type(added) == 'table' and added.err then
    table.insert(answers, 0)
  else
    redis.call('pexpire', ARGV[i], {KEPT_SECONDS * 1000})
    redis.call('set', '{retry_key_prefix}' .. ARGV[i + 1], {CARRIED_TRIES}, 'EX', {_TRIES_SECONDS}, 'XX')
    table.insert(answers, 1)
  end
end
return answers
"""
_SHA = hashlib.sha1(_SAY.encode(), usedforsecurity=False).hexdigest()

logger = logging.getLogger("wove")


class Outcome(NamedTuple):
    """What is to be left in a stream.

    Attributes:
        stream: its key.
        job_id: ARQ's id of the job.
        run_id: Wove's id of the run.
        event: the final event, signed.
    """

    stream: str
    job_id: str
    run_id: str
    event: bytes


class _Said(NamedTuple):
    what: str | Outcome
    heard: "asyncio.Future[bool]"


class Exchange:
    """What jobs say: at once, or together with others while Redis is being told of earlier ones.

    Nothing waits for more to come along: ARQ leaves its queue alone until its next look at it as soon as `max_jobs` are
    executed at a time, so that it counts how long each of them takes. One for each worker; belongs to its loop.
    """

    def __init__(self) -> None:
        # Not bounded itself: two entries at most per job that the worker executes.
        self._unsaid: list[_Said] = []
        self._saying: asyncio.Task[None] | None = None

    async def say(self, what: str | Outcome, redis: Any) -> bool:
        """Tell Redis something. Takes a few seconds at most.

        Args:
            what: the id of a job that is executed, or the outcome of one.
            redis: the worker's pool.

        Returns:
            Whether the job is still there; or whether the outcome is in its stream. False also where Redis does not
            answer.
        """
        loop = asyncio.get_running_loop()
        said = _Said(what, loop.create_future())
        self._unsaid.append(said)
        if self._saying is None or self._saying.done():
            self._saying = loop.create_task(self._say_all(redis))
        return await said.heard

    async def _say_all(self, redis: Any) -> None:
        together: list[_Said] = []
        try:
            while self._unsaid:
                together = next_together(self._unsaid)
                self._unsaid = self._unsaid[len(together) :]
                _settle(together, await _heard(together, redis))
        finally:
            # Nobody may wait here for ever, whatever has happened.
            left, self._unsaid = [*together, *self._unsaid], []
            _settle(left, {})


def next_together(unsaid: Sequence[_Said]) -> list[_Said]:
    """Return what goes first, at least one."""
    size = 0
    together: list[_Said] = []
    for said in unsaid[:_AT_ONCE]:
        size += len(said.what.event) if isinstance(said.what, Outcome) else 0
        if together and size > _MOST_BYTES:
            break
        together.append(said)
    return together


def _settle(together: Sequence[_Said], heard: dict[str | Outcome, bool]) -> None:
    for said in together:
        if not said.heard.done():
            said.heard.set_result(heard.get(said.what, False))


async def _heard(together: Sequence[_Said], redis: Any) -> dict[str | Outcome, bool]:
    begun = [said.what for said in together if isinstance(said.what, str)]
    outcomes = [said.what for said in together if isinstance(said.what, Outcome)]
    arguments = [len(begun), *begun, *(part for outcome in outcomes for part in outcome)]
    try:
        async with asyncio.timeout(_ANSWER_SECONDS):
            answers = await _answers(arguments, redis)
    except ResponseError as error:
        logger.debug("Redis takes no scripts of this worker: %s", error)
        return await _heard_without_scripts(begun, redis)
    except (RedisError, OSError) as error:
        logger.debug("Redis does not answer this worker: %s", error)
        return {}
    told: list[str | Outcome] = [*begun, *outcomes]
    return {what: answer == 1 for what, answer in zip(told, answers, strict=True)}


async def _answers(arguments: Sequence[Any], redis: Any) -> Sequence[int]:
    try:
        answers: Sequence[int] = await redis.evalsha(_SHA, 0, *arguments)
    except NoScriptError:
        answers = await redis.eval(_SAY, 0, *arguments)
    return answers


async def _heard_without_scripts(begun: Sequence[str], redis: Any) -> dict[str | Outcome, bool]:
    try:
        async with asyncio.timeout(_ANSWER_SECONDS), redis.pipeline(transaction=False) as pipeline:
            for job_id in begun:
                pipeline.pexpire(f"{in_progress_key_prefix}{job_id}", int(ALIVE_SECONDS * 1000))
                pipeline.exists(f"{job_key_prefix}{job_id}")
            answers = await pipeline.execute()
    except (RedisError, OSError) as error:
        logger.debug("Redis does not answer this worker: %s", error)
        return {}
    return {job_id: is_there == 1 for job_id, is_there in zip(begun, answers[1::2], strict=True)}
