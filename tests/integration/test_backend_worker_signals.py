"""``python -m wove.backend_worker`` as a real process: what signals do to it and to its task."""

import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.support.event_server import EventServer, Move, final_event
from tests.support.payloads import payload_for
from tests.support.worker_processes import Workers
from tests.support.worker_tasks import sleeping

WITH_OWN_HANDLER = """
import signal, sys
from wove.backend_worker import main

def handler(number, frame):
    {body}

signal.signal(signal.SIGTERM, handler)
sys.exit(main(sys.argv[1:]))
"""

# No signal that has its default action does anything to the first process of a container.
AS_FIRST_PROCESS = """
import os, sys
from wove.backend_worker import main

os.getpid = lambda: 1
os.kill = lambda pid, number: None
sys.exit(main(sys.argv[1:]))
"""


def test_sigterm_is_told_to_the_weave_before_the_process_dies_of_it(server: EventServer, workers: Workers) -> None:
    process = workers.start(payload_for(server.url, sleeping()))
    server.wait_for("task_started")
    _signal_until(server, process, signal.SIGTERM)
    assert workers.end(process)[0] == -signal.SIGTERM
    assert final_event(server)["type"] == "task_cancelled"


def _signal_until(server: EventServer, process: subprocess.Popen[str], number: int) -> None:
    """Signal a worker once its task sleeps."""
    _wait_for_state(process, "S")
    process.send_signal(number)


def _wait_for_state(process: subprocess.Popen[str], state: str) -> None:
    deadline = time.monotonic() + 20
    seen = 0
    while seen < 5:
        assert time.monotonic() < deadline
        stat = Path(f"/proc/{process.pid}/stat").read_text()
        seen = seen + 1 if stat.rpartition(")")[2].split()[0] == state else 0
        time.sleep(0.02)


def test_sigterm_ends_a_worker_that_is_the_first_process_of_a_container(server: EventServer, workers: Workers) -> None:
    process = workers.start(payload_for(server.url, sleeping()), program=("-c", AS_FIRST_PROCESS))
    server.wait_for("task_started")
    _signal_until(server, process, signal.SIGTERM)
    assert workers.end(process)[0] == 128 + signal.SIGTERM
    assert final_event(server)["type"] == "task_cancelled"


def test_sigterm_ends_a_worker_whose_weave_is_gone(server: EventServer, workers: Workers) -> None:
    process = workers.start(payload_for(server.url, sleeping()))
    server.wait_for("task_started")
    server.close()
    _signal_until(server, process, signal.SIGTERM)
    assert workers.end(process)[0] == -signal.SIGTERM


@pytest.mark.parametrize("kind", ["sync", "coroutine"])
def test_ctrl_c_stops_the_task_and_the_worker(server: EventServer, workers: Workers, kind: str) -> None:
    async def coroutine() -> None:
        import asyncio

        await asyncio.sleep(60)

    process = workers.start(payload_for(server.url, coroutine if kind == "coroutine" else sleeping()))
    server.wait_for("task_started")
    _signal_until(server, process, signal.SIGINT)
    code, errors = workers.end(process)
    assert code == -signal.SIGINT or "KeyboardInterrupt" in errors
    assert final_event(server)["type"] == "task_cancelled"


def test_a_result_that_is_on_its_way_is_delivered_before_sigterm_ends_the_process(
    server: EventServer, workers: Workers
) -> None:
    server.rule = lambda request: Move(503) if request.kind == "task_result" else Move()
    process = workers.start(payload_for(server.url, lambda: 1))
    server.wait_for("task_result", 2)
    process.send_signal(signal.SIGTERM)
    server.rule = lambda request: Move()
    assert workers.end(process)[0] == -signal.SIGTERM
    assert server.kinds[-1] == "task_result"
    assert "task_cancelled" not in server.kinds
    assert list(workers.spool.glob("*.outcome")) == []


def test_a_handler_that_ends_the_process_goes_on_doing_so(server: EventServer, workers: Workers) -> None:
    program = ("-c", WITH_OWN_HANDLER.format(body="sys.exit(7)"))
    process = workers.start(payload_for(server.url, sleeping()), program=program)
    server.wait_for("task_started")
    _signal_until(server, process, signal.SIGTERM)
    assert workers.end(process)[0] == 7
    assert final_event(server)["type"] == "task_cancelled"


def test_a_handler_that_lets_the_task_end_goes_on_doing_so(
    server: EventServer, workers: Workers, tmp_path: Path
) -> None:
    go_on = str(tmp_path / "go on")

    def task() -> str:
        import os
        import time

        while not os.path.exists(go_on):
            time.sleep(0.01)
        return "ended in peace"

    program = ("-c", WITH_OWN_HANDLER.format(body=f"open({go_on!r}, 'w').close()"))
    process = workers.start(payload_for(server.url, task), program=program)
    server.wait_for("task_started")
    _signal_until(server, process, signal.SIGTERM)
    assert workers.end(process) == (0, "")
    assert final_event(server)["result"] == "ended in peace"


def test_a_child_that_a_task_terminates_says_nothing_to_the_weave(server: EventServer, workers: Workers) -> None:
    def task() -> int | None:
        import multiprocessing
        import time

        child = multiprocessing.get_context("fork").Process(target=time.sleep, args=(60,))
        child.start()
        child.terminate()
        child.join()
        return child.exitcode

    assert workers.run(payload_for(server.url, task)) == (0, "")
    assert server.kinds == ["task_started", "task_result"]
    assert final_event(server)["result"] == -signal.SIGTERM
