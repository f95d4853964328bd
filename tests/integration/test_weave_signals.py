"""Ctrl-C and SIGTERM during a weave: tasks are cancelled, threads end, and the exception reaches the caller."""

import signal
from pathlib import Path

import pytest

from tests.support.programs import started_program

# A program that is interrupted must be gone after this many seconds, whatever its tasks are stuck in.
PROMPT = 5.0

HEAD = """
import asyncio, signal, sys, threading, time
from wove import merge, weave

never = threading.Event()

# A weave of a few milliseconds leaves SIGTERM alone.
LONG_ENOUGH = 0.1

async def waiting():
    await asyncio.sleep(LONG_ENOUGH)
    print("running")
    try:
        await asyncio.sleep(60)
    finally:
        print("cancelled")

def blocked():
    time.sleep(LONG_ENOUGH)
    print("running")
    never.wait(60)

def report(error):
    print("raised", type(error).__name__)
    print("stopped", sorted(w.result.cancelled))
"""

BLOCKING = """
w = weave()
try:
    with w:
        w.do({task})
except BaseException as error:
    report(error)
    raise
"""

ASYNCHRONOUS = """
w = weave()

async def main():
    async with w:
        w.do({task})

try:
    asyncio.run(main())
except BaseException as error:
    report(error)
    raise
"""

BELOW_A_LOOP = """
w = weave()

async def main():
    with w:
        w.do({task})

try:
    asyncio.run(main())
except BaseException as error:
    report(error)
    raise
"""

DOORS = {"with": BLOCKING, "async-with": ASYNCHRONOUS, "with-below-a-loop": BELOW_A_LOOP}
TASKS = {"async": "waiting", "sync": "blocked", "sync-with-timeout": "blocked"}


def program(door: str, task: str) -> str:
    text = HEAD + DOORS[door].format(task=TASKS[task])
    return text.replace("w.do(blocked)", "w.do(timeout=60.0)(blocked)") if "timeout" in task else text


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("door", DOORS)
def test_ctrl_c_cancels_the_tasks_and_reaches_the_caller(door: str, task: str, tmp_path: Path) -> None:
    with started_program(program(door, task), tmp_path) as running:
        running.wait_for("running")
        running.send(signal.SIGINT)
        code, output, errors, seconds = running.end()
    assert seconds < PROMPT
    assert code == -signal.SIGINT
    assert "raised KeyboardInterrupt" in output
    assert f"stopped ['{TASKS[task]}']" in output
    assert ("cancelled" in output) == (task == "async")
    assert errors.rstrip().endswith("KeyboardInterrupt")


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("door", DOORS)
def test_sigterm_cancels_the_tasks_and_reaches_the_caller_as_an_exit(door: str, task: str, tmp_path: Path) -> None:
    with started_program(program(door, task), tmp_path) as running:
        running.wait_for("running")
        running.send(signal.SIGTERM)
        code, output, errors, seconds = running.end()
    assert seconds < PROMPT
    assert code == 128 + signal.SIGTERM
    assert "raised SystemExit" in output
    assert ("cancelled" in output) == (task == "async")
    assert errors == ""


def test_a_handler_of_the_program_for_sigterm_stays_in_charge(tmp_path: Path) -> None:
    source = HEAD + (
        """
signal.signal(signal.SIGTERM, lambda *_: (print("mine"), never.set()))
with weave() as w:
    w.do(blocked)
print("result", w.result.final)
print("still mine", signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL)
"""
    )
    with started_program(source, tmp_path) as running:
        running.wait_for("running")
        running.send(signal.SIGTERM)
        code, output, _, _ = running.end()
    assert code == 0
    assert "mine" in output
    assert "still mine True" in output


def test_ctrl_c_in_a_notebook_waits_for_the_tasks_to_clean_up(tmp_path: Path) -> None:
    source = HEAD + (
        """
async def cleans_up():
    await asyncio.sleep(LONG_ENOUGH)
    print("running")
    try:
        await asyncio.sleep(60)
    finally:
        await asyncio.sleep(0.2)
        print("cleaned up")

async def cell():
    with weave() as w:
        w.do(cleans_up)

# No `asyncio.run`: in a kernel Ctrl-C raises KeyboardInterrupt.
try:
    asyncio.new_event_loop().run_until_complete(cell())
except KeyboardInterrupt:
    print("the cell was interrupted")
"""
    )
    with started_program(source, tmp_path) as running:
        running.wait_for("running")
        running.send(signal.SIGINT)
        _, output, _, seconds = running.end()
    assert seconds < PROMPT
    assert output.splitlines() == ["running", "cleaned up", "the cell was interrupted"]


