"""The worker's entry points: what of an execution reaches the weave."""

import logging
import sys
import threading
import time
from collections.abc import Callable

import pytest

from tests.support.event_server import EventServer, Move, final_event
from tests.support.payloads import payload_for
from tests.support.tasks import double_async
from tests.unit.integrations.conftest import Run
from wove.backend.frames import deserialize_frame
from wove.backend.signing import read_signature, verify_event
from wove.integrations.worker import current_run


def test_the_weave_hears_of_the_start_and_gets_the_result(execute: Run, server: EventServer) -> None:
    assert execute(payload_for(server.url, lambda left, right: left + right, left=1, right=2)) is None
    assert server.kinds == ["task_started", "task_result"]
    assert final_event(server)["result"] == 3
    assert final_event(server)["task_id"] == "report"


def test_a_coroutine_is_executed(execute: Run, server: EventServer) -> None:
    execute(payload_for(server.url, double_async, number=21))
    assert final_event(server)["result"] == 42


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
    final = final_event(server)
    assert isinstance(final["exception"], ValueError)
    assert "in task" in final["error"]["traceback"]


def test_a_task_that_exits_does_not_end_the_worker(execute: Run, server: EventServer) -> None:
    execute(payload_for(server.url, lambda: sys.exit(3)))
    assert final_event(server)["error"]["kind"] == "SystemExit"


@pytest.mark.parametrize("value", [threading.Lock, lambda: (n for n in "ab")], ids=["lock", "generator"])
def test_a_result_that_cannot_be_pickled_is_an_error_event(
    execute: Run, server: EventServer, value: Callable[[], object]
) -> None:
    execute(payload_for(server.url, lambda: value()))
    assert final_event(server)["error"]["kind"] == "SerializationError"


def test_a_callable_that_cannot_be_unpickled_here_is_an_error_event(execute: Run, server: EventServer) -> None:
    payload = payload_for(server.url, print) | {"callable_pickle": "Y25vdF9pbnN0YWxsZWQKZgou"}
    execute(payload)
    assert "'not_installed' is not installed here" in final_event(server)["error"]["message"]


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
    assert final_event(server)["result"] == "x" * 5_000_000 + "!"


def test_a_task_knows_its_run(execute: Run, server: EventServer) -> None:
    payload = payload_for(server.url, lambda: current_run()) | {"attempt": 3, "trace": {"traceparent": "00-1"}}
    execute(payload)
    info = final_event(server)["result"]
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


def test_no_thread_is_left_a_second_after_the_last_run(execute: Run, server: EventServer) -> None:
    execute(payload_for(server.url, lambda: 1))
    deadline = time.monotonic() + 20
    while any(thread.name == "wove-worker" for thread in threading.enumerate()):
        assert time.monotonic() < deadline, threading.enumerate()
        time.sleep(0.05)
