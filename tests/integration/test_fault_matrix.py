"""Faults of the table in `tests/meta/matrices.toml`, with real processes and a proxy between them.

The tests of single parts cover most of the table; here are those faults that take a whole program, or a network.
"""

import asyncio
import os
import signal
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from secrets import token_hex
from typing import Any

import pytest

import wove
from tests.support.adapters import Ledger, ProcessAdapter
from wove import BackendAdapterEnvironmentExecutor
from wove.backend import BackendCallbackServer, build_backend_payload, payload_to_b64
from wove.backend.frames import frame_to_bytes
from wove.testing import Board, Deployment, Fault, FaultProxy, tasks
from wove.testing.servers import free_port
from wove.testing.stage import Stage, poll_until

ROOT = Path(__file__).parents[2]


class ProcessDeployment(Deployment):
    """A process for each task."""

    def __init__(self) -> None:
        self.ledger = Ledger()

    def environment(self) -> dict[str, Any]:
        executor = BackendAdapterEnvironmentExecutor("processes", adapter_class=ProcessAdapter)
        return {"executor": executor, "executor_config": {"ledger": self.ledger}}


@pytest.fixture
def deployment() -> Iterator[ProcessDeployment]:
    deployment = ProcessDeployment()
    yield deployment
    deployment.ledger.end_processes()


@pytest.fixture
def stage(deployment: ProcessDeployment) -> Iterator[Stage]:
    with Stage(deployment, seconds=30.0) as stage:
        yield stage


@contextmanager
def through_proxy(stage: Stage) -> Iterator[FaultProxy]:
    """Send the events of the next weaves through a proxy."""
    port, token = free_port("127.0.0.1"), token_hex(16)
    with FaultProxy(("127.0.0.1", port)) as proxy:
        stage.configure(callback_port=port, callback_token=token, callback_url=proxy.url(f"/wove/events/{token}"))
        yield proxy


# --- on the way back ---


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param(Fault("answer", event="task_result", status=503, times=3), id="three times 503"),
        pytest.param(Fault("drop", event="task_result", times=3), id="connection dropped"),
        pytest.param(Fault("lose_answer", event="task_result"), id="answer lost"),
        pytest.param(Fault("drop", event="task_started", times=None), id="every start lost"),
        pytest.param(Fault("delay", seconds=2.0, times=None), id="2 s latency"),
        pytest.param(Fault("duplicate", times=None), id="every event twice"),
    ],
)
def test_a_result_arrives_once_whatever_happens_on_its_way(stage: Stage, fault: Fault) -> None:
    with through_proxy(stage) as proxy:
        proxy.add(fault)
        assert stage.call(tasks.add, left=1, right=2) == 3
    (run_id,) = stage.journal.run_ids("add")
    assert stage.journal.events(run_id).count("task_result") == 1


@pytest.mark.slow
def test_a_worker_does_not_wait_for_ever_for_an_answer(stage: Stage) -> None:
    with through_proxy(stage) as proxy:
        proxy.add(Fault("black_hole", event="task_result"))
        assert stage.call(tasks.add, left=1, right=2) == 3
        assert len(proxy.requests("task_result")) == 2


def test_an_error_event_that_is_lost_arrives_all_the_same(stage: Stage) -> None:
    with through_proxy(stage) as proxy:
        proxy.add(Fault("drop", event="task_error", times=2))
        error = stage.begin(tasks.fail, message="as planned").failure(30.0)
    assert (type(error), error.args) == (ValueError, ("as planned",))


def test_a_result_that_overtakes_its_start_counts(stage: Stage) -> None:
    with through_proxy(stage) as proxy:
        proxy.add(Fault("hold", event="task_started", times=None))
        assert stage.call(tasks.add, left=1, right=2) == 3
        proxy.let_go()
    (run_id,) = stage.journal.run_ids("add")
    assert stage.journal.events(run_id)[-1] == "task_result"


