"""Workers and the real callback receiver, without an executor in between."""

import asyncio
import logging
import os
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.owners import SECRET, owning
from wove.backend.events import post_event
from wove.backend.loop import on_io_loop
from wove.backend.payload import build_backend_payload, payload_to_b64
from wove.backend.receiver import BackendCallbackServer
from wove.backend.worker_run import WorkerRun
from wove.errors import DeliveryGivenUpError, EventRefusedError, SignatureError
from wove.integrations.worker import arun, run

pytestmark = pytest.mark.usefixtures("own_spool")


async def _run(payload: dict[str, Any]) -> None:
    await asyncio.to_thread(run, payload)


@pytest.fixture(params=["absent", "signed", "env"])
def security(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    monkeypatch.setenv("JOBS_SECRET", SECRET)
    return {
        "absent": {},
        "signed": {"callback_security": "signed"},
        "env": {"callback_security": "env:JOBS_SECRET"},
    }[request.param]


@pytest.mark.parametrize("execute", [_run, arun])
async def test_start_and_result_arrive_in_every_mode_of_security(
    security: dict[str, str], execute: Callable[[dict[str, Any]], Any]
) -> None:
    async with owning(**security) as owner:
        await execute(await owner.payload(lambda left, right: left + right, left=1, right=2))
        started, finished = await owner.recv(), await owner.recv()
        assert (started["type"], started["lease"]) == ("task_started", 30.0)
        assert (finished["type"], finished["result"]) == ("task_result", 3)


async def test_an_exception_arrives_as_it_was_with_its_traceback_in_words() -> None:
    def task() -> None:
        raise ValueError("bad input")

    async with owning() as owner:
        await _run(await owner.payload(task))
        event = await owner.outcome()
        assert isinstance(event["exception"], ValueError)
        assert "in task" in event["error"]["traceback"]


async def test_a_large_argument_through_a_small_payload_and_a_large_result_back(security: dict[str, str]) -> None:
    async with owning(**security) as owner:
        payload = await owner.payload(lambda data: data + b"!", data=b"x" * 20_000_000, limit=4096)
        assert "args_pickle" not in payload
        await _run(payload)
        assert (await owner.outcome())["result"] == b"x" * 20_000_000 + b"!"


async def test_results_as_json_arrive_where_pickles_are_refused() -> None:
    async with owning(results="json") as owner:
        await _run(await owner.payload(lambda: {"rows": [1, 2]}))
        assert (await owner.outcome())["result"] == {"rows": [1, 2]}
        await _run(await owner.payload(lambda: {1, 2}))
        assert "results='json'" in (await owner.outcome())["error"]["message"]
        await _run(await owner.payload(lambda: 1 / 0))
        assert (await owner.outcome())["error"]["kind"] == "ZeroDivisionError"


async def test_a_result_over_the_receiver_s_limit_arrives_as_an_error() -> None:
    async with owning(callback_max_bytes=100_000) as owner:
        await _run(await owner.payload(lambda: "x" * 3_000_000))
        error = (await owner.outcome())["error"]
        assert error["kind"] == "PayloadTooLargeError"
        assert "result of task 'report'" in error["message"]


@pytest.mark.parametrize("how", ["cancel", "close"])
@pytest.mark.parametrize("execute", [_run, arun])
async def test_a_weave_that_gives_up_stops_the_running_task(
    execute: Callable[[dict[str, Any]], Any], how: str, tmp_path: Path
) -> None:
    stopped = tmp_path / "stopped"
    marker = str(stopped)

    def task() -> None:

        try:
            while True:
                time.sleep(0.001)
        finally:
            open(marker, "w").close()

    async with owning() as owner:
        payload = await owner.payload(task, lease=0.6)
        running = asyncio.ensure_future(execute(payload))
        assert (await owner.recv())["type"] == "task_started"
        await (owner.cancel(payload) if how == "cancel" else owner.close(payload))
        await asyncio.wait_for(running, 20)
        if how == "cancel":
            assert (await owner.outcome())["type"] == "task_cancelled"
    assert stopped.exists()


async def test_heartbeats_and_log_records_arrive_while_the_task_computes() -> None:
    enough = threading.Event()

    def task() -> None:
        logging.getLogger("wove.task").info("begun")
        enough.wait(20)

    _shared["task"] = task
    async with owning() as owner:
        running = asyncio.ensure_future(_run(await owner.payload(_call_shared, lease=0.3)))
        kinds: list[str] = []
        while kinds.count("heartbeat") < 3:
            event = await owner.recv()
            kinds.append(event["type"])
            if event["type"] == "log":
                assert (event["level"], event["message"]) == (logging.INFO, "begun")
        enough.set()
        await running
        assert kinds[0] == "task_started"
        assert "log" in kinds


_shared: dict[str, Callable[[], Any]] = {}


def _call_shared() -> Any:
    return _shared["task"]()


# Fault 27: a broker delivers the job to a second worker while the first one has it.
async def test_a_second_worker_does_not_execute_what_the_first_one_executes() -> None:
    released = threading.Event()
    executions: list[int] = []

    def task() -> None:
        executions.append(1)
        released.wait(20)

    _shared["task"] = task
    async with owning() as owner:
        payload = await owner.payload(_call_shared)
        first = asyncio.ensure_future(_run(payload))
        assert (await owner.recv())["type"] == "task_started"
        elsewhere = await asyncio.create_subprocess_exec(
            *_worker_command(), env=_worker_environment(payload), stderr=asyncio.subprocess.PIPE
        )
        _, errors = await asyncio.wait_for(elsewhere.communicate(), 60)
        assert (elsewhere.returncode, errors) == (0, b"")
        released.set()
        await first
        assert (await owner.outcome())["type"] == "task_result"
    assert executions == [1]


def _worker_command() -> list[str]:
    return [sys.executable, "-m", "wove.backend_worker"]


def _worker_environment(payload: dict[str, Any]) -> dict[str, str]:
    return {**os.environ, "WOVE_BACKEND_PAYLOAD": payload_to_b64(payload)}


# Faults 17 and 26.
async def test_a_worker_that_comes_second_to_an_exclusive_run_learns_that_it_is_taken() -> None:
    async with owning() as owner:
        payload = await owner.payload(lambda: 1, lease=0.1, exclusive=True)
        first, second = WorkerRun(payload), WorkerRun(payload)
        try:
            assert await asyncio.to_thread(first.prepare)
            first.close()  # Its worker dies, and its lease ends.
            await asyncio.sleep(0.2)
            assert not await asyncio.to_thread(second.prepare)
        finally:
            first.close()
            second.close()
        assert second.is_taken
        assert second.run_id == payload["run_id"]


async def test_a_job_that_is_delivered_again_after_its_end_is_not_executed() -> None:
    executions: list[int] = []
    _shared["task"] = lambda: executions.append(1)
    async with owning() as owner:
        payload = await owner.payload(_call_shared)
        await _run(payload)
        await owner.outcome()
        await owner.close(payload)
        await _run(payload)
    assert executions == [1]


async def test_a_job_whose_weave_has_ended_is_not_executed() -> None:
    executions: list[int] = []
    _shared["task"] = lambda: executions.append(1)
    async with owning() as other, owning() as owner:
        payload = await owner.payload(_call_shared)
        await on_io_loop(owner.session.close())
        await _run(payload)
        await _run(await other.payload(lambda: 1))
        assert (await other.outcome())["result"] == 1
    assert executions == []


async def test_a_worker_with_another_run_s_key_is_refused_and_does_not_execute() -> None:
    executions: list[int] = []
    _shared["task"] = lambda: executions.append(1)
    async with owning(callback_security="signed") as owner:
        first, second = await owner.payload(_call_shared), await owner.payload(_call_shared)
        with pytest.raises(EventRefusedError, match="status 401"):
            await _run(first | {"callback_key": second["callback_key"]})
    assert executions == []


async def test_a_payload_that_was_changed_on_its_way_is_not_executed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("JOBS_SECRET", SECRET)
    async with owning(callback_security="env:JOBS_SECRET") as owner:
        payload = await owner.payload(lambda: 1)
        with pytest.raises(SignatureError):
            await _run(payload | {"deadline": 5.0})


async def test_a_receiver_that_is_gone_fails_the_job() -> None:
    async with owning() as owner:
        payload = await owner.payload(lambda: 1) | {"callback_retry_seconds": 0.3}
    with pytest.raises(DeliveryGivenUpError):
        await _run(payload)


async def test_a_burst_of_two_hundred_results_arrives() -> None:
    async def task(number: int) -> int:
        return number

    async with owning() as owner:
        payloads = [await owner.payload(task, number=number) for number in range(200)]
        running = asyncio.gather(*(arun(payload) for payload in payloads))
        results = [(await owner.outcome())["result"] for _ in payloads]
        await running
        assert sorted(results) == list(range(200))


async def test_a_plain_worker_may_use_post_event_alone() -> None:
    server = BackendCallbackServer()
    await server.start()
    try:
        frame = {"type": "task_result", "run_id": "by-hand-1", "task_id": "report", "result": {1, 2}}
        await asyncio.to_thread(post_event, server.callback_url, frame)
        assert (await asyncio.wait_for(server.recv(), 20))["result"] == {1, 2}
    finally:
        await server.stop()


async def test_a_plain_payload_is_answered_to_a_server_that_expects_no_run() -> None:
    server = BackendCallbackServer()
    await server.start()
    try:
        frame = {"type": "run_task", "run_id": "by-hand-2", "task_id": "report", "callable": lambda: 5, "args": {}}
        await _run(dict(build_backend_payload(frame, callback_url=server.callback_url, adapter="custom")))
        events = [await asyncio.wait_for(server.recv(), 20) for _ in range(2)]
        assert [event["type"] for event in events] == ["task_started", "task_result"]
        assert events[1]["result"] == 5
    finally:
        await server.stop()
