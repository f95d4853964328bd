"""Jobs in a real Redis, some of them with a worker in this process."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from arq.connections import ArqRedis
from arq.constants import abort_jobs_ss, in_progress_key_prefix, retry_key_prefix
from arq.worker import Worker
from arq_backend import RedisServer

from wove.errors import DeliveryError
from wove.testing.servers import free_port
from wove_arq import ARQAdapter
from wove_arq.adapter import Submitted
from wove_arq.connecting import to_redis_settings
from wove_arq.jobs import Jobs, NewJob
from wove_arq.presence import Presence
from wove_arq.settings import read_settings

# ARQ's worker calls a method that its redis client has renamed.
pytestmark = pytest.mark.filterwarnings("ignore:Call to deprecated close:DeprecationWarning")


@pytest.fixture
async def jobs(redis: ArqRedis, redis_server: RedisServer) -> AsyncIterator[Jobs]:
    jobs = Jobs(read_settings({"redis_settings": redis_server.url()}))
    await jobs.connect()
    yield jobs
    await jobs.close()


def _job(name: str, *, key: str | None = None) -> NewJob:
    return NewJob(key or name, name, {"run_id": name, "task_name": "task"})


async def _poll_until(ask: Callable[[], Awaitable[int]], limit: int) -> None:
    """Return when an answer is not larger than the limit."""
    async with asyncio.timeout(5.0):
        while await ask() > limit:  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def _work(redis_server: RedisServer, **settings: Any) -> None:
    """Execute what is queued in an ARQ worker with a function of another name."""

    async def other(ctx: dict[str, Any]) -> None: ...

    worker = Worker(
        [other],
        redis_settings=to_redis_settings(redis_server.url()),
        burst=True,
        poll_delay=0.01,
        handle_signals=False,
        **settings,
    )
    await worker.async_run()
    await worker.close()


async def test_a_job_is_queued_until_it_is_stopped(jobs: Jobs, redis_server: RedisServer) -> None:
    assert await jobs.enqueue([_job("one"), _job("two")]) == [None, None]
    assert {each.phase for each in (await jobs.states(["one", "two"])).values()} == {"queued"}
    assert await jobs.stop(["one", "two"]) == set()
    assert redis_server.contents() == set()


async def test_the_same_payload_is_queued_once(jobs: Jobs, redis: ArqRedis) -> None:
    assert await jobs.enqueue([_job("one")]) == [None]
    assert await jobs.enqueue([_job("one")]) == [None]
    assert len(await redis.queued_jobs()) == 1


async def test_a_key_of_another_process_is_refused(jobs: Jobs) -> None:
    await jobs.enqueue([_job("first", key="key")])
    (refusal,) = await jobs.enqueue([_job("second", key="key")])
    assert isinstance(refusal, DeliveryError)
    assert "'key' already" in str(refusal)


async def test_a_key_that_is_just_ending_is_waited_for(jobs: Jobs) -> None:
    await jobs.enqueue([_job("first", key="key")])
    second = asyncio.create_task(jobs.enqueue([_job("second", key="key")]))
    await asyncio.sleep(0)
    await jobs.stop(["key"])
    assert await second == [None]


async def test_a_worker_without_the_function_is_named_and_nothing_is_left(
    jobs: Jobs, redis_server: RedisServer
) -> None:
    await jobs.enqueue([_job("one")])
    await _work(redis_server)
    state = (await jobs.states(["one"]))["one"]
    assert (state.phase, state.reason and "no function 'wove.run'" in state.reason) == ("failed", True)
    assert redis_server.contents() == set()


async def test_a_job_without_any_trace_is_gone(jobs: Jobs, redis_server: RedisServer) -> None:
    await jobs.enqueue([_job("one")])
    await _work(redis_server, keep_result=0)
    assert (await jobs.states(["one"]))["one"].phase == "gone"


async def test_a_job_that_expired_in_the_queue_is_gone(jobs: Jobs, redis: ArqRedis) -> None:
    await jobs.enqueue([NewJob("one", "one", {}, expires=0.001)])
    await _poll_until(lambda: redis.exists("arq:job:one"), 0)
    state = (await jobs.states(["one"]))["one"]
    assert (state.phase, state.reason) == ("gone", "the job has expired in ARQ's queue")


async def test_a_job_whose_worker_is_not_there_any_more_is_gone_when_nobody_takes_it(
    jobs: Jobs, redis: ArqRedis
) -> None:
    await jobs.enqueue([_job("one")])
    await redis.set(f"{retry_key_prefix}one", 1)
    assert (await jobs.states(["one"]))["one"].phase == "queued"
    assert (await jobs.states(["one"]))["one"].phase == "gone"
    await redis.set(f"{in_progress_key_prefix}one", 1)
    assert (await jobs.states(["one"]))["one"].phase == "running"


async def test_a_running_job_is_to_be_aborted_and_never_executed_again(jobs: Jobs, redis: ArqRedis) -> None:
    await jobs.enqueue([_job("one")])
    await redis.set(f"{in_progress_key_prefix}one", 1)
    assert await jobs.stop(["one"]) == {"one"}
    assert await redis.zrange(abort_jobs_ss, 0, -1) == [b"one"]
    assert not await redis.exists("arq:job:one")
    await redis.delete(f"{in_progress_key_prefix}one")
    assert await jobs.stop(["one"]) == set()
    assert not await redis.exists(abort_jobs_ss)


async def test_options_of_arq_are_passed_on(redis: ArqRedis, redis_server: RedisServer) -> None:
    options = {"_defer_by": 100, "_expires": 500}
    config = {"redis_settings": redis_server.url(), "queue_name": "late", "enqueue_options": options}
    jobs = Jobs(read_settings(config))
    await jobs.connect()
    await jobs.enqueue([_job("one")])
    (queued,) = await redis.queued_jobs(queue_name="late")
    assert queued.score is not None
    assert queued.score - queued.enqueue_time.timestamp() * 1000 == pytest.approx(100_000, abs=2)
    assert 400_000 < await redis.pttl("arq:job:one") <= 500_000
    await jobs.close()


async def test_what_json_cannot_express_is_refused(redis: ArqRedis, redis_server: RedisServer) -> None:
    jobs = Jobs(read_settings({"redis_settings": redis_server.url(), "job_serializer": "json"}))
    await jobs.connect()
    refusal, accepted = await jobs.enqueue([NewJob("one", "one", {"set": {1}}), _job("two")])
    assert isinstance(refusal, DeliveryError)
    assert accepted is None
    await jobs.close()


async def test_the_mark_of_a_running_job_is_short_lived_from_the_beginning(redis: ArqRedis) -> None:
    key = f"{in_progress_key_prefix}one"
    await redis.psetex(key, 600_000, b"1")
    async with Presence().of("one", redis):
        assert await redis.pttl(key) <= 6_000


async def test_an_unreachable_redis_is_named_without_the_password() -> None:
    port = free_port()
    url = f"redis://:secret@127.0.0.1:{port}/0"
    adapter = ARQAdapter(name="arq", config={"redis_settings": url}, callback_url="", run_config={})
    with pytest.raises(ConnectionError) as raised:
        await adapter.start()
    assert f"127.0.0.1:{port}" in str(raised.value)
    assert "secret" not in str(raised.value)
    await adapter.close()


async def test_a_job_that_no_worker_aborts_leaves_nothing_when_the_adapter_closes(
    redis: ArqRedis, redis_server: RedisServer
) -> None:
    config = {"redis_settings": redis_server.url()}
    adapter = ARQAdapter(name="arq", config=config, callback_url="", run_config={})
    await adapter.start()
    handle = await adapter.submit({"run_id": "one"}, {"run_id": "one"})
    assert isinstance(handle, Submitted)
    await redis.set(f"{in_progress_key_prefix}one", 1)
    await adapter.cancel("one", handle, {})
    assert await redis.exists(abort_jobs_ss)
    await adapter.close()
    assert not await redis.exists(abort_jobs_ss)


async def test_a_worker_learns_whether_a_job_that_it_has_taken_was_taken_back(jobs: Jobs, redis: ArqRedis) -> None:
    await jobs.enqueue([_job("wanted"), _job("unwanted")])
    for name in ("wanted", "unwanted"):
        await redis.set(f"{in_progress_key_prefix}{name}", b"1")
    await jobs.stop(["unwanted"])
    presence = Presence()
    async with presence.of("wanted", redis) as wanted, presence.of("unwanted", redis) as unwanted:
        assert (wanted, unwanted) == (True, False)