async def test_of_two_results_that_race_one_counts_for_everybody() -> None:
    server = BackendCallbackServer()
    await server.start()
    try:
        frame = {"run_id": "race", "task_id": "task", "callable": tasks.add, "args": {"left": 1, "right": 2}}
        payload = build_backend_payload(frame, callback_url=server.callback_url, adapter="none")

        def post(value: int) -> int:
            event = {"type": "task_result", "run_id": "race", "task_id": "task", "result": value}
            return _post(payload["callback_url"], frame_to_bytes(event))

        statuses = await asyncio.gather(*(asyncio.to_thread(post, value) for value in range(20)))
        assert sorted(statuses) == [200] + [410] * 19
        assert (await server.recv())["result"] == statuses.index(200)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(server.recv(), 0.1)
    finally:
        await server.stop()


def _post(url: str, body: bytes) -> int:
    import httpx

    return httpx.post(url, content=body, trust_env=False).status_code


def test_a_receiver_that_restarts_in_the_middle_of_a_run_gets_its_result() -> None:
    async def restart(board: Board) -> Any:
        server = BackendCallbackServer(port=free_port("127.0.0.1"), token="a-pinned-token")
        await server.start()
        frame = {
            "run_id": "restart",
            "task_id": "task",
            "callable": tasks.wait_at,
            "args": {"board": board.address, "label": "restart"},
        }
        payload = build_backend_payload(frame, callback_url=server.callback_url, adapter="none")
        worker = await asyncio.to_thread(_start_worker, payload)
        try:
            (visit,) = await asyncio.to_thread(board.wait_for, "restart")
            await server.stop()
            board.release("restart")
            await asyncio.to_thread(board.wait_for_end, visit)
            await server.start()
            async with asyncio.timeout(30.0):
                while (event := await server.recv())["type"] != "task_result":
                    pass
            assert await asyncio.to_thread(worker.wait, 30.0) == 0
            return event["result"]
        finally:
            worker.kill()
            await asyncio.to_thread(worker.wait)
            await server.stop()

    with Board() as board:
        assert asyncio.run(restart(board)) == "released"


def _start_worker(payload: Any) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "wove.backend_worker", payload_to_b64(payload)]
    return subprocess.Popen(command, stdin=subprocess.DEVNULL, text=True)


# --- the weave's own process ---


@contextmanager
def program(source: str, *arguments: str) -> Iterator["subprocess.Popen[bytes]"]:
    """Run a program of a user's, in a session of its own."""
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(source), *arguments],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        process.communicate()


_REMOTE = """
    import sys
    import wove
    from tests.support.adapters import Ledger, ProcessAdapter
    from wove import BackendAdapterEnvironmentExecutor
    from wove.testing import tasks

    executor = BackendAdapterEnvironmentExecutor("processes", adapter_class=ProcessAdapter)
    wove.config(environments={"there": {
        "executor": executor,
        "executor_config": {"ledger": Ledger()},
        "delivery_heartbeat_seconds": float(sys.argv[2]),
    }})
    with wove.weave(board=sys.argv[1], label="remote") as w:
        w.do(environment="there")(tasks.wait_at)
    print(w.result["wait_at"])
"""


def test_ctrl_c_cancels_the_job_and_ends_the_program() -> None:
    with Board() as board, program(_REMOTE, board.address, "1.0") as process:
        (visit,) = board.wait_for("remote")
        process.send_signal(signal.SIGINT)
        assert process.wait(20.0) != 0
        assert board.wait_for_end(visit, seconds=8.0) != "released"


def test_a_second_ctrl_c_leaves_at_once() -> None:
    with Board() as board, program(_REMOTE, board.address, "1.0") as process:
        board.wait_for("remote")
        process.send_signal(signal.SIGINT)
        process.send_signal(signal.SIGINT)
        assert process.wait(20.0) != 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL], ids=["SIGTERM", "SIGKILL"])
