"""What tasks do to standard streams, to processes and to the interpreter, and that it does no harm to their worker."""

import os
import signal
import subprocess
import sys

import pytest

from tests.support import stdio as tasks
from tests.support.stdio import Session, kill, until

pytestmark = pytest.mark.usefixtures("shut_down")


def test_prints_and_raw_writes_go_to_stderr(capfd: pytest.CaptureFixture[str]) -> None:
    def write() -> str:
        print("printed")
        os.write(1, b"written\n")
        subprocess.run(["echo", "from a child"], check=True)
        return "done"

    with Session() as session:
        assert session.run(write) == "done"
        written = ""

        def all_there() -> bool:
            nonlocal written
            written += capfd.readouterr().err
            return all(text in written for text in ("printed\n", "written\n", "from a child\n"))

        until(all_there)


def test_reading_stdin_finds_its_end() -> None:
    def read() -> tuple[str, bytes]:
        return sys.stdin.read(), os.read(0, 10)

    with Session() as session:
        assert session.run(read) == ("", b"")


def test_a_child_that_outlives_its_task_disturbs_nothing() -> None:
    def spawn() -> int:
        return subprocess.Popen(["sleep", "60"], start_new_session=True).pid

    with Session() as session:
        child = session.run(spawn)
        worker = session.run(tasks.pid)
        kill(worker)
        try:
            assert session.run(tasks.pid) != worker
        finally:
            os.kill(child, signal.SIGKILL)


def test_a_forked_child_that_comes_back_from_the_task_is_not_taken_for_the_worker() -> None:
    def fork() -> tuple[str, int]:
        child = os.fork()
        if child == 0:
            return "child", 0
        os.waitpid(child, 0)
        return "parent", os.getpid()

    with Session() as session:
        worker = session.run(tasks.pid)
        assert session.run(fork) == ("parent", worker)
        assert session.run(tasks.pid) == worker


def test_a_task_may_use_a_pool_of_processes_itself() -> None:
    def nested() -> list[int]:
        import multiprocessing

        with multiprocessing.get_context("spawn").Pool(1) as pool:
            return pool.map(abs, [-1, -2])

    with Session() as session:
        assert session.run(nested) == [1, 2]


@pytest.mark.parametrize("ending", [SystemExit(3), KeyboardInterrupt(), GeneratorExit()])
def test_what_would_end_an_interpreter_ends_the_task_only(ending: BaseException) -> None:
    def leave() -> None:
        raise ending

    with Session() as session:
        worker = session.run(tasks.pid)
        event = session.final(session.start(leave))
        assert event["type"] == "task_error"
        assert event["error"]["kind"] == type(ending).__name__
        assert session.run(tasks.pid) == worker
