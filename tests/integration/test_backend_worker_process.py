"""``python -m wove.backend_worker`` as a real process: where its payload comes from, and how it ends."""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.event_server import EventServer, Move, Request, final_event
from tests.support.payloads import SECRET, payload_for
from tests.support.worker_processes import Workers
from tests.support.worker_tasks import sleeping
from wove.backend.payload import payload_to_b64
from wove.backend.signing import sign_payload


def test_the_payload_comes_from_the_environment_and_is_hidden_from_the_task(
    server: EventServer, workers: Workers
) -> None:
    def task() -> bool:
        import os

        return "WOVE_BACKEND_PAYLOAD" in os.environ

    assert workers.run(payload_for(server.url, task)) == (0, "")
    assert server.kinds == ["task_started", "task_result"]
    assert final_event(server)["result"] is False


def test_the_payload_may_be_the_first_argument(server: EventServer, workers: Workers) -> None:
    assert workers.run(None, payload_to_b64(payload_for(server.url, lambda: 1))) == (0, "")
    assert final_event(server)["result"] == 1


@pytest.mark.parametrize("encode", [payload_to_b64, json.dumps], ids=["base64", "json"])
def test_the_payload_may_come_on_standard_input(
    server: EventServer, workers: Workers, encode: Callable[[Any], str]
) -> None:
    payload = payload_for(server.url, lambda text: len(text), text="x" * 300_000)
    assert workers.run(None, "--stdin", stdin=encode(payload) + "\n") == (0, "")
    assert final_event(server)["result"] == 300_000


def test_the_payload_may_be_in_a_file(server: EventServer, workers: Workers, tmp_path: Path) -> None:
    def task(text: str) -> tuple[int, bool]:
        import os

        return len(text), "WOVE_BACKEND_PAYLOAD_FILE" in os.environ

    file = tmp_path / "payload"
    file.write_text(json.dumps(payload_for(server.url, task, text="x" * 300_000)))
    assert workers.run(None, WOVE_BACKEND_PAYLOAD_FILE=str(file)) == (0, "")
    assert final_event(server)["result"] == (300_000, False)


def test_a_file_that_cannot_be_read_is_named(workers: Workers, tmp_path: Path) -> None:
    code, errors = workers.run(None, WOVE_BACKEND_PAYLOAD_FILE=str(tmp_path / "absent"))
    assert code == 64
    assert "The payload's file, which WOVE_BACKEND_PAYLOAD_FILE names, cannot be read" in errors


@pytest.mark.parametrize(
    ("arguments", "stdin", "complaint"),
    [
        ((), None, "There is no payload"),
        (("--stdin",), "  \n", "There is no payload"),
        (("no base64!",), None, "not"),
        (("--sdtin",), None, "There is no option '--sdtin'. Give the payload in WOVE_BACKEND_PAYLOAD"),
        (("--stdin",), '{"run_id": "r"', "wove.backend_worker: The payload is no valid JSON"),
        (("--stdin",), '{"run_id": "r"}', "'callback_url'"),
    ],
)
def test_without_a_usable_payload_it_exits_64_and_says_why(
    workers: Workers, arguments: tuple[str, ...], stdin: str | None, complaint: str
) -> None:
    code, errors = workers.run(None, *arguments, stdin=stdin)
    assert code == 64
    assert complaint in errors
    assert "Traceback" not in errors


def test_a_failed_task_whose_weave_knows_is_no_failed_process(server: EventServer, workers: Workers) -> None:
    assert workers.run(payload_for(server.url, lambda: 1 / 0)) == (0, "")
    assert final_event(server)["error"]["kind"] == "ZeroDivisionError"


# Fault 10, and what becomes of it when the job is delivered again.
def test_an_outcome_that_nobody_takes_exits_75_and_is_delivered_by_the_next_process(
    server: EventServer, workers: Workers, tmp_path: Path
) -> None:
    executed = str(tmp_path / "executed")

    def task() -> str:
        with open(executed, "a") as file:
            file.write("x")
        return "once"

    payload = payload_for(server.url, task)
    server.close()
    code, errors = workers.run(payload, WOVE_CALLBACK_RETRY_SECONDS="0.5")
    assert code == 75
    assert "could not" in errors or "did not pass" in errors
    assert "the-token" not in errors
    server.open()
    assert workers.run(payload) == (0, "")
    assert final_event(server)["result"] == "once"
    assert Path(executed).read_text() == "x"
    assert list(workers.spool.glob("*.outcome")) == []


