"""Commands that cannot work: each fails its tasks with the reason, and is not tried for ever."""

from pathlib import Path

import pytest

from tests.support import stdio as tasks
from tests.support.stdio import Session, script
from wove.errors import ConfigurationError, DeliveryOrphanedError

pytestmark = pytest.mark.usefixtures("shut_down")


def test_a_program_that_does_not_exist_fails_at_the_start() -> None:
    with (
        pytest.raises(ConfigurationError, match=r"Environment 'jobs'.*no-such-program.*No such file"),
        Session(command="no-such-program --fast"),
    ):
        pass


def test_a_program_that_may_not_be_executed_fails_at_the_start(tmp_path: Path) -> None:
    (tmp_path / "program").write_text("not executable")
    with pytest.raises(ConfigurationError, match="Permission denied"), Session(command=[tmp_path / "program"]):
        pass


def test_a_program_that_ends_at_once_fails_every_task_and_is_not_tried_for_ever(tmp_path: Path) -> None:
    starts = tmp_path / "starts"
    command = script(
        tmp_path, f"open({str(starts)!r}, 'a').write('x'); import sys; sys.exit('the database is missing')"
    )
    with Session(command=command) as session:
        runs = [session.start(tasks.pid) for _ in range(30)]
        errors = [session.failure(run_id) for run_id in runs]
        assert all("exited with code 1" in str(error) for error in errors)
        assert all("the database is missing" in str(error) for error in errors)
        assert len(starts.read_text()) <= 3


def test_a_worker_that_is_killed_while_it_starts_is_replaced(tmp_path: Path) -> None:
    command = script(
        tmp_path,
        f"""
        import os, pathlib, signal
        mark = pathlib.Path({str(tmp_path / "mark")!r})
        if not mark.exists():
            mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        from wove.stdio_worker import main
        main()
        """,
    )
    with Session(command=command) as session:
        runs = [session.start(lambda number: number, number=number) for number in range(10)]
        assert [session.result(run_id) for run_id in runs] == list(range(10))


def test_a_worker_that_always_dies_before_it_begins_is_not_replaced_for_ever(tmp_path: Path) -> None:
    starts = tmp_path / "starts"
    hello = '{"type": "hello", "framing": "wove-1"}'
    command = script(tmp_path, f"open({str(starts)!r}, 'a').write('x'); print({hello!r}, flush=True)")
    with Session(command=command) as session:
        runs = [session.start(tasks.pid) for _ in range(20)]
        assert all("exited with code 0" in str(session.failure(run_id)) for run_id in runs)
        assert len(starts.read_text()) <= 12


def test_a_program_that_closes_its_output_is_replaced(tmp_path: Path) -> None:
    command = script(tmp_path, "import os, time; os.close(1); time.sleep(60)")
    with Session(command=command) as session:
        assert isinstance(session.failure(session.start(tasks.pid)), DeliveryOrphanedError)
