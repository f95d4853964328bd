"""Tasks in worker processes: what they may do there, and what happens when something goes wrong."""

import asyncio
import logging
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import wove
from tests.support import stdio as tasks
from tests.support.stdio import Session, alive, until
from wove.errors import ConfigurationError, DeliveryOrphanedError, SerializationError

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def _shut_down() -> Iterator[None]:
    yield
    wove.shutdown()


def script(tmp_path: Path, source: str) -> list[str]:
    """Write a program and return the command that runs it."""
    path = tmp_path / "worker.py"
    path.write_text(textwrap.dedent(source))
    return [sys.executable, str(path)]


def kill(worker: int) -> None:
    """Kill a worker and wait until it cannot read any more."""
    os.kill(worker, signal.SIGKILL)
    until(lambda: not alive(worker))


# Running tasks.


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


# Side by side.


def test_synchronous_tasks_run_side_by_side_up_to_the_number_of_threads() -> None:
    with Session(threads=4) as session:
        runs = [session.start(tasks.meet, place="four", parties=4) for _ in range(4)]
        assert sorted(session.result(run_id) for run_id in runs) == [0, 1, 2, 3]


def test_no_more_tasks_run_at_a_time_than_there_are_threads(tmp_path: Path) -> None:
    with Session(threads=2) as session:
        go_on = str(tmp_path / "go")
        first = [session.start(tasks.wait_for_file, path=go_on) for _ in range(2)]
        for run_id in first:
            session.wait_for(run_id, "task_started")
        third = session.start(tasks.pid)
        Path(go_on).touch()
        session.result(third)
        assert all(session.final(run_id)["type"] == "task_result" for run_id in first)


def test_coroutines_need_no_threads() -> None:
    async def meet_on_loop(parties: int) -> int:
        barrier = tasks.__dict__.setdefault("loop_barrier", asyncio.Barrier(parties))
        async with asyncio.timeout(10):
            return int(await barrier.wait())

    with Session(threads=1) as session:
        runs = [session.start(meet_on_loop, parties=40) for _ in range(40)]
        assert sorted(session.result(run_id) for run_id in runs) == list(range(40))


def test_another_process_starts_when_every_other_one_is_busy(tmp_path: Path) -> None:
    go_on = str(tmp_path / "go")
    with Session(processes=3) as session:
        assert len({session.run(tasks.pid) for _ in range(5)}) == 1
        runs = [session.start(tasks.wait_for_file, path=go_on) for _ in range(6)]
        for run_id in runs:
            session.wait_for(run_id, "task_started")
        Path(go_on).touch()
        pids = [session.result(run_id) for run_id in runs]
        assert sorted(pids.count(pid) for pid in set(pids)) == [2, 2, 2]


def test_heartbeats_go_on_while_a_synchronous_task_computes() -> None:
    def compute(seconds: float) -> int:
        deadline, turns = time.monotonic() + seconds, 0
        while time.monotonic() < deadline:
            turns += 1
        return turns

    with Session() as session:
        run_id = session.start(compute, seconds=1.0, delivery={"delivery_heartbeat_seconds": 0.3})
        session.wait_for(run_id, "heartbeat", count=4)
        assert session.result(run_id) > 0


def test_no_heartbeat_comes_without_being_asked_for() -> None:
    with Session() as session:
        run_id = session.start(_sleep, seconds=0.3)
        session.final(run_id)
        assert [event["type"] for event in session.events(run_id)] == ["task_started", "task_result"]


def _sleep(seconds: float) -> None:
    time.sleep(seconds)


# What tasks do to stdin, stdout and processes.


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


# Workers that die.


def test_a_task_that_exits_the_process_fails_with_the_exit_code() -> None:
    def leave() -> None:
        print("last words", file=sys.stderr)
        os._exit(3)

    with Session() as session:
        error = session.failure(session.start(leave))
        assert isinstance(error, DeliveryOrphanedError)
        assert error.exit_code == 3
        assert "Environment 'jobs'" in str(error)
        assert "task 'work'" in str(error)
        assert "exited with code 3" in str(error)
        assert "last words" in str(error)


def test_a_worker_that_is_killed_is_named_with_the_signal_and_replaced(tmp_path: Path) -> None:
    with Session() as session:
        worker = session.run(tasks.pid)
        run_id = session.start(tasks.wait_for_file, path=str(tmp_path / "never"))
        session.wait_for(run_id, "task_started")
        os.kill(worker, signal.SIGKILL)
        error = session.failure(run_id)
        assert isinstance(error, DeliveryOrphanedError)
        assert "SIGKILL" in str(error)
        assert error.exit_code == -signal.SIGKILL
        assert session.run(tasks.pid) != worker


def test_a_worker_that_dies_fails_its_own_runs_only(tmp_path: Path) -> None:
    go_on = str(tmp_path / "go")
    with Session(processes=2) as session:
        runs = [session.start(tasks.touch_and_wait, started=str(tmp_path / name), go_on=go_on) for name in "ab"]
        for run_id in runs:
            session.wait_for(run_id, "task_started")
        until(lambda: bool((tmp_path / "a").exists() and (tmp_path / "a").read_text()))
        os.kill(int((tmp_path / "a").read_text()), signal.SIGKILL)
        assert isinstance(session.failure(runs[0]), DeliveryOrphanedError)
        Path(go_on).touch()
        assert session.result(runs[1]) != int((tmp_path / "a").read_text())


