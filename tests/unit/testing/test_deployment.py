"""A worker as the kit starts and ends it."""

import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from wove.backend.admission import RETRY_VARIABLE
from wove.testing import WorkerProcess
from wove.testing.stage import poll_until

SERVING = "import pathlib, sys, time; pathlib.Path(sys.argv[1]).touch(); time.sleep(60)"
WITH_CHILD = """
import pathlib, subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
pathlib.Path(sys.argv[1]).write_text(str(child.pid))
time.sleep(60)
"""


@pytest.fixture
def ready(tmp_path: Path) -> Path:
    return tmp_path / "ready"


@pytest.fixture
def worker(ready: Path) -> Iterator[WorkerProcess]:
    worker = WorkerProcess([sys.executable, "-c", SERVING, str(ready)], ready=ready.exists)
    yield worker
    worker.close()


def exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    # A killed child that nobody has waited for is still listed.
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"


def test_it_is_started_once_and_is_ready_then(worker: WorkerProcess, ready: Path) -> None:
    worker.ensure()
    assert ready.exists()
    first = worker.pid
    worker.ensure()
    assert worker.pid == first


def test_a_killed_worker_is_gone_and_replaced(worker: WorkerProcess) -> None:
    worker.ensure()
    first = worker.pid
    worker.kill()
    assert not worker.running
    worker.ensure()
    assert worker.pid != first
    assert worker.running


def test_what_the_worker_has_started_is_killed_with_it(ready: Path) -> None:
    worker = WorkerProcess([sys.executable, "-c", WITH_CHILD, str(ready)], ready=lambda: bool(_text(ready)))
    worker.ensure()
    child = int(_text(ready))
    worker.close()
    poll_until(lambda: not exists(child), seconds=5.0, what="the child is gone")


def _text(path: Path) -> str:
    return path.read_text() if path.exists() else ""


def test_after_a_termination_another_worker_is_started(worker: WorkerProcess) -> None:
    worker.ensure()
    first = worker.pid
    worker.terminate()
    worker.ensure()
    assert worker.pid != first
    assert not exists(first)


def test_a_worker_that_fails_to_start_shows_what_it_printed() -> None:
    worker = WorkerProcess([sys.executable, "-c", "print('no broker'); raise SystemExit(3)"], ready=lambda: False)
    with pytest.raises(RuntimeError, match=r"ended with exit code 3. Its output:\nno broker"):
        worker.ensure()
    worker.close()


def test_a_worker_that_is_never_ready_is_ended() -> None:
    worker = WorkerProcess([sys.executable, "-c", "import time; time.sleep(60)"], ready=lambda: False, seconds=0.1)
    began = time.monotonic()
    with pytest.raises(RuntimeError, match="was not ready in time"):
        worker.ensure()
    assert not worker.running
    assert time.monotonic() - began < 5.0
    worker.close()


def test_variables_are_added_to_those_of_this_process() -> None:
    worker = WorkerProcess([sys.executable, "-c", "import os; print(os.environ['ACME'])"], env={"ACME": "anvil"})
    worker.ensure()
    poll_until(lambda: "anvil" in worker.output(), seconds=10.0, what="the variable was printed")
    worker.close()


@pytest.mark.parametrize(("given", "expected"), [({}, "25"), ({RETRY_VARIABLE: "90"}, "90")])
def test_a_worker_does_not_wait_for_the_weave_of_an_earlier_scenario_for_long(
    monkeypatch: pytest.MonkeyPatch, given: dict[str, str], expected: str
) -> None:
    monkeypatch.delenv(RETRY_VARIABLE, raising=False)
    program = f"import os; print('seconds:', os.environ[{RETRY_VARIABLE!r}])"
    worker = WorkerProcess([sys.executable, "-c", program], env=given)
    worker.ensure()
    poll_until(lambda: f"seconds: {expected}\n" in worker.output(), seconds=10.0, what="the variable was printed")
    worker.close()
