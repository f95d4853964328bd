"""Values on their way to a worker and back: those that cannot travel are named, and odd ones arrive."""

import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from tests.support import stdio as tasks
from tests.support.stdio import Session
from wove.errors import SerializationError

pytestmark = pytest.mark.usefixtures("shut_down")


def test_an_argument_that_cannot_be_pickled_is_named() -> None:
    with Session() as session:
        error = session.failure(session.start(tasks.echo, value={"lock": threading.Lock()}))
        assert isinstance(error, SerializationError)
        assert "the arguments of task 'work'" in str(error)
        assert "lock" in str(error)
        assert session.run(tasks.echo, value=1) == 1


def test_a_callable_that_cannot_be_pickled_is_named() -> None:
    lock = threading.Lock()
    with Session() as session:
        error = session.failure(session.start(lambda: lock))
        assert isinstance(error, SerializationError)
        assert "the callable of task 'work'" in str(error)


def test_a_result_that_cannot_be_pickled_is_named() -> None:
    with Session() as session:
        error = session.failure(session.start(lambda: {"lock": threading.Lock()}))
        assert isinstance(error, SerializationError)
        assert "'lock'" in str(error)
        assert "work" in str(error)


class Stubborn(Exception):
    """Cannot be rebuilt from its arguments."""

    def __init__(self, *, code: int) -> None:
        super().__init__()
        self.code = code

    def __str__(self) -> str:
        return f"stubborn {self.code}"


def test_an_exception_that_cannot_be_rebuilt_keeps_its_words() -> None:
    def fail() -> None:
        raise Stubborn(code=7)

    with Session() as session:
        event = session.final(session.start(fail))
        assert "exception" not in event
        assert (event["error"]["kind"], event["error"]["message"]) == ("Stubborn", "stubborn 7")
        assert "raise Stubborn(code=7)" in event["error"]["traceback"]


def test_odd_values_arrive_unchanged() -> None:
    cycle: list[Any] = [float("inf"), "\ud800", 10**500, -0.0, b"\0\n", {("a", 1): {2}}, NotImplemented]
    cycle.append(cycle)
    with Session() as session:
        back = session.run(tasks.echo, value=cycle)
        assert back[:-1] == cycle[:-1]
        assert back[-1] is back
        assert str(session.run(tasks.echo, value=float("nan"))) == "nan"


def test_a_module_that_the_worker_does_not_have_is_named_and_siblings_live(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Session() as session:
        worker = session.run(tasks.pid)
        (tmp_path / "later_added.py").write_text("def answer():\n    return 42\n")
        monkeypatch.syspath_prepend(tmp_path)
        import later_added  # type: ignore[import-not-found]

        event = session.final(session.start(later_added.answer))
        assert event["type"] == "task_error"
        assert "later_added" in event["error"]["message"]
        assert session.run(tasks.pid) == worker


def test_a_result_that_cannot_be_rebuilt_here_fails_its_run(tmp_path: Path) -> None:
    def make(folder: str) -> Any:
        Path(folder, "only_in_worker.py").write_text("class Thing:\n    pass\n")
        sys.path.insert(0, folder)
        import only_in_worker  # type: ignore[import-not-found]

        return only_in_worker.Thing()

    with Session() as session:
        event = session.final(session.start(make, folder=str(tmp_path)))
        assert event["type"] == "task_error"
        assert "only_in_worker" in event["error"]["message"]