def test_tasks_that_a_dead_worker_had_not_begun_run_in_the_next_one(tmp_path: Path) -> None:
    with Session(threads=2) as session:
        begun = [session.start(tasks.wait_for_file, path=str(tmp_path / "never")) for _ in range(2)]
        for run_id in begun:
            session.wait_for(run_id, "task_started")
        waiting = [session.start(tasks.echo, value=number) for number in range(20)]
        session.start(tasks.echo, value=0)
        until(lambda: len(_workers()) == 1)
        os.kill(_workers()[0], signal.SIGKILL)
        assert [type(session.failure(run_id)) for run_id in begun] == [DeliveryOrphanedError] * 2
        assert [session.result(run_id) for run_id in waiting] == list(range(20))


def _workers() -> list[int]:
    """The live worker processes of this one."""
    children = [
        int(pid) for task in Path("/proc/self/task").iterdir() for pid in (task / "children").read_text().split()
    ]
    return [pid for pid in children if alive(pid) and b"stdio_worker" in Path(f"/proc/{pid}/cmdline").read_bytes()]


def _crash(marks: str, times: int) -> int:
    count = len(os.listdir(marks))
    Path(marks, str(count)).touch()
    if count < times:
        os.kill(os.getpid(), signal.SIGKILL)
    return count


def test_a_run_that_is_to_be_requeued_begins_once_more(tmp_path: Path) -> None:
    requeue = {"delivery_orphan_policy": "requeue"}
    with Session() as session:
        assert session.result(session.start(_crash, marks=str(tmp_path), times=1, delivery=requeue)) == 1
        run_id = session.start(_crash, marks=str(tmp_path), times=10, delivery=requeue)
        assert isinstance(session.failure(run_id), DeliveryOrphanedError)
        assert len(os.listdir(tmp_path)) == 4


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


def test_a_worker_that_was_killed_while_idle_fails_nothing() -> None:
    with Session() as session:
        for _ in range(5):
            kill(session.run(tasks.pid))


def test_only_the_last_lines_of_stderr_are_kept() -> None:
    def chatter() -> None:
        for number in range(5000):
            print(f"line {number} " + "x" * 2000, file=sys.stderr)
        os._exit(1)

    with Session() as session:
        error = session.failure(session.start(chatter))
        assert "line 4999" in str(error)
        assert "line 4000" not in str(error)
        assert len(str(error)) < 20_000


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


# Commands that cannot work.


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


# Workers of others.

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


# Cancelling.


def test_a_running_coroutine_is_cancelled(tmp_path: Path) -> None:
    async def wait(started: str, path: str) -> None:
        try:
            os.close(os.open(started, os.O_CREAT))
            await asyncio.sleep(60)
        finally:
            os.close(os.open(path, os.O_CREAT))

    with Session() as session:
        run_id = session.start(wait, started=str(tmp_path / "started"), path=str(tmp_path / "cleaned up"))
        until((tmp_path / "started").exists)
        session.cancel(run_id)
        assert session.final(run_id)["type"] == "task_cancelled"
        assert (tmp_path / "cleaned up").exists()


def test_a_running_synchronous_task_is_interrupted_and_its_process_kept(tmp_path: Path) -> None:
    def wait(started: str, path: str) -> None:
        try:
            Path(started).touch()
            time.sleep(60)
        finally:
            Path(path).touch()

    with Session() as session:
        worker = session.run(tasks.pid)
        run_id = session.start(wait, started=str(tmp_path / "started"), path=str(tmp_path / "cleaned up"))
        until((tmp_path / "started").exists)
        session.cancel(run_id)
        assert session.final(run_id)["type"] == "task_cancelled"
        assert (tmp_path / "cleaned up").exists()
        assert session.run(tasks.pid) == worker


def _defy(started: str) -> None:
    Path(started).touch()
    while True:
        try:
            time.sleep(60)
        except BaseException:
            continue


def test_a_task_that_defies_its_cancel_loses_its_process(tmp_path: Path) -> None:
    with Session(threads=1) as session:
        worker = session.run(tasks.pid)
        stuck = session.start(_defy, started=str(tmp_path / "started"))
        until((tmp_path / "started").exists)
        waiting = session.start(tasks.pid)
        session.cancel(stuck)
        assert session.final(stuck)["type"] == "task_cancelled"
        assert session.result(waiting) != worker
        until(lambda: not alive(worker))


def test_a_task_that_defies_its_cancel_does_not_take_others_along(tmp_path: Path) -> None:
    go_on = tmp_path / "go"
    with Session(threads=2) as session:
        worker = session.run(tasks.pid)
        stuck = session.start(_defy, started=str(tmp_path / "started"))
        other = session.start(tasks.wait_for_file, path=str(go_on))
        session.wait_for(other, "task_started")
        until((tmp_path / "started").exists)
        session.cancel(stuck)
        # New tasks do not go to a process that is about to end.
        until(lambda: session.run(tasks.pid) != worker)
        go_on.touch()
        assert session.result(other) == worker
        assert session.final(stuck)["type"] == "task_cancelled"


def test_a_task_that_has_not_begun_is_cancelled_at_once(tmp_path: Path) -> None:
    with Session(threads=1) as session:
        running = session.start(tasks.wait_for_file, path=str(tmp_path / "go"))
        session.wait_for(running, "task_started")
        waiting = session.start(tasks.pid)
        session.cancel(waiting)
        assert session.final(waiting)["type"] == "task_cancelled"
        assert len(session.events(running)) == 1
        (tmp_path / "go").touch()
        session.result(running)


def test_cancelling_what_has_ended_does_nothing() -> None:
    with Session() as session:
        run_id = session.start(tasks.pid)
        worker = session.result(run_id)
        session.cancel(run_id)
        assert session.run(tasks.pid) == worker
        assert session.final(run_id)["type"] == "task_result"


# What cannot travel.


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


# Ends.


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
    assert _descriptors() == before
    until(lambda: set(threading.enumerate()) <= threads)
    assert not any(alive(pid) for pid in pids)
    assert _workers() == []


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
    assert _workers() == []


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
