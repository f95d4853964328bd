"""Outcomes that Redis carries, from real workers to real weaves."""

import asyncio
import itertools
import pickle
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from arq.connections import create_pool
from arq.constants import job_key_prefix, retry_key_prefix
from arq.worker import Worker
from arq_backend import ARQDeployment, Deploy, RedisServer
from redis import Redis

import wove
from tests.support.payloads import payload_for
from tests.support.worker_tasks import Counter
from wove.errors import DeliveryOrphanedError
from wove.testing.servers import free_port
from wove.testing.stage import poll_until
from wove_arq import ARQAdapter
from wove_arq.arriving import Arrivals
from wove_arq.connecting import to_redis_settings
from wove_arq.outcomes import CARRIED_TRIES, FIELD, stream_of
from wove_arq.worker import run_payload

SECONDS = 30.0

_numbers = itertools.count()


def use(deployment: ARQDeployment, **config: Any) -> None:
    """Make the deployment the default environment, under a name that no other test has given a configuration."""
    name = f"there-{next(_numbers)}"
    environment = deployment.environment()
    environment["executor_config"] |= config
    environment["delivery_timeout"] = SECONDS
    wove.config(default_environment=name, environments={name: environment})


def result_of(task: Callable[[], object]) -> Any:
    with wove.weave() as w:
        w.do(task)
    return w.result["task"]


def calling(function: Callable[..., object], *args: object) -> Callable[[], object]:
    """Return a task that travels by value: workers do not have this module."""

    def task() -> object:
        return function(*args)

    return task


@contextmanager
def begun(task: Callable[[], object], results: list[Any]) -> Iterator[None]:
    """Run a weave with one task beside what follows, and leave what becomes of it in `results`."""

    def run() -> None:
        try:
            results.append(result_of(task))
        except Exception as error:
            results.append(error)

    weave = threading.Thread(target=run)
    weave.start()
    try:
        yield
    finally:
        weave.join(SECONDS)


def queued_payload(redis: Any) -> tuple[str, dict[str, Any]]:
    """Return the id of the only job, and its payload, as soon as it is there."""
    deadline = time.monotonic() + SECONDS
    while time.monotonic() < deadline:
        for key in redis.scan_iter(f"{job_key_prefix}*"):
            (payload,) = pickle.loads(redis.get(key) or b"")["a"]
            return key.decode().removeprefix(job_key_prefix), payload
        time.sleep(0.01)
    raise AssertionError("no job is in Redis")


def test_small_outcomes_need_no_way_from_worker_to_weave_but_redis(deploy: Deploy) -> None:
    deployment = deploy()
    deployment.ensure_worker()
    # Where nobody listens.
    use(deployment, callback_url=f"http://127.0.0.1:{free_port()}")
    assert result_of(calling(int, "42")) == 42
    with pytest.raises(ZeroDivisionError):
        result_of(calling(divmod, 1, 0))
    with wove.weave() as w:

        @w.do(range(50))
        async def doubled(item: int) -> int:
            return 2 * item

    assert w.result.doubled == [2 * item for item in range(50)]


def test_large_outcomes_are_posted(deploy: Deploy) -> None:
    deployment = deploy()
    deployment.ensure_worker()
    use(deployment)
    assert result_of(calling(bytes, 200_000)) == bytes(200_000)


def test_an_outcome_that_the_receiver_would_find_too_large_is_posted_and_explained(deploy: Deploy) -> None:
    deployment = deploy()
    deployment.ensure_worker()
    use(deployment, callback_max_bytes=20_000)
    with pytest.raises(Exception, match="callback_max_bytes"):
        result_of(calling(bytes, 40_000))


