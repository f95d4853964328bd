"""Runs that are cancelled: running, waiting, ended, and those that defy it."""

import asyncio
import os
import time
from pathlib import Path

import pytest

from tests.support import stdio as tasks
from tests.support.stdio import Session, alive, until

pytestmark = pytest.mark.usefixtures("shut_down")


def test_a_running_coroutine_is_cancelled(tmp_path: Path) -> None:
    async def wait(started: str, path: str) -> None:
        try:
            os.close(os.open(started, os.O_CREAT))
            await asyncio.sleep(60)
        finally:
            os.close(os.open(path, os.O_CREAT))

    with Session() as session:
        run_id = session.start(wait, started=str(tmp_path / "started"), path=str(tmp_path / "cleaned up"))
        until((tmp_path / "started").exists)
        session.cancel(run_id)
        assert session.final(run_id)["type"] == "task_cancelled"
        assert (tmp_path / "cleaned up").exists()


def test_a_running_synchronous_task_is_interrupted_and_its_process_kept(tmp_path: Path) -> None:
    def wait(started: str, path: str) -> None:
        try:
            Path(started).touch()
            time.sleep(60)
        finally:
            Path(path).touch()

    with Session() as session:
        worker = session.run(tasks.pid)
        run_id = session.start(wait, started=str(tmp_path / "started"), path=str(tmp_path / "cleaned up"))
        until((tmp_path / "started").exists)
        session.cancel(run_id)
        assert session.final(run_id)["type"] == "task_cancelled"
        assert (tmp_path / "cleaned up").exists()
        assert session.run(tasks.pid) == worker


def _defy(started: str) -> None:
    Path(started).touch()
    while True:
        try:
            time.sleep(60)
        except BaseException:
            continue


def test_a_task_that_defies_its_cancel_loses_its_process(tmp_path: Path) -> None:
    with Session(threads=1) as session:
        worker = session.run(tasks.pid)
        stuck = session.start(_defy, started=str(tmp_path / "started"))
        until((tmp_path / "started").exists)
        waiting = session.start(tasks.pid)
        session.cancel(stuck)
        assert session.final(stuck)["type"] == "task_cancelled"
        assert session.result(waiting) != worker
        until(lambda: not alive(worker))


def test_a_task_that_defies_its_cancel_does_not_take_others_along(tmp_path: Path) -> None:
    go_on = tmp_path / "go"
    with Session(threads=2) as session:
        worker = session.run(tasks.pid)
        stuck = session.start(_defy, started=str(tmp_path / "started"))
        other = session.start(tasks.wait_for_file, path=str(go_on))
        session.wait_for(other, "task_started")
        until((tmp_path / "started").exists)
        session.cancel(stuck)
        # New tasks do not go to a process that is about to end.
        until(lambda: session.run(tasks.pid) != worker)
        go_on.touch()
        assert session.result(other) == worker
        assert session.final(stuck)["type"] == "task_cancelled"


def test_a_task_that_has_not_begun_is_cancelled_at_once(tmp_path: Path) -> None:
    with Session(threads=1) as session:
        running = session.start(tasks.wait_for_file, path=str(tmp_path / "go"))
        session.wait_for(running, "task_started")
        waiting = session.start(tasks.pid)
        session.cancel(waiting)
        assert session.final(waiting)["type"] == "task_cancelled"
        assert len(session.events(running)) == 1
        (tmp_path / "go").touch()
        session.result(running)


def test_cancelling_what_has_ended_does_nothing() -> None:
    with Session() as session:
        run_id = session.start(tasks.pid)
        worker = session.result(run_id)
        session.cancel(run_id)
        assert session.run(tasks.pid) == worker
        assert session.final(run_id)["type"] == "task_result"
