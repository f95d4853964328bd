"""`arun` in a loop that does other things too: it can be cancelled, and never blocks."""

import asyncio
import threading

import pytest

from tests.support.event_server import EventServer, Move, is_final
from tests.support.payloads import payload_for
from tests.support.tasks import double_async
from tests.support.worker_tasks import Counter
from wove.backend.frames import deserialize_frame
from wove.integrations.worker import arun


async def test_cancelling_arun_tells_the_weave_and_is_raised(server: EventServer) -> None:
    running = asyncio.ensure_future(arun(payload_for(server.url, asyncio.sleep, delay=60)))
    await asyncio.to_thread(server.wait_for, "task_started")
    await asyncio.sleep(0.05)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert server.kinds == ["task_started", "task_cancelled"]


async def test_cancelling_arun_while_it_still_waits_for_its_start_tells_the_weave(
    server: EventServer, counter: Counter
) -> None:
    released = threading.Event()
    server.rule = lambda request: Move(after=released.wait) if request.kind == "task_started" else Move()
    running = asyncio.ensure_future(arun(payload_for(server.url, counter)))
    await asyncio.to_thread(server.wait_for, "task_started")
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    released.set()
    assert server.kinds[-1] == "task_cancelled"
    assert counter.count == 0


async def test_cancelling_arun_while_the_result_is_on_its_way_does_not_lose_it(server: EventServer) -> None:
    released = threading.Event()
    server.rule = lambda request: Move(after=released.wait) if is_final(request) else Move()
    running = asyncio.ensure_future(arun(payload_for(server.url, lambda: 1)))
    await asyncio.to_thread(server.wait_for, "task_result")
    running.cancel()
    released.set()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert server.kinds == ["task_started", "task_result"]


async def test_the_loop_is_never_blocked_by_posting(server: EventServer) -> None:
    released = threading.Event()
    server.rule = lambda request: Move(after=released.wait)
    running = asyncio.ensure_future(arun(payload_for(server.url, lambda: 1)))
    ticks = 0
    while ticks < 20:
        await asyncio.sleep(0.01)
        ticks += 1
    released.set()
    await running
    assert ticks == 20


async def test_many_runs_side_by_side_in_one_loop_all_arrive(server: EventServer) -> None:
    payloads = [payload_for(server.url, double_async, number=number) for number in range(100)]
    await asyncio.gather(*(arun(payload) for payload in payloads))
    results = [deserialize_frame(request.event)["result"] for request in server.requests if is_final(request)]
    assert sorted(results) == [number * 2 for number in range(100)]
