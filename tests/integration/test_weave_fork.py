"""Weaves that go on in a detached process."""

import os
import signal
from collections.abc import Callable
from pathlib import Path

from tests.support.programs import run_program, started_program
from tests.support.waiting import wait_until

HEAD = """
import asyncio, os, sys, time
from pathlib import Path
import wove
from wove import merge, weave

def write(name, text):
    # Whoever waits for the file must not find it half written.
    Path(name + ".part").write_text(str(text))
    os.replace(name + ".part", name)
"""


def appears(file: Path) -> Callable[[], bool]:
    return file.exists


def is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


def test_a_forked_weave_survives_its_parent_and_hands_its_result_to_on_done(tmp_path: Path) -> None:
    ended = run_program(
        HEAD
        + """
GREETING = "hello"

def on_done(result):
    write("done", f"{list(result)} {os.getpid()} {os.getppid()}")

with weave(background=True, fork=True, on_done=on_done, base=10) as w:
    @w.do
    def waits_for_the_end_of_the_parent(parent=os.getpid()):
        while os.getppid() == parent:
            time.sleep(0.005)
        return GREETING

    @w.do([1, 2])
    async def item(number, base, waits_for_the_end_of_the_parent):
        return number * base

    @w.do
    def total(item):
        return merge(sum, [item])

write("parent", os.getpid())
""",
        tmp_path,
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "", "")
    wait_until(appears(tmp_path / "done"), what="on_done writes the result")
    text, process, _ = (tmp_path / "done").read_text().rsplit(" ", 2)
    assert text == "['hello', [10, 20], [30]]"
    assert process != (tmp_path / "parent").read_text()
    wait_until(lambda: not is_alive(int(process)), what="the process ends")
    assert list((tmp_path / "temporary").iterdir()) == []


def test_the_block_of_a_forked_weave_ends_at_once_and_leaves_no_zombie(tmp_path: Path) -> None:
    ended = run_program(
        HEAD
        + """
def on_done(result):
    write("done", os.getpid())

with weave(background=True, fork=True, on_done=on_done) as w:
    @w.do
    def waits_for_the_block():
        while not Path("block").exists():
            time.sleep(0.005)

write("block", "ended")
while not Path("done").exists():
    time.sleep(0.005)
process = int(Path("done").read_text())
deadline = time.monotonic() + 10
while time.monotonic() < deadline:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        print("gone")
        break
    time.sleep(0.005)
""",
        tmp_path,
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "gone\n", "")


def test_an_asynchronous_on_done_is_awaited_in_the_process(tmp_path: Path) -> None:
    ended = run_program(
        HEAD
        + """
async def on_done(result):
    await asyncio.sleep(0.01)
    write("done", result.final)

async def main():
    async with weave(background=True, fork=True, on_done=on_done) as w:
        w.do(lambda: 5)

asyncio.run(main())
""",
        tmp_path,
    )
    assert (ended.returncode, ended.stderr) == (0, "")
    wait_until(appears(tmp_path / "done"), what="on_done writes the result")
    assert (tmp_path / "done").read_text() == "5"


def test_on_done_is_called_after_a_failure_too_with_the_exception_of_the_task(tmp_path: Path) -> None:
    ended = run_program(
        HEAD
        + """
class Mine(Exception):
    pass

def on_done(result):
    write("done", f"{result.exception!r} {result.exception.__notes__} {isinstance(result.exception, Mine)}")

with weave(background=True, fork=True, on_done=on_done) as w:
    @w.do
    def fails():
        raise Mine("in the process")
""",
        tmp_path,
    )
    assert ended.returncode == 0
    wait_until(appears(tmp_path / "done"), what="on_done writes the failure")
    assert (tmp_path / "done").read_text() == (
        "Mine('in the process') [\"Raised in task 'fails', environment 'default'.\"] True"
    )


def test_a_failure_without_an_on_done_is_reported_on_the_error_output(tmp_path: Path) -> None:
    source = (
        HEAD
        + """
with weave(background=True, fork=True) as w:
    @w.do
    def fails():
        raise LookupError("nobody reads this")
"""
    )
    with started_program(source, tmp_path) as running:
        # The process has inherited the error output, which ends when both have.
        code, _, errors, _ = running.end()
    assert code == 0
    assert "LookupError: nobody reads this" in errors


def test_an_on_done_that_raises_is_reported_on_the_error_output(tmp_path: Path) -> None:
    source = (
        HEAD
        + """
def on_done(result):
    raise LookupError("callback")

with weave(background=True, fork=True, on_done=on_done) as w:
    w.do(lambda: 1)
"""
    )
    with started_program(source, tmp_path) as running:
        code, _, errors, _ = running.end()
    assert code == 0
    assert "on_done of a background weave raised" in errors
    assert "LookupError: callback" in errors


def test_a_forked_weave_has_the_configuration_of_its_parent(tmp_path: Path) -> None:
    ended = run_program(
        HEAD
        + """
attempts = Path("attempts")

wove.config(
    default_environment="patient",
    environments={"patient": {"executor": "local", "retries": 3}, "elsewhere": {"executor": "stdio"}},
)

def on_done(result):
    write("done", list(result)[0])

with weave(background=True, fork=True, on_done=on_done) as w:
    @w.do
    def flaky():
        count = len(attempts.read_text()) + 1 if attempts.exists() else 1
        attempts.write_text("x" * count)
        if count < 3:
            raise LookupError
        return count
""",
        tmp_path,
    )
    assert (ended.returncode, ended.stderr) == (0, "")
    wait_until(appears(tmp_path / "done"), what="on_done writes the result")
    assert (tmp_path / "done").read_text() == "3"


def test_ctrl_c_in_the_parent_s_terminal_does_not_reach_a_forked_weave(tmp_path: Path) -> None:
    source = (
        HEAD
        + """
def on_done(result):
    write("done", result.exception)

with weave(background=True, fork=True, on_done=on_done) as w:
    @w.do
    def waits_for_the_end_of_the_parent(parent=os.getpid()):
        write("running", os.getpid())
        while os.getppid() == parent:
            time.sleep(0.005)

print("waiting", flush=True)
time.sleep(30)
"""
    )
    with started_program(source, tmp_path) as running:
        running.wait_for("waiting")
        wait_until(appears(tmp_path / "running"), what="the weave runs")
        process = int((tmp_path / "running").read_text())
        assert os.getpgid(process) != os.getpgid(running.process.pid)
        assert os.getsid(process) != os.getsid(running.process.pid)
        running.send(signal.SIGINT)
        running.process.wait()
    wait_until(appears(tmp_path / "done"), what="the weave ends by itself")
    assert (tmp_path / "done").read_text() == "None"


def test_a_forked_weave_of_a_weave_class_of_a_module(tmp_path: Path) -> None:
    (tmp_path / "reports.py").write_text(
        "from wove import Weave\n\n"
        "class Report(Weave):\n"
        "    @Weave.do\n"
        "    def rows(self, base: int) -> list[int]:\n"
        "        return [base, base + 1]\n\n"
        "    @Weave.do('rows')\n"
        "    def doubled(self, row: int) -> int:\n"
        "        return row * 2\n"
    )
    ended = run_program(
        HEAD
        + """
from reports import Report

def on_done(result):
    write("done", result.total)

with weave(Report, background=True, fork=True, on_done=on_done, base=1) as w:
    @w.do
    def total(doubled):
        return sum(doubled)
""",
        tmp_path,
    )
    assert (ended.returncode, ended.stderr) == (0, "")
    wait_until(appears(tmp_path / "done"), what="on_done writes the result")
    assert (tmp_path / "done").read_text() == "6"
