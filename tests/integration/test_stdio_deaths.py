"""Worker processes that die: what their runs are told, and which of them begin once more."""

import os
import signal
import sys
from pathlib import Path

import pytest

from tests.support import stdio as tasks
from tests.support.stdio import Session, kill, until, workers
from wove.errors import DeliveryOrphanedError

pytestmark = pytest.mark.usefixtures("shut_down")


def test_a_task_that_exits_the_process_fails_with_the_exit_code() -> None:
    def leave() -> None:
        print("last words", file=sys.stderr)
        os._exit(3)

    with Session() as session:
        error = session.failure(session.start(leave))
        assert isinstance(error, DeliveryOrphanedError)
        assert error.exit_code == 3
        assert "Environment 'jobs'" in str(error)
        assert "task 'work'" in str(error)
        assert "exited with code 3" in str(error)
        assert "last words" in str(error)


def test_a_worker_that_is_killed_is_named_with_the_signal_and_replaced(tmp_path: Path) -> None:
    with Session() as session:
        worker = session.run(tasks.pid)
        run_id = session.start(tasks.wait_for_file, path=str(tmp_path / "never"))
        session.wait_for(run_id, "task_started")
        os.kill(worker, signal.SIGKILL)
        error = session.failure(run_id)
        assert isinstance(error, DeliveryOrphanedError)
        assert "SIGKILL" in str(error)
        assert error.exit_code == -signal.SIGKILL
        assert session.run(tasks.pid) != worker


def test_a_worker_that_dies_fails_its_own_runs_only(tmp_path: Path) -> None:
    go_on = str(tmp_path / "go")
    with Session(processes=2) as session:
        runs = [session.start(tasks.touch_and_wait, started=str(tmp_path / name), go_on=go_on) for name in "ab"]
        for run_id in runs:
            session.wait_for(run_id, "task_started")
        until(lambda: bool((tmp_path / "a").exists() and (tmp_path / "a").read_text()))
        os.kill(int((tmp_path / "a").read_text()), signal.SIGKILL)
        assert isinstance(session.failure(runs[0]), DeliveryOrphanedError)
        Path(go_on).touch()
        assert session.result(runs[1]) != int((tmp_path / "a").read_text())


def test_tasks_that_a_dead_worker_had_not_begun_run_in_the_next_one(tmp_path: Path) -> None:
    with Session(threads=2) as session:
        begun = [session.start(tasks.wait_for_file, path=str(tmp_path / "never")) for _ in range(2)]
        for run_id in begun:
            session.wait_for(run_id, "task_started")
        waiting = [session.start(tasks.echo, value=number) for number in range(20)]
        session.start(tasks.echo, value=0)
        until(lambda: len(workers()) == 1)
        os.kill(workers()[0], signal.SIGKILL)
        assert [type(session.failure(run_id)) for run_id in begun] == [DeliveryOrphanedError] * 2
        assert [session.result(run_id) for run_id in waiting] == list(range(20))


def _crash(marks: str, times: int) -> int:
    count = len(os.listdir(marks))
    Path(marks, str(count)).touch()
    if count < times:
        os.kill(os.getpid(), signal.SIGKILL)
    return count


def test_a_run_that_is_to_be_requeued_begins_once_more(tmp_path: Path) -> None:
    requeue = {"delivery_orphan_policy": "requeue"}
    with Session() as session:
        assert session.result(session.start(_crash, marks=str(tmp_path), times=1, delivery=requeue)) == 1
        run_id = session.start(_crash, marks=str(tmp_path), times=10, delivery=requeue)
        assert isinstance(session.failure(run_id), DeliveryOrphanedError)
        assert len(os.listdir(tmp_path)) == 4


def test_a_worker_that_was_killed_while_idle_fails_nothing() -> None:
    with Session() as session:
        for _ in range(5):
            kill(session.run(tasks.pid))


def test_only_the_last_lines_of_stderr_are_kept() -> None:
    def chatter() -> None:
        for number in range(5000):
            print(f"line {number} " + "x" * 2000, file=sys.stderr)
        os._exit(1)

    with Session() as session:
        error = session.failure(session.start(chatter))
        assert "line 4999" in str(error)
        assert "line 4000" not in str(error)
        assert len(str(error)) < 20_000