def test_workers_stop_when_the_weave_s_process_has_been_killed(number: signal.Signals) -> None:
    with Board() as board, program(_REMOTE, board.address, "1.0") as process:
        (visit,) = board.wait_for("remote")
        os.kill(process.pid, number)
        process.wait(20.0)
        # Three leases of a second, and the last attempt to reach it.
        assert board.wait_for_end(visit, seconds=15.0) != "released"


_LOCAL = """
    import sys
    import threading
    import wove
    from wove.testing import tasks

    with wove.weave(board=sys.argv[1], label="local") as w:
        w.do(tasks.wait_at)
    print(w.result["wait_at"])
"""


def test_ctrl_c_ends_a_program_whose_local_thread_is_busy() -> None:
    with Board() as board, program(_LOCAL, board.address) as process:
        board.wait_for("local")
        process.send_signal(signal.SIGINT)
        assert process.wait(20.0) != 0


_OUTLIVING = """
    import sys
    import time
    import wove
    from wove.testing import tasks

    began = time.monotonic()
    with wove.weave(board=sys.argv[1], label="slow") as w:
        w.do(timeout=0.2)(tasks.wait_at)
    print(type(w.result.exception).__name__, time.monotonic() - began < 10.0, flush=True)
"""


def test_a_thread_that_outlives_its_timeout_holds_up_neither_the_weave_nor_the_exit() -> None:
    with Board() as board, program(_OUTLIVING, board.address) as process:
        printed, _ = process.communicate(timeout=20.0)
        assert printed.split() == [b"TaskTimeoutError", b"True"]
        assert process.returncode == 0
        # It was still busy when the interpreter ended.
        (visit,) = board.visits("slow")
        assert board.wait_for_end(visit) == "vanished"


def test_a_timeout_error_that_a_task_raises_is_an_error_like_any_other() -> None:
    calls: list[str] = []

    def flaky() -> str:
        calls.append("flaky")
        if len(calls) < 3:
            raise TimeoutError("the database")
        return "answer"

    async def failing() -> None:
        raise TimeoutError("the network")

    with wove.weave() as w:
        w.do(retries=2, timeout=30.0)(flaky)
    assert w.result["flaky"] == "answer"
    with wove.weave() as w:
        w.do(failing)
    with pytest.raises(TimeoutError, match="the network"):
        _ = w.result["failing"]


_FORKED = """
    import sys
    import wove
    from pathlib import Path

    told = Path(sys.argv[1])

    def report(result):
        told.write_text(repr(result.exception))

    with wove.weave(background=True, fork=True, on_done=report) as w:

        @w.do
        def failing():
            raise ValueError("in the background")
"""


def test_a_forked_weave_that_fails_tells_on_done(tmp_path: Path) -> None:
    told = tmp_path / "told"
    with program(_FORKED, str(told)) as process:
        process.communicate(timeout=20.0)
        poll_until(told.exists, seconds=20.0, what="on_done was called")
        poll_until(lambda: bool(told.read_text()), seconds=5.0, what="on_done has written")
    assert told.read_text() == "ValueError('in the background')"


def test_a_cancelled_asyncio_task_gives_descriptors_and_threads_back(stage: Stage) -> None:
    stage.call(tasks.add, left=1, right=2)
    wove.shutdown()
    before = len(os.listdir("/proc/self/fd")), threading.active_count()
    for number in range(5):
        running = stage.begin(tasks.wait_at, board=stage.board.address, label=f"cancelled {number}")
        stage.board.wait_for(f"cancelled {number}")
        running.abandon()
        assert running.wait(10.0)
        stage.board.release(f"cancelled {number}")
    wove.shutdown()

    def given_back() -> bool:
        now = len(os.listdir("/proc/self/fd")), threading.active_count()
        return now[0] <= before[0] and now[1] <= before[1]

    poll_until(given_back, seconds=10.0, what=f"no more than {before} descriptors and threads are there")
