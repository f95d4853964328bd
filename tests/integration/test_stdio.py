"""Tasks in worker processes: what they find there, what comes back, and weaves of them."""

import asyncio
import logging
import os
import signal
import sys
import threading
from pathlib import Path

import pytest

import wove
from tests.support import stdio as tasks
from tests.support.stdio import Session, until

pytestmark = pytest.mark.usefixtures("shut_down")


def test_a_synchronous_task_returns_its_result() -> None:
    with Session() as session:
        assert session.run(lambda a, b: a + b, a=1, b=2) == 3


def test_a_coroutine_returns_its_result() -> None:
    async def add(a: int, b: int) -> int:
        await asyncio.sleep(0)
        return a + b

    with Session() as session:
        assert session.run(add, a=1, b=2) == 3


def test_tasks_run_in_another_process_that_is_kept() -> None:
    with Session() as session:
        first = session.run(tasks.pid)
    with Session() as session:
        assert first != os.getpid()
        assert session.run(tasks.pid) == first


def test_different_settings_have_different_processes() -> None:
    with Session() as one, Session(env={"WOVE_TEST": "1"}) as other:
        assert one.run(tasks.pid) != other.run(tasks.pid)


def test_a_start_is_told_before_the_result() -> None:
    with Session() as session:
        run_id = session.start(tasks.pid)
        session.final(run_id)
        assert [event["type"] for event in session.events(run_id)] == ["task_started", "task_result"]


def test_the_start_of_a_long_task_is_told_while_it_runs(tmp_path: Path) -> None:
    with Session() as session:
        run_id = session.start(tasks.wait_for_file, path=str(tmp_path / "go"))
        session.wait_for(run_id, "task_started")
        assert len(session.events(run_id)) == 1
        (tmp_path / "go").touch()
        session.result(run_id)


def test_environment_and_directory_are_those_of_the_configuration(tmp_path: Path) -> None:
    def where() -> tuple[str, str]:
        return os.getcwd(), os.environ["WOVE_TEST"]

    with Session(cwd=tmp_path, env={"WOVE_TEST": "yes"}) as session:
        assert session.run(where) == (str(tmp_path), "yes")


def test_the_worker_finds_the_modules_that_this_process_finds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "only_here.py").write_text("def answer():\n    return 42\n")
    monkeypatch.syspath_prepend(tmp_path)
    import only_here  # type: ignore[import-not-found]

    with Session() as session:
        assert session.run(only_here.answer) == 42


def test_a_result_may_have_any_size() -> None:
    with Session() as session:
        large = session.run(lambda: b"x" * (64 << 20))
        assert len(large) == 64 << 20
        assert session.run(tasks.echo, value=large) == large


def test_many_large_results_at_once_all_arrive() -> None:
    with Session() as session:
        runs = [session.start(lambda number: bytes([number]) * 3_000_000, number=number) for number in range(12)]
        assert [session.result(run_id)[-1] for run_id in runs] == list(range(12))


def test_a_burst_of_tasks_all_arrive() -> None:
    with Session(processes=2) as session:
        runs = [session.start(tasks.echo, value=number) for number in range(500)]
        assert [session.result(run_id) for run_id in runs] == list(range(500))


def test_a_worker_keeps_nothing_of_a_function_that_may_have_changed() -> None:
    seen: list[int] = []

    def add(number: int) -> list[int]:
        seen.append(number)
        return seen

    with Session() as session:
        assert session.run(add, number=1) == [1]
        assert session.run(add, number=2) == [2]
        seen.append(10)
        assert session.run(add, number=3) == [10, 3]


def test_a_warning_that_a_task_logs_comes_back_as_an_event() -> None:
    def complain() -> None:
        logging.getLogger("app").warning("disk %s is full", "a")

    with Session() as session:
        run_id = session.start(complain)
        session.final(run_id)
        (log,) = [event for event in session.events(run_id) if event["type"] == "log"]
        assert (log["message"], log["level"]) == ("disk a is full", logging.WARNING)


def test_a_warning_of_another_thread_is_printed(capfd: pytest.CaptureFixture[str]) -> None:
    def complain() -> None:
        thread = threading.Thread(target=logging.getLogger("app").warning, args=("from the background",))
        thread.start()
        thread.join()

    with Session() as session:
        run_id = session.start(complain)
        session.final(run_id)
        assert [event for event in session.events(run_id) if event["type"] == "log"] == []
        until(lambda: "from the background" in capfd.readouterr().err)


def test_a_task_can_use_asyncio_and_signals_in_the_main_thread() -> None:
    def main_thread_work() -> str:
        signal.signal(signal.SIGUSR1, lambda *_: None)
        return asyncio.run(asyncio.sleep(0, "done"))

    with Session() as session:
        assert session.run(main_thread_work) == "done"


def test_the_worker_loads_no_networking_code() -> None:
    def loaded() -> list[str]:
        return [name for name in ("httpx", "starlette", "uvicorn", "grpc", "websockets") if name in sys.modules]

    with Session() as session:
        assert session.run(loaded) == []


# Weaves.


def test_a_weave_maps_over_worker_processes() -> None:
    from wove.runtime import runtime

    wove.config(environments={"jobs": {"executor": "stdio", "executor_config": {"processes": 2}}})
    try:
        with wove.weave() as w:

            @w.do(range(100), environment="jobs")
            def square(item: int) -> int:
                return item * item

            @w.do
            def total(square: list[int]) -> int:
                return sum(square)

        assert w.result.total == sum(number * number for number in range(100))
    finally:
        runtime.reset()


def test_a_retry_after_a_crash_gets_a_fresh_worker(tmp_path: Path) -> None:
    from wove.runtime import runtime

    def crash_once(path: str) -> str:
        if Path(path).exists():
            return "second attempt"
        Path(path).touch()
        os.kill(os.getpid(), signal.SIGKILL)
        return "never"

    wove.config(environments={"jobs": {"executor": "stdio"}})
    try:
        with wove.weave(path=str(tmp_path / "mark")) as w:
            w.do(environment="jobs", retries=1)(crash_once)
        assert w.result.final == "second attempt"
    finally:
        runtime.reset()