def test_a_forged_payload_exits_77(server: EventServer, workers: Workers) -> None:
    payload = payload_for(server.url, print) | {"callback_security": "env:JOBS_SECRET", "signature": "0" * 64}
    code, errors = workers.run(payload, JOBS_SECRET=SECRET.decode())
    assert code == 77
    assert "does not match" in errors
    assert server.requests == []


def test_a_missing_secret_exits_78(server: EventServer, workers: Workers) -> None:
    payload = payload_for(server.url, print) | {"callback_security": "env:JOBS_SECRET", "signature": "0" * 64}
    code, errors = workers.run(payload)
    assert code == 78
    assert "JOBS_SECRET is not set" in errors


def test_a_signed_payload_is_executed(server: EventServer, workers: Workers) -> None:
    payload = payload_for(server.url, lambda: 1) | {"callback_security": "env:JOBS_SECRET"}
    payload["signature"] = sign_payload(payload, SECRET)
    assert workers.run(payload, JOBS_SECRET=SECRET.decode()) == (0, "")
    assert final_event(server)["result"] == 1


# Fault 13.
def test_proxy_variables_are_ignored(server: EventServer, workers: Workers) -> None:
    proxy = "http://127.0.0.1:9"
    variables = dict.fromkeys(("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "ALL_PROXY", "all_proxy"), proxy)
    assert workers.run(payload_for(server.url, lambda: 1), **variables) == (0, "")
    assert final_event(server)["result"] == 1


# Fault 32: the process of the weave is killed; three leases are 1.5 s.
def test_a_worker_stops_when_its_weave_has_been_gone_for_three_leases(server: EventServer, workers: Workers) -> None:
    process = workers.start(payload_for(server.url, sleeping()) | {"lease": 0.5})
    server.rule = lambda request: Move(body={"cancel": False, "lease": 0.5})
    server.wait_for("heartbeat")
    server.close()
    assert workers.end(process)[0] == 75


# Fault 11.
@pytest.mark.slow
def test_an_outage_of_eight_seconds_loses_nothing(server: EventServer, workers: Workers, tmp_path: Path) -> None:
    ready = str(tmp_path / "ready")

    def task() -> int:
        import os
        import time

        while not os.path.exists(ready):
            time.sleep(0.01)
        return 42

    process = workers.start(payload_for(server.url, task))
    server.wait_for("task_started")
    server.close()
    Path(ready).touch()
    time.sleep(8)
    server.open()
    assert workers.end(process) == (0, "")
    assert final_event(server)["result"] == 42


def test_heartbeats_go_on_while_the_task_computes(server: EventServer, workers: Workers, tmp_path: Path) -> None:
    enough = str(tmp_path / "enough")

    def task() -> str:
        import os

        while not os.path.exists(enough):
            sum(range(100_000))
        return "done"

    def count(request: Request) -> Move:
        if server.kinds.count("heartbeat") == 3:
            Path(enough).touch()
        return Move(body={"cancel": False, "lease": 0.3})

    server.rule = count
    assert workers.run(payload_for(server.url, task) | {"lease": 0.3}) == (0, "")
    assert final_event(server)["result"] == "done"


def test_a_task_that_prints_and_reads_standard_input_disturbs_nothing(server: EventServer, workers: Workers) -> None:
    def task() -> str:
        import sys

        print("printed", flush=True)
        return sys.stdin.read()

    process = workers.start(payload_for(server.url, task))
    output, errors = process.communicate(timeout=60)
    assert (process.returncode, output, errors) == (0, "printed\n", "")
    assert final_event(server)["result"] == ""


def test_threads_that_a_task_leaves_do_not_keep_the_result_back(server: EventServer, workers: Workers) -> None:
    def task() -> str:
        import threading
        import time

        threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
        return "result"

    began = time.monotonic()
    assert workers.run(payload_for(server.url, task))[0] == 0
    assert final_event(server)["result"] == "result"
    assert time.monotonic() - began < 30
