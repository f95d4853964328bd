"""The worker's entry points: what reaches the weave, and when a task is not executed."""

import asyncio
import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.event_server import CANCEL, OVER, EventServer, Move, Request, event_server
from tests.support.payloads import SECRET, payload_for
from wove.backend.connections import connections
from wove.backend.events import EventSender
from wove.backend.frames import deserialize_frame
from wove.backend.payload import split_payload
from wove.backend.signing import (
    CLAIM_REQUEST,
    derive_key,
    read_signature,
    sign_payload,
    verify_event,
)
from wove.backend.spool import Spool, spool, spool_name
from wove.errors import DeliveryGivenUpError, EventRefusedError, SignatureError
from wove.integrations.worker import arun, current_run, run

Run = Callable[[dict[str, Any]], None]


@pytest.fixture(params=["run", "arun"])
def execute(request: pytest.FixtureRequest) -> Run:
    if request.param == "run":
        return lambda payload: run(payload)
    return lambda payload: asyncio.run(arun(payload))


@pytest.fixture
def server() -> Iterator[EventServer]:
    with event_server() as server:
        yield server
    connections().close()


@pytest.fixture(autouse=True)
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv("WOVE_SPOOL_DIR", str(tmp_path / "spool"))
    spool.cache_clear()
    yield tmp_path / "spool"
    spool.cache_clear()


