"""What a worker and its owner say to each other: JSON lines of foreign workers, frames and JSON lines of our own."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import stdio as tasks
from tests.support.stdio import Session, script

pytestmark = pytest.mark.usefixtures("shut_down")

FOREIGN = """
import json, sys
for line in sys.stdin:
    command = json.loads(line)
    if command["type"] == "run_task":
        about = {"run_id": command["run_id"], "task_id": command["task_id"]}
        for event in EVENTS:
            sys.stdout.write(event if isinstance(event, str) else json.dumps({**about, **event}))
            sys.stdout.write("\\n")
        sys.stdout.flush()
"""


def foreign(tmp_path: Path, *events: object) -> list[str]:
    """The command of a worker that knows JSON lines only and answers every task with the same events."""
    return script(tmp_path, FOREIGN.replace("EVENTS", repr(events)))


def test_a_foreign_worker_speaks_json_lines(tmp_path: Path) -> None:
    events = {"type": "task_started"}, {"type": "heartbeat"}, {"type": "task_result", "result": {"rows": [1, None]}}
    with Session(command=foreign(tmp_path, *events)) as session:
        run_id = session.start(tasks.echo, value=1)
        assert session.result(run_id) == {"rows": [1, None]}
        assert [event["type"] for event in session.events(run_id)] == ["task_started", "heartbeat", "task_result"]


def test_a_foreign_worker_may_fail_a_task_in_plain_json(tmp_path: Path) -> None:
    failure = {"kind": "OutOfPaper", "message": "tray 2", "retryable": True, "source": "task"}
    with Session(command=foreign(tmp_path, {"type": "task_error", "error": failure})) as session:
        assert session.final(session.start(tasks.pid))["error"] == failure


def test_a_line_that_is_no_frame_is_only_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    junk = ["Loading model...", "[1, 2]", '{"type": "task_result"}', "{", ""]
    with Session(command=foreign(tmp_path, *junk, {"type": "task_result", "result": 1})) as session:
        assert session.run(tasks.pid) == 1
    assert "no frame: Loading model" in caplog.text


def test_an_event_of_an_unknown_run_is_ignored(tmp_path: Path) -> None:
    other = {"type": "task_result", "run_id": "other", "result": 0}
    with Session(command=foreign(tmp_path, other, {"type": "task_result", "result": 1})) as session:
        assert session.run(tasks.pid) == 1


def test_a_value_that_cannot_be_rebuilt_fails_its_run(tmp_path: Path) -> None:
    with Session(command=foreign(tmp_path, {"type": "task_result", "result_pickle": "bm8gcGlja2xl"})) as session:
        assert session.final(session.start(tasks.pid))["type"] == "task_error"


def test_wove_s_own_worker_behind_a_shell_speaks_frames() -> None:
    with Session(command=f"sh -c 'exec {sys.executable} -m wove.stdio_worker'") as session:
        assert session.run(lambda: b"x" * 3_000_000) == b"x" * 3_000_000
        assert session.run(tasks.echo, value=2) == 2


def test_wove_s_own_worker_speaks_json_lines_where_nobody_greets_it() -> None:
    command = ["env", "-u", "WOVE_STDIO_FRAMING", sys.executable, "-m", "wove.stdio_worker"]

    async def twice(value: int) -> int:
        return 2 * value

    with Session(command=command, threads=3) as session:
        assert session.run(lambda: b"x" * 3_000_000) == b"x" * 3_000_000
        assert session.run(twice, value=2) == 4
        run_id = session.start(tasks.echo, value=2)
        assert session.result(run_id) == 2
        assert [event["type"] for event in session.events(run_id)] == ["task_started", "task_result"]
        event = session.final(session.start(_raise, message="broken"))
        assert repr(event["exception"]) == "LookupError('broken')"


def _raise(message: str) -> None:
    raise LookupError(message)


def test_the_worker_answers_what_it_does_not_know() -> None:
    finished = subprocess.run(
        [sys.executable, "-m", "wove.stdio_worker"],
        input='{"type": "run_taks", "run_id": "a", "task_id": "b"}\nnonsense\n',
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert '"run_id":"a"' in finished.stdout
    assert "run_taks" in finished.stdout
    assert "no valid JSON" in finished.stderr
    assert finished.returncode == 0
