"""What the adapter writes to a real Redis server and reads from it; no worker takes anything here."""

import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from rq import Queue
from rq.job import Job
from rq_backend import RedisServer

from wove.errors import ConfigurationError, DeliveryError
from wove.testing.servers import free_port
from wove_rq import RQAdapter
from wove_rq.presence import sign_in

Making = Callable[..., Any]


@asynccontextmanager
async def started(config: dict[str, Any]) -> AsyncIterator[RQAdapter]:
    adapter = RQAdapter(name="rq", config=config, callback_url="http://127.0.0.1:1/wove/events/x", run_config={})
    try:
        await adapter.start()
        yield adapter
    finally:
        await adapter.close()


def submission(run_id: str, **changes: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    delivery = changes.pop("delivery", {})
    payload = {"run_id": run_id, "task_name": "report", "callable_pickle": "c2VjcmV0", "deadline": None, **changes}
    return payload, {"run_id": run_id, "delivery": delivery}


@pytest.fixture
def queue(redis_server: RedisServer) -> Queue:
    """The queue's other end: an RQ of the same Redis, emptied."""
    from redis import Redis

    redis_server.clear()
    return Queue("jobs", connection=Redis.from_url(redis_server.url()))


@pytest.fixture
def config(redis_server: RedisServer) -> dict[str, Any]:
    return {"redis_url": redis_server.url(), "queue_name": "jobs"}


def job_of(queue: Queue, job_id: str) -> Job:
    job = queue.fetch_job(job_id)
    assert job is not None
    return job


async def test_a_job_carries_the_payload_to_the_worker_function(queue: Queue, config: dict[str, Any]) -> None:
    payload, frame = submission("report-1")
    async with started(config) as adapter:
        await adapter.submit(payload, frame)
    job = job_of(queue, "report-1")
    assert queue.job_ids == ["report-1"]
    assert (job.func_name, tuple(job.args), job.kwargs) == ("wove_rq.worker.execute", (payload,), {})


async def test_a_job_has_no_time_limit_of_rqs_and_leaves_no_result(queue: Queue, config: dict[str, Any]) -> None:
    async with started(config) as adapter:
        await adapter.submit(*submission("report-1"))
    job = job_of(queue, "report-1")
    assert (job.timeout, job.ttl, job.result_ttl, job.description) == (-1, None, 0, "wove: report")


async def test_the_deadline_limits_how_long_a_job_waits_and_runs(queue: Queue, config: dict[str, Any]) -> None:
    async with started(config) as adapter:
        await adapter.submit(*submission("report-1", deadline=time.time() + 100))
        detached = {"delivery_orphan_policy": "detach"}
        await adapter.submit(*submission("report-2", deadline=time.time() + 100, delivery=detached))
    limited, unlimited = job_of(queue, "report-1"), job_of(queue, "report-2")
    assert limited.timeout == limited.ttl
    assert 100 <= int(limited.timeout or 0) <= 106
    assert (unlimited.timeout, unlimited.ttl) == (-1, None)


async def test_options_of_the_configuration_come_first(queue: Queue, config: dict[str, Any]) -> None:
    config["enqueue_options"] = {"at_front": True, "job_timeout": 77, "description": "monthly", "retry": 2}
    async with started(config) as adapter:
        await adapter.submit(*submission("report-1"))
        await adapter.submit(*submission("report-2"))
    job = job_of(queue, "report-1")
    assert (job.timeout, job.description, job.retries_left) == (77, "monthly", 2)
    assert queue.job_ids == ["report-2", "report-1"]


async def test_a_delayed_job_is_scheduled(queue: Queue, config: dict[str, Any]) -> None:
    config["enqueue_options"] = {"enqueue_in": 60}
    async with started(config) as adapter:
        await adapter.submit_many([submission("report-1"), submission("report-2")])
        assert queue.job_ids == []
        assert sorted(queue.scheduled_job_registry.get_job_ids()) == ["report-1", "report-2"]


async def test_many_jobs_are_enqueued_at_once_and_in_order(queue: Queue, config: dict[str, Any]) -> None:
    names = [f"report-{number}" for number in range(50)]
    async with started(config) as adapter:
        handles = await adapter.submit_many([submission(name) for name in names])
        states = await adapter.poll(dict(zip(names, handles, strict=True)))
    assert queue.job_ids == names
    assert {state.phase for state in states.values()} == {"queued"}


@pytest.mark.parametrize("key", ["monthly-7", "account 7: März"])
async def test_an_idempotency_key_is_the_jobs_id(queue: Queue, config: dict[str, Any], key: str) -> None:
    delivery = {"delivery_idempotency_key": key}
    async with started(config) as adapter:
        first = await adapter.submit(*submission("report-1", delivery=delivery))
        again = await adapter.submit(*submission("report-1", delivery=delivery))
        assert queue.job_ids == [first.job_id] == [again.job_id]
        with pytest.raises(DeliveryError, match="delivery_idempotency_key"):
            await adapter.submit(*submission("report-2", delivery=delivery))
        # One that is over makes way.
        job_of(queue, first.job_id).cancel()
        await adapter.submit(*submission("report-3", delivery=delivery))
    assert job_of(queue, first.job_id).args[0]["run_id"] == "report-3"


async def test_a_refused_job_does_not_keep_others_back(queue: Queue, config: dict[str, Any]) -> None:
    delivery = {"delivery_idempotency_key": "monthly-7"}
    async with started(config) as adapter:
        await adapter.submit(*submission("report-1", delivery=delivery))
        taken, refused = await adapter.submit_many([submission("report-2"), submission("report-3", delivery=delivery)])
    assert isinstance(refused, DeliveryError)
    assert repr(taken) == "<RQ job report-2>"
    assert queue.job_ids == ["monthly-7", "report-2"]


async def test_a_cancelled_job_leaves_nothing(queue: Queue, config: dict[str, Any], redis_server: RedisServer) -> None:
    async with started(config) as adapter:
        handle = await adapter.submit(*submission("report-1"))
        await adapter.cancel("report-1", handle, {})
        await adapter.cancel("report-1", handle, {})
    assert redis_server.contents() == set()


async def test_a_job_that_expired_leaves_nothing_when_it_is_cancelled(
    queue: Queue, config: dict[str, Any], redis_server: RedisServer
) -> None:
    async with started(config) as adapter:
        handle = await adapter.submit(*submission("report-1"))
        queue.connection.delete(Job.key_for("report-1"))
        assert (await adapter.poll({"report-1": handle}))["report-1"].phase == "gone"
        await adapter.cancel("report-1", handle, {})
    assert redis_server.contents() == set()


async def test_the_projects_own_queue_is_used_and_left_open(queue: Queue) -> None:
    async with started({"queue": queue}) as adapter:
        await adapter.submit(*submission("report-1"))
    assert queue.job_ids == ["report-1"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"serializer": "jsno"}, "serializer: RQ knows no 'jsno'"),
        ({"redis_url": None, "queue_name": None, "queue": "nowhere:queue"}, "leads to no RQ queue"),
        ({"redis_url": None, "queue_name": None, "queue": "os:name"}, "which is no RQ queue"),
    ],
)
async def test_what_leads_nowhere_is_an_error_at_start(
    config: dict[str, Any], change: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigurationError, match=message):
        async with started({**config, **change}):
            pass


async def test_a_redis_that_is_not_there_is_named_without_credentials() -> None:
    port = free_port()
    before = time.monotonic()
    with pytest.raises(ConnectionError, match=rf"Redis at 127\.0\.0\.1:{port} cannot be reached") as raised:
        async with started({"redis_url": f"redis://me:secret@127.0.0.1:{port}/0"}):
            pass
    assert "secret" not in str(raised.value)
    assert time.monotonic() - before < 3.0


async def test_a_job_begins_for_the_first_time_once(queue: Queue, config: dict[str, Any]) -> None:
    async with started(config) as adapter:
        await adapter.submit(*submission("report-1"))
    job = job_of(queue, "report-1")
    assert sign_in(job)
    queue.enqueue_job(job)
    assert not sign_in(job_of(queue, "report-1"))


async def test_a_job_that_was_taken_back_does_not_begin_for_the_first_time(
    queue: Queue, config: dict[str, Any]
) -> None:
    async with started(config) as adapter:
        submitted = await adapter.submit(*submission("report-1"))
        job = job_of(queue, "report-1")
        await adapter.cancel("report-1", submitted, {})
    assert not sign_in(job)