def test_sigterm_cancels_every_weave_of_a_loop(tmp_path: Path) -> None:
    source = HEAD + (
        """
async def one(name, seconds):
    async with weave() as w:
        @w.do
        async def task():
            try:
                await asyncio.sleep(seconds)
            finally:
                print(name, "ended")

async def main():
    # The first to come is the first to go.
    await asyncio.gather(one("short", 0.2), one("long", 60), one("longer", 60), running())

async def running():
    await asyncio.sleep(0.4)
    print("running")

asyncio.run(main())
"""
    )
    with started_program(source, tmp_path) as running:
        running.wait_for("running")
        running.send(signal.SIGTERM)
        code, output, _, seconds = running.end()
    assert seconds < PROMPT
    assert code == 128 + signal.SIGTERM
    assert "long ended" in output
    assert "longer ended" in output


def test_a_process_that_a_task_has_forked_off_can_be_terminated(tmp_path: Path) -> None:
    source = HEAD + (
        """
import multiprocessing

with weave() as w:

    @w.do
    def forks():
        time.sleep(LONG_ENOUGH)
        process = multiprocessing.get_context("fork").Process(target=never.wait, args=(60,))
        process.start()
        process.terminate()
        process.join(10)
        ended = process.exitcode
        process.kill()
        return ended

print("ended", w.result.final)
"""
    )
    with started_program(source, tmp_path) as running:
        code, output, _, _ = running.end()
    assert code == 0
    assert f"ended {-signal.SIGTERM}" in output


def test_ctrl_c_at_the_end_of_the_program_cancels_background_weaves(tmp_path: Path) -> None:
    source = HEAD + (
        """
def done(result):
    print("done", repr(result.exception), sorted(result.cancelled))

with weave(background=True, on_done=done) as w:
    w.do(waiting)
"""
    )
    with started_program(source, tmp_path) as running:
        running.wait_for("running")
        running.send(signal.SIGINT)
        _, output, _, seconds = running.end()
    assert seconds < PROMPT
    assert "cancelled" in output.splitlines()
    assert "done CancelledError() ['waiting']" in output


def test_after_a_weave_sigterm_does_what_it_did_before(tmp_path: Path) -> None:
    source = HEAD + (
        """
with weave() as w:
    w.do(lambda: time.sleep(0.1))
print("default", signal.getsignal(signal.SIGTERM) is signal.SIG_DFL)
print("interrupt", signal.getsignal(signal.SIGINT) is signal.default_int_handler)
"""
    )
    with started_program(source, tmp_path) as running:
        code, output, errors, _ = running.end()
    assert (code, errors) == (0, "")
    assert "default True" in output
    assert "interrupt True" in output


def test_a_second_ctrl_c_leaves_a_task_that_resists(tmp_path: Path) -> None:
    source = HEAD + (
        """
async def resists():
    print("running")
    while True:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            print("resists")
            if "enough" in seen:
                raise
            seen.append("enough")

seen = []
w = weave()
try:
    with w:
        w.do(resists)
except BaseException as error:
    report(error)
    raise
"""
    )
    with started_program(source, tmp_path) as running:
        running.wait_for("running")
        running.send(signal.SIGINT)
        running.wait_for("resists")
        running.send(signal.SIGINT)
        code, output, _, seconds = running.end()
    assert seconds < PROMPT
    assert code == -signal.SIGINT
    assert "raised KeyboardInterrupt" in output


@pytest.mark.parametrize("options", ["", "timeout=60.0"])
def test_ctrl_c_ends_a_map_over_blocked_items(options: str, tmp_path: Path) -> None:
    source = HEAD + (
        f"""
def item(number):
    if number == 7:
        print("running")
    never.wait(60)

w = weave()
try:
    with w:
        w.do(range(1000), {options})(item)
except BaseException as error:
    report(error)
    raise
"""
    )
    with started_program(source, tmp_path) as running:
        running.wait_for("running")
        running.send(signal.SIGINT)
        code, output, _, seconds = running.end()
    assert seconds < PROMPT
    assert code == -signal.SIGINT
    assert "stopped ['item']" in output


def test_ctrl_c_ends_a_task_that_waits_for_a_merge(tmp_path: Path) -> None:
    source = HEAD + (
        """
def merges():
    try:
        merge(waiting)
    finally:
        print("left")

w = weave()
try:
    with w:
        w.do(merges)
except BaseException as error:
    report(error)
    raise
"""
    )
    with started_program(source, tmp_path) as running:
        running.wait_for("running")
        running.send(signal.SIGINT)
        code, output, _, seconds = running.end()
    assert seconds < PROMPT
    assert code == -signal.SIGINT
    assert "cancelled" in output
    assert "left" in output


def test_ctrl_c_in_a_weave_inside_of_a_task_ends_both(tmp_path: Path) -> None:
    source = HEAD + (
        """
def outer():
    try:
        with weave() as inner:
            inner.do(waiting)
    finally:
        print("left")

w = weave()
try:
    with w:
        w.do(outer)
except BaseException as error:
    report(error)
    raise
"""
    )
    with started_program(source, tmp_path) as running:
        running.wait_for("running")
        running.send(signal.SIGINT)
        code, output, _, seconds = running.end()
    assert seconds < PROMPT
    assert code == -signal.SIGINT
    assert "stopped ['outer']" in output
    assert "cancelled" in output
    assert "left" in output
