"""How worker processes end: with their session, their weave, a shutdown, and their owner."""

import asyncio
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

import wove
from tests.support import stdio as tasks
from tests.support.stdio import Session, alive, kill, until, workers

pytestmark = pytest.mark.usefixtures("shut_down")

ROOT = Path(__file__).parents[2]


# Sessions, weaves and shutdowns.


def test_a_detached_run_goes_on_when_its_session_stops(tmp_path: Path) -> None:
    detach = {"delivery_orphan_policy": "detach"}
    with Session() as session:
        arguments = {"started": str(tmp_path / "started"), "go_on": str(tmp_path / "go")}
        session.start(tasks.touch_wait_touch, **arguments, ended=str(tmp_path / "ended"), delivery=detach)
        until((tmp_path / "started").exists)
    (tmp_path / "go").touch()
    until((tmp_path / "ended").exists)


def test_any_other_run_is_stopped_when_its_session_stops(tmp_path: Path) -> None:
    def wait(started: str, ended: str) -> None:
        try:
            Path(started).touch()
            time.sleep(60)
        finally:
            Path(ended).touch()

    with Session() as session:
        session.start(wait, started=str(tmp_path / "started"), ended=str(tmp_path / "ended"))
        until((tmp_path / "started").exists)
    until((tmp_path / "ended").exists)


async def test_cancelling_a_weave_cancels_its_runs_and_gives_descriptors_back(tmp_path: Path) -> None:
    from wove.runtime import runtime

    async def wait(started: str, ended: str) -> None:
        try:
            os.close(os.open(started, os.O_CREAT))
            await asyncio.sleep(60)
        finally:
            os.close(os.open(ended, os.O_CREAT))

    async def run() -> None:
        async with wove.weave(started=str(tmp_path / "started"), ended=str(tmp_path / "ended")) as w:
            w.do(environment="jobs")(wait)

    wove.config(environments={"jobs": {"executor": "stdio"}})
    try:
        wove.shutdown()
        before = _descriptors()
        weaving = asyncio.create_task(run())
        await asyncio.to_thread(until, (tmp_path / "started").exists)
        weaving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await weaving
        await asyncio.to_thread(until, (tmp_path / "ended").exists)
        await asyncio.to_thread(wove.shutdown)
        assert _descriptors() == before
    finally:
        runtime.reset()


def _descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def test_nothing_is_left_after_a_shutdown() -> None:
    with Session() as session:
        session.run(tasks.pid)
    wove.shutdown()
    before, threads = _descriptors(), set(threading.enumerate())
    with Session(processes=2) as session:
        pids = {session.run(tasks.pid) for _ in range(5)}
        kill(pids.pop())
        pids.add(session.run(tasks.pid))
    wove.shutdown()
    until(lambda: _descriptors() <= before)
    until(lambda: set(threading.enumerate()) <= threads)
    assert not any(alive(pid) for pid in pids)
    assert workers() == []


def test_a_shutdown_ends_running_tasks_with_an_error(tmp_path: Path) -> None:
    with Session() as session:
        run_id = session.start(tasks.wait_for_file, path=str(tmp_path / "never"))
        session.wait_for(run_id, "task_started")
        pool_loop = threading.Thread(target=wove.shutdown)
        pool_loop.start()
        pool_loop.join(10)
        assert not pool_loop.is_alive()
        error = session.failure(run_id)
        assert "wove.shutdown()" in str(error)
    assert workers() == []


# Owners.

PROGRAM = """
import os, sys, time
import wove
from wove import weave

wove.config(environments={"default": {"executor": "local"}, "jobs": {"executor": "stdio", **OPTIONS}})

def stuck(path):
    open(path + ".tmp", "w").write(str(os.getpid()))
    os.rename(path + ".tmp", path)
    while True:
        try:
            time.sleep(60)
        except BaseException:
            pass

with weave(path=sys.argv[1]) as w:
    @w.do(environment="jobs", **TASK_OPTIONS)
    def task(path):
        return BODY
print("after the weave", repr(w.result.exception), flush=True)
"""


def program(body: str, *, options: object = None, task_options: object = None) -> str:
    filled = PROGRAM.replace("TASK_OPTIONS", repr(task_options or {})).replace("OPTIONS", repr(options or {}))
    return filled.replace("BODY", body)


def launch(source: str, *arguments: str, **options: Any) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-c", source, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        **options,
    )


def test_the_interpreter_ends_promptly_after_a_weave(tmp_path: Path) -> None:
    process = launch(program("path"), str(tmp_path / "pid"))
    out, err = process.communicate(timeout=30)
    assert (process.returncode, err) == (0, "")
    assert "after the weave None" in out


def test_a_synchronous_task_that_outlives_its_timeout_holds_up_neither_weave_nor_exit(tmp_path: Path) -> None:
    started = time.monotonic()
    process = launch(program("stuck(path)", task_options={"timeout": 1.0}), str(tmp_path / "pid"))
    out, err = process.communicate(timeout=30)
    assert "TaskTimeoutError" in out, err
    assert time.monotonic() - started < 10
    until(lambda: not alive(int((tmp_path / "pid").read_text())))


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_workers_end_when_their_owner_is_killed(tmp_path: Path, number: int) -> None:
    process = launch(program("stuck(path)"), str(tmp_path / "pid"))
    until((tmp_path / "pid").exists)
    worker = int((tmp_path / "pid").read_text())
    process.send_signal(number)
    process.communicate(timeout=30)
    until(lambda: not alive(worker), seconds=5)


def test_an_interrupted_weave_ends_and_so_do_its_workers(tmp_path: Path) -> None:
    process = launch(program("stuck(path)"), str(tmp_path / "pid"))
    until((tmp_path / "pid").exists)
    worker = int((tmp_path / "pid").read_text())
    process.send_signal(signal.SIGINT)
    time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=20)
    until(lambda: not alive(worker), seconds=5)


def test_a_forked_child_of_the_owner_does_not_keep_workers_alive(tmp_path: Path) -> None:
    source = """
import os, sys, time
from tests.support import stdio as tasks
session = tasks.Session().__enter__()
worker = session.run(tasks.pid)
child = os.fork()
if child == 0:
    time.sleep(60)
    os._exit(0)
print(worker, child, flush=True)
time.sleep(60)
"""
    process = launch(source)
    assert process.stdout is not None
    worker, child = map(int, process.stdout.readline().split())
    process.kill()
    try:
        until(lambda: not alive(worker), seconds=5)
        assert alive(child)
    finally:
        os.kill(child, signal.SIGKILL)
    process.communicate(timeout=10)
