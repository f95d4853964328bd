"""Ctrl-C and SIGTERM while a thread waits for a weave whose tasks all run elsewhere."""

import signal
from pathlib import Path

import pytest

from tests.support.programs import started_program
from tests.support.waiting import wait_until

PROMPT = 10.0

HEAD = """
import asyncio, os, signal, sys, time
from pathlib import Path
import wove
from wove import weave

here, there = {"executor": "local"}, {"executor": "stdio"}
wove.config(default_environment="here", environments={"here": here, "there": there})

def waits():
    # After the moment in which a weave leaves SIGTERM alone.
    time.sleep(0.1)
    Path("running").write_text(str(os.getpid()))
    try:
        time.sleep(60)
    finally:
        Path("stopped").touch()

w = weave(environment="there")

def run():
    with w:
        w.do(waits)

async def below_a_loop():
    run()
"""

REPORT = """
try:
    {door}
except BaseException as error:
    print("raised", type(error).__name__)
    print("stopped", sorted(w.result.cancelled))
    raise
"""

DOORS = {"with": "run()", "with-below-a-loop": "asyncio.run(below_a_loop())"}


@pytest.mark.parametrize(
    ("number", "error"), [(signal.SIGINT, "KeyboardInterrupt"), (signal.SIGTERM, "SystemExit")], ids=["int", "term"]
)
@pytest.mark.parametrize("door", DOORS)
def test_a_signal_cancels_the_remote_task_and_reaches_the_caller(
    door: str, number: signal.Signals, error: str, tmp_path: Path
) -> None:
    with started_program(HEAD + REPORT.format(door=DOORS[door]), tmp_path) as program:
        wait_until((tmp_path / "running").exists, what="the task runs")
        program.send(number)
        code, output, _, seconds = program.end()
    assert seconds < PROMPT
    assert code == (-signal.SIGINT if number == signal.SIGINT else 128 + signal.SIGTERM)
    assert output.splitlines() == [f"raised {error}", "stopped ['waits']"]
    wait_until((tmp_path / "stopped").exists, what="the task is interrupted")


def test_after_ctrl_c_was_caught_the_next_weave_works(tmp_path: Path) -> None:
    source = HEAD + (
        """
try:
    run()
except KeyboardInterrupt:
    with weave(environment="there", base=1) as w:
        @w.do
        def more(base):
            return base + 1
    print("then", w.result.more)
"""
    )
    with started_program(source, tmp_path) as program:
        wait_until((tmp_path / "running").exists, what="the task runs")
        program.send(signal.SIGINT)
        code, output, errors, _ = program.end()
    assert (code, errors) == (0, "")
    assert output.splitlines()[-1] == "then 2"