def test_outcomes_are_posted_where_payloads_are_signed(deploy: Deploy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WOVE_TEST_SECRET", "a secret of more than 24 bytes")
    deployment = deploy()
    deployment.ensure_worker()
    use(deployment, callback_security="env:WOVE_TEST_SECRET")
    results: list[Any] = []
    with begun(calling(int, "42"), results):
        pass
    assert results == [42]


def test_what_anybody_may_have_left_in_the_stream_changes_nothing(deploy: Deploy, redis_server: RedisServer) -> None:
    deployment = deploy()
    use(deployment)
    results: list[Any] = []
    with Redis(port=redis_server.port) as redis, begun(calling(int, "42"), results):
        run_id, payload = queued_payload(redis)
        stream = stream_of(payload[FIELD][0])
        for forged in (b"", b"garbage", b"{}\n{}", b'{"webhook-id": "a.b.1"}\n{"type": "task_result"}'):
            redis.xadd(stream, {run_id: forged, "no such run": forged})
        redis.xadd(stream, {b"\xff\xfe": pickle.dumps(calling)})
        deployment.ensure_worker()
    assert results == [42]
    poll_until(lambda: redis_server.contents() == set(), seconds=SECONDS, what="nothing is left in Redis")


def test_an_outcome_that_arrives_twice_counts_once(deploy: Deploy, monkeypatch: pytest.MonkeyPatch) -> None:
    arriving = Arrivals.outcomes

    async def twice(arrivals: Arrivals) -> AsyncIterator[tuple[str, bytes]]:
        async for outcome in arriving(arrivals):
            yield outcome
            yield outcome

    monkeypatch.setattr(Arrivals, "outcomes", twice)
    deployment = deploy()
    deployment.ensure_worker()
    use(deployment)
    with wove.weave() as w:

        @w.do(range(20))
        def doubled(item: int) -> int:
            return 2 * item

    assert w.result.doubled == [2 * item for item in range(20)]


def test_an_outcome_that_redis_has_lost_is_a_job_that_is_gone(deploy: Deploy, monkeypatch: pytest.MonkeyPatch) -> None:
    async def nothing(arrivals: Arrivals) -> AsyncIterator[tuple[str, bytes]]:
        await asyncio.Event().wait()
        yield "", b""

    monkeypatch.setattr(Arrivals, "outcomes", nothing)
    deployment = deploy()
    deployment.ensure_worker()
    use(deployment)
    with pytest.raises(DeliveryOrphanedError) as raised:
        result_of(calling(int, "42"))
    assert raised.value.state == "gone"


def test_outcomes_of_meanwhile_arrive_when_redis_is_back(
    deploy: Deploy, redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    submitted = threading.Event()
    submit_many = ARQAdapter.submit_many

    async def noted(adapter: ARQAdapter, submissions: Any) -> Any:
        handles = await submit_many(adapter, submissions)
        submitted.set()
        return handles

    monkeypatch.setattr(ARQAdapter, "submit_many", noted)
    deployment = deploy()
    use(deployment)
    results: list[Any] = []
    with Redis(port=redis_server.port) as redis, begun(calling(int, "42"), results):
        job_id, _ = queued_payload(redis)
        assert submitted.wait(SECONDS)
        deployment.relay.shut()
        deployment.ensure_worker()
        deadline = time.monotonic() + SECONDS
        while redis.exists(f"{job_key_prefix}{job_id}") and time.monotonic() < deadline:
            time.sleep(0.01)
        deployment.relay.open()
    assert results == [42]


@pytest.mark.filterwarnings("ignore:Call to deprecated close:DeprecationWarning")
async def test_a_job_whose_worker_died_with_its_outcome_carried_is_not_executed_again(
    redis_server: RedisServer, tmp_path: Path
) -> None:
    before = redis_server.contents()
    counter = Counter(tmp_path / "executed")
    payload = payload_for(f"http://127.0.0.1:{free_port()}/wove/events/t", counter)
    worker = Worker(
        [run_payload],
        redis_settings=to_redis_settings(redis_server.url()),
        burst=True,
        poll_delay=0.01,
        handle_signals=False,
        keep_result=0,
    )
    pool = await create_pool(to_redis_settings(redis_server.url()))
    await pool.enqueue_job("wove.run", payload, _job_id="one")
    await pool.set(f"{retry_key_prefix}one", CARRIED_TRIES)
    await worker.async_run()
    await worker.close()
    await pool.aclose(close_connection_pool=True)
    assert counter.count == 0
    assert redis_server.contents() <= before