class Counter:
    """A task that counts how often it is executed, in a file: it may run in another process."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __call__(self) -> int:
        with open(self._path, "a") as file:
            file.write("x")
        return self.count

    @property
    def count(self) -> int:
        return self._path.stat().st_size if self._path.exists() else 0


@pytest.fixture
def counter(tmp_path: Path) -> Counter:
    return Counter(tmp_path / "count")


def _final(server: EventServer) -> dict[str, Any]:
    (final,) = [
        request for request in server.requests if request.kind in ("task_result", "task_error", "task_cancelled")
    ]
    return deserialize_frame(final.event)


def _is_final(request: Request) -> bool:
    return request.kind in ("task_result", "task_error", "task_cancelled")


def _outcomes(kept: Path) -> list[str]:
    return [path.name for path in kept.glob("*.outcome")] if kept.exists() else []


async def _double(number: int) -> int:
    await asyncio.sleep(0)
    return number * 2


def test_the_weave_hears_of_the_start_and_gets_the_result(execute: Run, server: EventServer) -> None:
    assert execute(payload_for(server.url, lambda left, right: left + right, left=1, right=2)) is None  # type: ignore[func-returns-value]
    assert server.kinds == ["task_started", "task_result"]
    assert _final(server)["result"] == 3
    assert _final(server)["task_id"] == "report"


def test_a_coroutine_is_executed(execute: Run, server: EventServer) -> None:
    execute(payload_for(server.url, _double, number=21))
    assert _final(server)["result"] == 42


def test_one_connection_serves_start_and_result_and_the_next_run(execute: Run, server: EventServer) -> None:
    for _ in range(3):
        execute(payload_for(server.url, lambda: 1))
    assert server.connections == 1


def test_every_event_is_signed_with_the_run_s_key_and_numbered(execute: Run, server: EventServer) -> None:
    payload = payload_for(server.url, lambda: 1)
    execute(payload)
    signatures = [read_signature(request.headers) for request in server.requests]
    assert [signature.sequence for signature in signatures if signature] == [1, 2]
    for signature, request in zip(signatures, server.requests, strict=True):
        assert signature is not None
        verify_event(signature, payload["callback_key"], length=len(request.body), now=time.time())
    assert server.requests[0].headers["wove-lease"] == "30"


def test_a_plain_payload_is_answered_without_a_signature(execute: Run, server: EventServer) -> None:
    payload = payload_for(server.url, lambda: 1)
    for extra in ("callback_key", "lease", "results", "attempt", "deadline", "trace", "python"):
        payload.pop(extra, None)
    execute(payload)
    assert server.kinds == ["task_started", "task_result"]
    assert "webhook-id" not in server.requests[0].headers


def test_a_failing_task_is_an_event_and_not_an_exception_of_the_job(execute: Run, server: EventServer) -> None:
    def task() -> None:
        raise ValueError("bad input")

    execute(payload_for(server.url, task))
    final = _final(server)
    assert isinstance(final["exception"], ValueError)
    assert "in task" in final["error"]["traceback"]


def test_a_task_that_exits_does_not_end_the_worker(execute: Run, server: EventServer) -> None:
    execute(payload_for(server.url, lambda: sys.exit(3)))
    assert _final(server)["error"]["kind"] == "SystemExit"


@pytest.mark.parametrize("value", [threading.Lock, lambda: (n for n in "ab")], ids=["lock", "generator"])
def test_a_result_that_cannot_be_pickled_is_an_error_event(
    execute: Run, server: EventServer, value: Callable[[], object]
) -> None:
    execute(payload_for(server.url, lambda: value()))
    assert _final(server)["error"]["kind"] == "SerializationError"


def test_a_callable_that_cannot_be_unpickled_here_is_an_error_event(execute: Run, server: EventServer) -> None:
    payload = payload_for(server.url, print) | {"callable_pickle": "Y25vdF9pbnN0YWxsZWQKZgou"}
    execute(payload)
    assert "'not_installed' is not installed here" in _final(server)["error"]["message"]


def test_results_as_json_are_plain(execute: Run, server: EventServer) -> None:
    execute(payload_for(server.url, lambda: {"rows": [1, 2]}) | {"results": "json"})
    event = server.requests[-1].event
    assert event["result"] == {"rows": [1, 2]}
    assert "result_pickle" not in event


def test_a_result_that_the_receiver_finds_too_large_becomes_an_error(execute: Run, server: EventServer) -> None:
    server.rule = lambda request: Move(413) if len(request.body) > 100_000 else Move()
    execute(payload_for(server.url, lambda: "x" * 200_000))
    final = deserialize_frame(server.requests[-1].event)
    assert final["error"]["kind"] == "PayloadTooLargeError"
    assert "The result of task 'report'" in final["error"]["message"]
    assert "callback_max_bytes" in final["error"]["message"]


def test_a_result_that_the_receiver_finds_malformed_becomes_an_error(execute: Run, server: EventServer) -> None:
    server.rule = lambda request: Move(400) if request.kind == "task_result" else Move()
    execute(payload_for(server.url, lambda: 1))
    final = deserialize_frame(server.requests[-1].event)
    assert (final["error"]["kind"], final["error"]["source"]) == ("EventRefusedError", "transport")


def test_a_large_argument_and_a_large_result_travel(execute: Run, server: EventServer) -> None:
    execute(payload_for(server.url, lambda text: text + "!", text="x" * 5_000_000))
    assert _final(server)["result"] == "x" * 5_000_000 + "!"


def test_a_task_knows_its_run(execute: Run, server: EventServer) -> None:
    payload = payload_for(server.url, lambda: current_run()) | {"attempt": 3, "trace": {"traceparent": "00-1"}}
    execute(payload)
    info = _final(server)["result"]
    assert (info.run_id, info.task_name, info.attempt) == (payload["run_id"], "report", 3)
    assert info.trace == {"traceparent": "00-1"}


def test_what_the_task_logs_reaches_the_weave_before_its_result(execute: Run, server: EventServer) -> None:
    def task() -> int:
        logging.getLogger("some.library").warning("low on memory")
        logging.getLogger("wove.task").info("half way")
        return 1

    execute(payload_for(server.url, task))
    assert server.kinds[-1] == "task_result"
    assert [request.event["message"] for request in server.requests if request.kind == "log"] == [
        "low on memory",
        "half way",
    ]


# Fault 17, fault 27: over, or in another worker's hands.
@pytest.mark.parametrize("status", [409, 410])
def test_a_run_that_this_worker_should_not_execute_is_not(
    execute: Run, server: EventServer, counter: Counter, status: int
) -> None:
    server.rule = lambda request: Move(status)
    execute(payload_for(server.url, counter))
    assert counter.count == 0
    assert server.kinds == ["task_started"]


def test_a_run_that_was_cancelled_in_the_queue_is_not_executed(
    execute: Run, server: EventServer, counter: Counter
) -> None:
    server.rule = lambda request: CANCEL
    execute(payload_for(server.url, counter))
    assert counter.count == 0
    assert server.kinds == ["task_started", "task_cancelled"]


@pytest.mark.parametrize("status", [401, 403])
def test_a_worker_that_the_weave_does_not_trust_does_not_execute(
    execute: Run, server: EventServer, counter: Counter, status: int
) -> None:
    server.rule = lambda request: Move(status)
    with pytest.raises(EventRefusedError):
        execute(payload_for(server.url, counter))
    assert counter.count == 0


def test_a_url_that_leads_elsewhere_is_complained_about_and_does_not_hide_in_silence(
    execute: Run, server: EventServer, counter: Counter, caplog: pytest.LogCaptureFixture
) -> None:
    server.rule = lambda request: Move(404)
    with pytest.raises(DeliveryGivenUpError, match="status 404"):
        execute(payload_for(server.url, counter) | {"callback_retry_seconds": 0.3})
    assert counter.count == 1
    assert "/wove/events/<callback_token>" in caplog.text
    assert "the-token" not in caplog.text


# Fault 15 from this side: an unanswered start event never holds the task up for long.
def test_a_start_event_that_nobody_answers_does_not_keep_the_task_from_running(
    execute: Run, server: EventServer, counter: Counter
) -> None:
    released = threading.Event()
    server.rule = lambda request: Move(after=released.wait) if request.kind == "task_started" else Move()
    execute(payload_for(server.url, counter))
    assert counter.count == 1
    # On a busy machine, a start that nobody waits for any more may reach the server after it.
    assert "task_result" in server.kinds
    released.set()


# Fault 30: the weave gives up while the task runs.
@pytest.mark.parametrize("move", [CANCEL, OVER, Move(409)], ids=["cancel", "over", "taken"])
def test_a_running_synchronous_task_is_stopped(execute: Run, server: EventServer, move: Move) -> None:
    server.rule = lambda request: move if request.kind == "heartbeat" else Move(body={"cancel": False, "lease": 0.3})

    def task() -> None:
        while True:
            time.sleep(0.001)

    execute(payload_for(server.url, task) | {"lease": 0.3})
    assert server.kinds[:2] == ["task_started", "heartbeat"]
    assert ("task_cancelled" in server.kinds) is (move is CANCEL)
    assert not {"task_result", "task_error"} & set(server.kinds)


@pytest.mark.parametrize("move", [CANCEL, OVER], ids=["cancel", "over"])
def test_a_running_coroutine_is_stopped(execute: Run, server: EventServer, move: Move) -> None:
    server.rule = lambda request: move if request.kind == "heartbeat" else Move(body={"cancel": False, "lease": 0.3})
    execute(payload_for(server.url, asyncio.sleep, delay=60) | {"lease": 0.3})
    assert ("task_cancelled" in server.kinds) is (move is CANCEL)
    assert "task_result" not in server.kinds


# Fault 20.
@pytest.mark.parametrize("busy", ["computing", "awaiting", "blocking the loop"])
def test_heartbeats_go_on_whatever_the_task_does(execute: Run, server: EventServer, busy: str) -> None:
    enough = threading.Event()

    def compute() -> str:
        while not enough.is_set():
            sum(range(1000))
        return "done"

    async def wait() -> str:
        await asyncio.to_thread(enough.wait, 30)
        return "done"

    async def block() -> str:
        return compute()

    def count(request: Request) -> Move:
        if server.kinds.count("heartbeat") >= 3:
            enough.set()
        return Move(body={"cancel": False, "lease": 0.3})

    server.rule = count
    task = {"computing": compute, "awaiting": wait, "blocking the loop": block}[busy]
    _execute_in_place(execute, server, task, lease=0.3)
    assert _final(server)["result"] == "done"


def _execute_in_place(execute: Run, server: EventServer, task: Callable[..., Any], **fields: Any) -> None:
    """Execute a task that shares objects with the test: it is found by name instead of being copied."""
    _shared["task"] = task
    execute(payload_for(server.url, _call_shared) | fields)


_shared: dict[str, Callable[..., Any]] = {}


def _call_shared() -> Any:
    return _shared["task"]()


# Fault 32: the owner is gone; three leases are 0.9 s.
def test_a_task_whose_weave_has_been_silent_for_three_leases_is_stopped(execute: Run, server: EventServer) -> None:
    server.rule = lambda request: Move(body={"cancel": False, "lease": 0.3})

    def task() -> None:
        while True:
            time.sleep(0.001)

    payload = payload_for(server.url, task) | {"lease": 0.3}

    def close() -> None:
        server.wait_for("heartbeat")
        server.close()

    closing = threading.Thread(target=close)
    closing.start()
    with pytest.raises(DeliveryGivenUpError):
        execute(payload)
    closing.join(20)


# Fault 10.
def test_an_outcome_that_cannot_be_delivered_is_kept_and_the_job_fails(
    execute: Run, server: EventServer, counter: Counter, kept: Path
) -> None:
    server.close()
    payload = payload_for(server.url, counter) | {"callback_retry_seconds": 0.3}
    with pytest.raises(DeliveryGivenUpError, match="ConnectionRefusedError"):
        execute(payload)
    assert counter.count == 1
    assert len(_outcomes(kept)) == 1


def test_a_kept_outcome_is_delivered_without_executing_the_task_again(
    execute: Run, server: EventServer, counter: Counter, kept: Path
) -> None:
    server.close()
    payload = payload_for(server.url, counter) | {"callback_retry_seconds": 0.3}
    with pytest.raises(DeliveryGivenUpError):
        execute(payload)
    server.open()
    execute(payload | {"callback_retry_seconds": 30.0})
    assert counter.count == 1
    assert server.kinds == ["task_result"]
    assert _final(server)["result"] == 1
    assert _outcomes(kept) == []


def test_a_kept_outcome_is_posted_under_the_id_that_it_had(execute: Run, server: EventServer, counter: Counter) -> None:
    # The weave has got it, but not said so; posted again under another id it would be a second outcome.
    server.rule = lambda request: Move(500) if _is_final(request) else Move()
    payload = payload_for(server.url, counter) | {"callback_retry_seconds": 0.3}
    with pytest.raises(DeliveryGivenUpError):
        execute(payload)
    server.rule = lambda request: Move()
    execute(payload | {"callback_retry_seconds": 30.0})
    ids = {request.headers["webhook-id"] for request in server.requests if _is_final(request)}
    assert len(ids) == 1


def test_a_delivered_outcome_is_not_kept(execute: Run, server: EventServer, kept: Path) -> None:
    execute(payload_for(server.url, lambda: 1))
    assert _outcomes(kept) == []


def test_the_outcome_is_kept_before_it_is_first_posted(execute: Run, server: EventServer, kept: Path) -> None:
    seen: list[int] = []

    def look(request: Request) -> Move:
        if _is_final(request):
            seen.append(len(_outcomes(kept)))
        return Move()

    server.rule = look
    execute(payload_for(server.url, lambda: 1))
    assert seen == [1]


@pytest.mark.parametrize("status", [409, 410])
def test_an_outcome_that_nobody_wants_is_not_kept(execute: Run, server: EventServer, kept: Path, status: int) -> None:
    server.rule = lambda request: Move(status) if _is_final(request) else Move()
    execute(payload_for(server.url, lambda: 1))
    assert _outcomes(kept) == []


# Fault 26: the weave is gone, so only this host knows that the run has been executed.
def test_a_finished_run_is_not_executed_again_where_nobody_confirms_it(
    execute: Run, server: EventServer, counter: Counter
) -> None:
    payload = payload_for(server.url, counter)
    execute(payload)
    server.close()
    spool.cache_clear()
    execute(payload)
    assert counter.count == 1


def test_a_run_that_this_process_executes_already_is_not_executed_twice(
    execute: Run, server: EventServer, counter: Counter
) -> None:
    released, again = threading.Event(), []
    payload = payload_for(server.url, _call_shared)

    def task() -> int:
        execution = threading.Thread(target=execute, args=(payload,))
        execution.start()
        execution.join(20)
        again.append(execution.is_alive())
        released.set()
        return counter()

    _shared["task"] = task
    execute(payload)
    assert again == [False]
    assert counter.count == 1


def test_a_run_that_reaches_a_worker_too_late_is_not_executed_where_nobody_confirms_it(
    execute: Run, server: EventServer, counter: Counter
) -> None:
    server.rule = lambda request: Move(503) if request.kind == "task_started" else Move()
    execute(payload_for(server.url, counter) | {"deadline": time.time() - 1})
    assert counter.count == 0
    final = _final(server)
    assert final["error"]["kind"] == "DeliveryTimeoutError"
    assert final["error"]["retryable"] is True


def test_a_weave_that_confirms_a_late_run_gets_its_result(execute: Run, server: EventServer, counter: Counter) -> None:
    # The weave's own clock decides; this host's may be wrong.
    execute(payload_for(server.url, counter) | {"deadline": time.time() - 1})
    assert counter.count == 1


def _claiming(server: EventServer, **args: Any) -> tuple[dict[str, Any], bytes]:
    whole = payload_for(server.url, lambda text: len(text), **args)
    small, body = split_payload(whole, 2000)
    assert body is not None
    return dict(small), body


def test_a_payload_that_waits_at_the_receiver_is_fetched(execute: Run, server: EventServer) -> None:
    payload, body = _claiming(server, text="x" * 1_000_000)
    server.rule = lambda request: Move(body=body) if request.method == "GET" else Move()
    execute(payload)
    assert server.kinds == ["task_started", "GET", "task_result"]
    assert _final(server)["result"] == 1_000_000
    fetched = server.requests[1]
    signature = read_signature(fetched.headers)
    assert signature is not None
    assert fetched.path.endswith(f"/{payload['run_id']}")
    verify_event(signature, payload["callback_key"], length=0, now=time.time(), request=CLAIM_REQUEST)


def test_a_fetched_payload_that_is_not_the_submitted_one_is_an_error(execute: Run, server: EventServer) -> None:
    payload, body = _claiming(server, text="x" * 10_000)
    server.rule = lambda request: Move(body=body[:-1] + b" ") if request.method == "GET" else Move()
    execute(payload)
    assert "not what was submitted" in _final(server)["error"]["message"]
    assert _final(server)["error"]["source"] == "transport"


def test_a_payload_that_is_refused_is_an_error_and_one_that_is_over_is_nothing(
    execute: Run, server: EventServer
) -> None:
    payload, _ = _claiming(server, text="x" * 10_000)
    server.rule = lambda request: Move(405) if request.method == "GET" else Move()
    execute(payload)
    assert _final(server)["error"]["kind"] == "EventRefusedError"
    server.requests.clear()
    payload, _ = _claiming(server, text="x" * 10_000)
    server.rule = lambda request: OVER if request.method == "GET" else Move()
    execute(payload)
    assert server.kinds == ["task_started", "GET"]


def test_a_payload_signed_with_a_shared_secret_is_executed(
    execute: Run, server: EventServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JOBS_SECRET", SECRET.decode())
    payload = payload_for(server.url, lambda: 1) | {"callback_security": "env:JOBS_SECRET"}
    del payload["callback_key"]
    payload["signature"] = sign_payload(payload, SECRET)
    execute(payload)
    signature = read_signature(server.requests[-1].headers)
    assert signature is not None
    key = derive_key(SECRET, payload["run_id"])
    verify_event(signature, key, length=len(server.requests[-1].body), now=time.time())


def test_a_payload_with_a_wrong_signature_is_neither_unpickled_nor_answered(
    execute: Run, server: EventServer, monkeypatch: pytest.MonkeyPatch, counter: Counter
) -> None:
    monkeypatch.setenv("JOBS_SECRET", SECRET.decode())
    payload = payload_for(server.url, counter) | {"callback_security": "env:JOBS_SECRET", "signature": "0" * 64}
    with pytest.raises(SignatureError):
        execute(payload)
    assert counter.count == 0
    assert server.requests == []


def test_no_thread_is_left_a_second_after_the_last_run(execute: Run, server: EventServer) -> None:
    execute(payload_for(server.url, lambda: 1))
    deadline = time.monotonic() + 20
    while any(thread.name == "wove-worker" for thread in threading.enumerate()):
        assert time.monotonic() < deadline, threading.enumerate()
        time.sleep(0.05)


def test_a_forked_worker_has_its_own_connection_and_heartbeats(server: EventServer) -> None:
    run(payload_for(server.url, lambda: "parent"))
    payload = payload_for(server.url, lambda: "child") | {"lease": 0.3}
    child = os.fork()
    if child == 0:
        status = 1
        try:
            run(payload)
            status = 0
        finally:
            os._exit(status)
    assert os.waitpid(child, 0)[1] == 0
    run(payload_for(server.url, lambda: "parent again"))
    assert [request.connection for request in server.requests] == [1, 1, 2, 2, 1, 1]


def test_a_task_that_forks_and_returns_twice_answers_once(server: EventServer) -> None:
    pids: list[int] = []

    def task() -> str:
        pids.append(os.fork())
        return "parent" if pids[0] else "child"

    _shared["task"] = task
    parent = os.getpid()
    try:
        run(payload_for(server.url, _call_shared))
    finally:
        if os.getpid() != parent:
            os._exit(0)
    os.waitpid(pids[0], 0)
    assert _final(server)["result"] == "parent"


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
    server.rule = lambda request: Move(after=released.wait) if _is_final(request) else Move()
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
    payloads = [payload_for(server.url, _double, number=number) for number in range(100)]
    await asyncio.gather(*(arun(payload) for payload in payloads))
    results = [deserialize_frame(request.event)["result"] for request in server.requests if _is_final(request)]
    assert sorted(results) == [number * 2 for number in range(100)]


def test_a_spool_that_cannot_be_used_does_not_fail_the_run(
    execute: Run, server: EventServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WOVE_SPOOL_DIR", "/dev/null/nowhere")
    spool.cache_clear()
    execute(payload_for(server.url, lambda: 1))
    assert _final(server)["result"] == 1


def test_an_outcome_of_a_process_that_died_before_posting_is_delivered(
    execute: Run, server: EventServer, counter: Counter, kept: Path
) -> None:
    payload = payload_for(server.url, counter)
    dead = EventSender(server.url, payload["run_id"], key=payload["callback_key"])
    body = b'{"type":"task_result","run_id":"%s","task_id":"report","result":7}' % payload["run_id"].encode()
    Spool(kept).save(spool_name(server.url, payload["run_id"]), dead.event(body))
    execute(payload)
    assert counter.count == 0
    assert _final(server)["result"] == 7
