"""Tasks side by side: in the threads and the loop of one worker process, and in several processes."""

import asyncio
import os
import time
from pathlib import Path

import pytest

from tests.support import stdio as tasks
from tests.support.stdio import Session

pytestmark = pytest.mark.usefixtures("shut_down")


def test_synchronous_tasks_run_side_by_side_up_to_the_number_of_threads() -> None:
    with Session(threads=4) as session:
        runs = [session.start(tasks.meet, place="four", parties=4) for _ in range(4)]
        assert sorted(session.result(run_id) for run_id in runs) == [0, 1, 2, 3]


def test_no_more_tasks_run_at_a_time_than_there_are_threads(tmp_path: Path) -> None:
    with Session(threads=2) as session:
        go_on = str(tmp_path / "go")
        first = [session.start(tasks.wait_for_file, path=go_on) for _ in range(2)]
        for run_id in first:
            session.wait_for(run_id, "task_started")
        third = session.start(tasks.pid)
        Path(go_on).touch()
        session.result(third)
        assert all(session.final(run_id)["type"] == "task_result" for run_id in first)


def test_coroutines_need_no_threads() -> None:
    async def meet_on_loop(parties: int) -> int:
        barrier = tasks.__dict__.setdefault("loop_barrier", asyncio.Barrier(parties))
        async with asyncio.timeout(10):
            return int(await barrier.wait())

    with Session(threads=1) as session:
        runs = [session.start(meet_on_loop, parties=40) for _ in range(40)]
        assert sorted(session.result(run_id) for run_id in runs) == list(range(40))


def test_another_process_starts_when_every_other_one_is_busy(tmp_path: Path) -> None:
    go_on = str(tmp_path / "go")
    with Session(processes=3) as session:
        assert len({session.run(tasks.pid) for _ in range(5)}) == 1
        runs = [session.start(tasks.wait_for_file, path=go_on) for _ in range(6)]
        for run_id in runs:
            session.wait_for(run_id, "task_started")
        Path(go_on).touch()
        pids = [session.result(run_id) for run_id in runs]
        assert sorted(pids.count(pid) for pid in set(pids)) == [2, 2, 2]


def test_heartbeats_go_on_while_a_synchronous_task_computes() -> None:
    def compute(seconds: float) -> int:
        deadline, turns = time.monotonic() + seconds, 0
        while time.monotonic() < deadline:
            turns += 1
        return turns

    with Session() as session:
        run_id = session.start(compute, seconds=1.0, delivery={"delivery_heartbeat_seconds": 0.3})
        session.wait_for(run_id, "heartbeat", count=4)
        assert session.result(run_id) > 0


def test_heartbeats_go_on_beside_a_task_that_leaves_the_interpreter_for_moments_only(tmp_path: Path) -> None:
    enough = tmp_path / "enough"

    def compute(path: str) -> str:
        took, numbers = 0.0, 1_000_000
        while took < 0.3:  # One call that is long enough for the worker to notice.
            began = time.monotonic()
            sum(range(numbers))
            took, numbers = time.monotonic() - began, numbers * 2
        while not os.path.exists(path):
            sum(range(60_000))
        return "done"

    with Session() as session:
        run_id = session.start(compute, path=str(enough), delivery={"delivery_heartbeat_seconds": 0.3})
        session.wait_for(run_id, "heartbeat", count=30)
        enough.touch()
        assert session.result(run_id) == "done"


def test_no_heartbeat_comes_without_being_asked_for() -> None:
    with Session() as session:
        run_id = session.start(_sleep, seconds=0.3)
        session.final(run_id)
        assert [event["type"] for event in session.events(run_id)] == ["task_started", "task_result"]


def _sleep(seconds: float) -> None:
    time.sleep(seconds)
