"""What delivery promises, provoked through real weaves, and where a worker matters, with worker processes."""

import asyncio
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import wove
from tests.support.adapters import (
    Ledger,
    MemoryAdapter,
    PolledAdapter,
    ProcessAdapter,
    TerminatingAdapter,
)
from wove import BackendAdapterEnvironmentExecutor, DeliveryOrphanedError, DeliveryTimeoutError, weave
from wove.backend.loop import io_loop
from wove.environment.orders import ACK_SECONDS
from wove.errors import OptionError, TaskTimeoutError
from wove.integrations.base import BackendAdapter, JobState
from wove.runtime import runtime


class Jobs:
    """The environment ``jobs`` over one adapter class.

    Attributes:
        ledger: what the adapter did.
    """

    def __init__(self) -> None:
        self.ledger = Ledger()

    def configure(self, adapter_class: type[BackendAdapter], *, settings: Any = None, **options: Any) -> None:
        executor = BackendAdapterEnvironmentExecutor("jobs", adapter_class=adapter_class)
        config = {"ledger": self.ledger, **(settings or {})}
        wove.config(environments={"jobs": {"executor": executor, "executor_config": config, **options}})


@pytest.fixture
def jobs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Jobs]:
    monkeypatch.chdir(tmp_path)
    runtime.reset()
    made = Jobs()
    yield made
    runtime.reset()
    wove.shutdown()
    made.ledger.end_processes()


def run(function: Callable[..., Any], **options: Any) -> Any:
    """Run one task in the environment ``jobs`` and return its result."""
    with weave() as w:
        w.do(environment="jobs", **options)(function)
    return w.result.final


class Away:
    """A weave in a thread, so that the test can act while it runs."""

    def __init__(self, function: Callable[..., Any], **options: Any) -> None:
        self.result: Any = None
        self.error: BaseException | None = None
        self.seconds = 0.0
        self._thread = threading.Thread(target=self._run, args=(function, options))
        self._thread.start()

    def _run(self, function: Callable[..., Any], options: dict[str, Any]) -> None:
        before = time.monotonic()
        try:
            self.result = run(function, **options)
        except BaseException as error:
            self.error = error
        self.seconds = time.monotonic() - before

    def wait(self, seconds: float = 60.0) -> "Away":
        self._thread.join(seconds)
        assert not self._thread.is_alive()
        return self


def eventually(condition: Callable[[], object], seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.01)


def contents(path: Path) -> str:
    return path.read_text() if path.exists() else ""


def writer(path: Path, *, seconds: float) -> Callable[[], Any]:
    """A coroutine function that writes ``started``, waits, and writes ``ended``, or ``stopped`` if it is cancelled."""
    target = str(path)

    async def wait() -> str:
        import asyncio

        def note(text: str) -> None:
            with open(target, "a") as file:
                file.write(text + "\n")

        note("started")
        try:
            await asyncio.sleep(seconds)
        except asyncio.CancelledError:
            note("stopped")
            raise
        note("ended")
        return "done"

    return wait


# Time limits.


def test_a_job_that_nobody_picks_up_times_out_and_is_cancelled(jobs: Jobs) -> None:
    jobs.configure(MemoryAdapter, delivery_timeout=0.3)
    jobs.ledger.execute = False
    with pytest.raises(DeliveryTimeoutError, match="no worker has started it"):
        run(lambda: 1)
    [run_id] = jobs.ledger.run_ids
    assert jobs.ledger.cancelled == [(run_id, f"job of {run_id}")]


def test_the_timeout_covers_the_running_of_the_task_too(jobs: Jobs, tmp_path: Path) -> None:
    jobs.configure(ProcessAdapter, delivery_timeout=3.0)
    with pytest.raises(DeliveryTimeoutError, match="it has started, but not finished"):
        run(writer(tmp_path / "log", seconds=60.0))


class HangingSubmit(MemoryAdapter):
    async def submit(self, payload: dict[str, Any], frame: dict[str, Any]) -> Any:
        await asyncio.Event().wait()


class BlockingSubmit(MemoryAdapter):
    async def submit(self, payload: dict[str, Any], frame: dict[str, Any]) -> Any:
        time.sleep(3.0)  # noqa: ASYNC251


@pytest.mark.parametrize("adapter_class", [HangingSubmit, BlockingSubmit])
def test_a_submit_that_hangs_or_blocks_times_out(jobs: Jobs, adapter_class: type[BackendAdapter]) -> None:
    jobs.configure(adapter_class, delivery_timeout=0.3)
    before = time.monotonic()
    with pytest.raises(DeliveryTimeoutError):
        run(lambda: 1)
    assert time.monotonic() - before < 2.5


async def test_a_submit_that_blocks_leaves_the_weave_s_loop_free(jobs: Jobs) -> None:
    jobs.configure(BlockingSubmit, delivery_timeout=1.0)
    ticks = 0
    ended = asyncio.Event()

    async def tick() -> None:
        nonlocal ticks
        while not ended.is_set():
            await asyncio.sleep(0.01)
            ticks += 1

    ticking = asyncio.create_task(tick())
    with pytest.raises(DeliveryTimeoutError):
        await one_task()
    ended.set()
    await ticking
    assert ticks >= 50


async def one_task() -> int:
    """Run one task in the environment ``jobs`` and return its result."""
    async with weave() as w:

        @w.do(environment="jobs")
        def answer() -> int:
            return 1

    result: int = w.result.answer
    return result


class HangingCancel(MemoryAdapter):
    async def cancel(self, run_id: str, submission: Any, frame: dict[str, Any]) -> None:
        await asyncio.Event().wait()


@pytest.mark.parametrize("adapter_class", [HangingCancel, MemoryAdapter])
def test_a_cancel_that_hangs_or_raises_does_not_hide_the_timeout(
    jobs: Jobs, adapter_class: type[BackendAdapter]
) -> None:
    jobs.configure(adapter_class, delivery_timeout=0.3)
    jobs.ledger.execute = False
    jobs.ledger.cancel_failure = ConnectionError("broker is gone")
    away = Away(lambda: 1).wait()
    assert isinstance(away.error, DeliveryTimeoutError)
    assert away.seconds < 8.0


# Heartbeats.


def sleeper(path: Path) -> Callable[[], str]:
    """A function that says which process runs it, and sleeps there as long as the file ``go`` is missing."""
    target = str(path)

    def sleep() -> str:
        import os
        import time

        with open(target, "a") as file:
            file.write(f"{os.getpid()}\n")
        while not os.path.exists(target + ".go"):
            time.sleep(0.02)
        return "done"

    return sleep


def test_a_killed_worker_is_noticed_by_its_heartbeats(jobs: Jobs, tmp_path: Path) -> None:
    jobs.configure(ProcessAdapter, delivery_heartbeat_seconds=2.0)
    log = tmp_path / "log"
    away = Away(sleeper(log))
    eventually(lambda: contents(log))
    killed = time.monotonic()
    jobs.ledger.processes[0].kill()
    assert isinstance(away.wait().error, DeliveryTimeoutError)
    assert time.monotonic() - killed < 5.0


@pytest.mark.slow
def test_a_killed_worker_is_noticed_without_any_option(jobs: Jobs, tmp_path: Path) -> None:
    jobs.configure(ProcessAdapter)
    log = tmp_path / "log"
    away = Away(sleeper(log))
    eventually(lambda: contents(log))
    killed = time.monotonic()
    jobs.ledger.processes[0].kill()
    assert isinstance(away.wait().error, DeliveryTimeoutError)
    assert time.monotonic() - killed < 45.0


def test_a_busy_worker_with_heartbeats_is_left_alone(jobs: Jobs, tmp_path: Path) -> None:
    jobs.configure(ProcessAdapter, delivery_heartbeat_seconds=1.0)
    log = tmp_path / "log"
    away = Away(sleeper(log))
    eventually(lambda: contents(log))
    time.sleep(3.0)
    Path(f"{log}.go").touch()
    assert away.wait().result == "done"


def test_a_job_may_be_queued_longer_than_its_heartbeat(jobs: Jobs) -> None:
    jobs.configure(MemoryAdapter, delivery_heartbeat_seconds=0.3)
    jobs.ledger.execute = False
    away = Away(lambda: "done")
    eventually(lambda: jobs.ledger.payloads)
    time.sleep(1.0)
    adapter = jobs.ledger.adapters[0]
    assert isinstance(adapter, MemoryAdapter)
    adapter.execute(jobs.ledger.payloads[0])
    assert away.wait().result == "done"


# Attempts.


def test_an_attempt_that_timed_out_is_cancelled_before_the_next_one_starts(jobs: Jobs, tmp_path: Path) -> None:
    order: list[str] = []

    class Ordered(ProcessAdapter):
        async def submit(self, payload: dict[str, Any], frame: dict[str, Any]) -> Any:
            order.append(f"submit {payload['attempt']}")
            return await super().submit(payload, frame)

        async def cancel(self, run_id: str, submission: Any, frame: dict[str, Any]) -> None:
            await asyncio.sleep(0.2)
            await super().cancel(run_id, submission, frame)
            order.append("cancelled")

    jobs.configure(Ordered)
    with pytest.raises(TaskTimeoutError):
        run(writer(tmp_path / "log", seconds=60.0), timeout=2.0, retries=1)
    assert order == ["submit 1", "cancelled", "submit 2", "cancelled"]
    assert len(set(jobs.ledger.run_ids)) == 2


def test_the_late_answer_of_an_earlier_attempt_is_ignored(jobs: Jobs, tmp_path: Path) -> None:
    jobs.configure(MemoryAdapter)
    log = str(tmp_path / "log")

    def which() -> str:
        import os
        import time

        if not os.path.exists(log):
            open(log, "w").close()
            time.sleep(1.0)
            return "first"
        time.sleep(0.8)
        return "second"

    with weave() as w:
        w.do(environment="jobs", timeout=0.9, retries=1)(which)

        @w.do
        def seen(which: str) -> str:
            time.sleep(0.3)
            return which

    assert w.result.which == w.result.seen == "second"


def test_a_refused_submission_is_retried_as_a_new_run(jobs: Jobs) -> None:
    class Flaky(MemoryAdapter):
        async def submit(self, payload: dict[str, Any], frame: dict[str, Any]) -> Any:
            self.ledger.submit_failure = ConnectionError("broker is gone") if not self.ledger.payloads else None
            return await super().submit(payload, frame)

    jobs.configure(Flaky, retries=1)
    assert run(lambda: "done") == "done"
    assert len(set(jobs.ledger.run_ids)) == 2


# Giving up, and losing.


def test_a_running_worker_is_told_when_its_weave_gives_up(jobs: Jobs, tmp_path: Path) -> None:
    jobs.configure(ProcessAdapter, delivery_heartbeat_seconds=1.0)
    log = tmp_path / "log"
    with pytest.raises(TaskTimeoutError):
        run(writer(log, seconds=60.0), timeout=2.0)
    eventually(lambda: "stopped" in contents(log))


def test_require_ack_waits_until_the_worker_has_stopped(jobs: Jobs, tmp_path: Path) -> None:
    jobs.configure(TerminatingAdapter, delivery_cancel_mode="require_ack")
    log = tmp_path / "log"
    away = Away(writer(log, seconds=60.0), timeout=2.0).wait()
    assert isinstance(away.error, TaskTimeoutError)
    # Less than the bound: the worker has confirmed it.
    assert away.seconds < 2.0 + ACK_SECONDS
    assert jobs.ledger.processes[0].wait(30) != 0
    assert "ended" not in contents(log)


def test_require_ack_waits_a_few_seconds_at_most(jobs: Jobs) -> None:
    jobs.configure(MemoryAdapter, delivery_timeout=0.3, delivery_cancel_mode="require_ack")
    jobs.ledger.execute = False
    away = Away(lambda: 1).wait()
    assert isinstance(away.error, DeliveryTimeoutError)
    assert ACK_SECONDS <= away.seconds < ACK_SECONDS + 3.0


@pytest.mark.parametrize("receiver", ["stays", "goes"])
def test_detach_lets_a_running_task_end(jobs: Jobs, tmp_path: Path, receiver: str) -> None:
    jobs.configure(ProcessAdapter, delivery_orphan_policy="detach", delivery_heartbeat_seconds=0.6)
    log = tmp_path / "log"
    with pytest.raises(TaskTimeoutError):
        run(writer(log, seconds=3.0), timeout=1.5)
    assert contents(log).split() == ["started"]
    assert jobs.ledger.cancelled == []
    if receiver == "goes":
        wove.shutdown()
    eventually(lambda: "ended" in contents(log))
    assert "stopped" not in contents(log)


def test_fail_leaves_a_queued_job_in_the_backend_where_it_will_not_be_executed(jobs: Jobs, tmp_path: Path) -> None:
    jobs.configure(ProcessAdapter, delivery_orphan_policy="fail", delivery_timeout=0.3)
    jobs.ledger.execute = False
    log = tmp_path / "log"
    with pytest.raises(DeliveryTimeoutError):
        run(writer(log, seconds=0.0))
    assert jobs.ledger.cancelled == []
    adapter = jobs.ledger.adapters[0]
    assert isinstance(adapter, ProcessAdapter)
    adapter.execute(jobs.ledger.payloads[0])
    jobs.ledger.processes[0].wait(30)
    assert contents(log) == ""


def test_requeue_runs_a_lost_task_again_under_a_new_run_id(jobs: Jobs, tmp_path: Path) -> None:
    jobs.configure(ProcessAdapter, delivery_orphan_policy="requeue", delivery_heartbeat_seconds=1.5)
    log = tmp_path / "log"
    away = Away(sleeper(log))
    eventually(lambda: contents(log))
    jobs.ledger.processes[0].kill()
    eventually(lambda: len(contents(log).split()) == 2)
    Path(f"{log}.go").touch()
    assert away.wait().result == "done"
    first, second = jobs.ledger.run_ids
    assert first != second
    assert jobs.ledger.cancelled == [(first, f"job of {first}")]


def test_a_dead_job_fails_its_task_with_the_backend_s_words(jobs: Jobs) -> None:
    jobs.configure(PolledAdapter, settings={"dead_job_grace": 0.2})
    jobs.ledger.execute = False
    jobs.ledger.states["*"] = JobState("failed", exit_code=137, reason="OOMKilled")
    away = Away(lambda: 1).wait(10)
    assert isinstance(away.error, DeliveryOrphanedError)
    assert (away.error.state, away.error.exit_code, away.error.reason) == ("failed", 137, "OOMKilled")


def test_a_dead_job_is_retried_like_any_failure(jobs: Jobs) -> None:
    class DiesFirst(PolledAdapter):
        async def submit(self, payload: dict[str, Any], frame: dict[str, Any]) -> Any:
            self.ledger.execute = bool(self.ledger.payloads)
            if not self.ledger.payloads:
                self.ledger.states[payload["run_id"]] = JobState("gone")
            return await super().submit(payload, frame)

    jobs.configure(DiesFirst, settings={"dead_job_grace": 0.1}, retries=1)
    assert run(lambda: "done") == "done"


async def test_cancelling_the_caller_cancels_the_job_and_gives_everything_back(jobs: Jobs) -> None:
    jobs.configure(MemoryAdapter)
    assert run_quickly() == "done"
    before = len(os.listdir("/proc/self/fd"))
    jobs.ledger.execute = False

    task = asyncio.create_task(one_task())
    await asyncio.to_thread(eventually, lambda: len(jobs.ledger.payloads) == 2)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert [run_id for run_id, _ in jobs.ledger.cancelled] == jobs.ledger.run_ids[1:]
    assert len(os.listdir("/proc/self/fd")) <= before


def run_quickly() -> Any:
    """Run a weave in a thread, because the test has a loop running here."""
    return Away(lambda: "done").wait().result


def test_an_environment_that_cannot_start_takes_nothing_with_it(jobs: Jobs) -> None:
    good, bad = Ledger(), Ledger()
    bad.start_failure = ConnectionError("broker is gone")
    wove.config(
        environments={
            name: {
                "executor": BackendAdapterEnvironmentExecutor(name, adapter_class=MemoryAdapter),
                "executor_config": {"ledger": ledger},
            }
            for name, ledger in (("good", good), ("bad", bad))
        }
    )
    with pytest.raises(ConnectionError):
        in_both()
    assert good.payloads == []
    assert bad.closed == bad.adapters
    wove.shutdown()
    assert good.closed == good.adapters


def in_both() -> None:
    """Run a task in each of the environments ``good`` and ``bad``."""
    with weave() as w:

        @w.do(environment="good")
        def one() -> int:
            return 1

        @w.do(environment="bad")
        def two() -> int:
            return 2

    assert w.result.two == 2


# Keys and limits.


def test_a_key_of_several_items_runs_once_and_answers_all(jobs: Jobs, tmp_path: Path) -> None:
    jobs.configure(MemoryAdapter, delivery_idempotency_key="same-{item}")
    log = str(tmp_path / "log")

    def slow(item: int) -> int:
        import time

        with open(log, "a") as file:
            file.write("x")
        time.sleep(0.5)
        return item * 10

    with weave() as w:
        w.do([1, 1, 1, 2], environment="jobs")(slow)
    assert w.result.slow == [10, 10, 10, 20]
    assert contents(Path(log)) == "xx"
    assert {payload["delivery"]["delivery_idempotency_key"] for payload in jobs.ledger.payloads} == {"same-1", "same-2"}


def test_a_key_with_an_unknown_field_fails_its_task(jobs: Jobs) -> None:
    jobs.configure(MemoryAdapter, delivery_idempotency_key="{acount}")
    with pytest.raises(OptionError, match="'acount' that is no argument"):
        run(lambda account=1: account)
    assert jobs.ledger.payloads == []


def test_no_more_jobs_are_in_flight_than_allowed(jobs: Jobs) -> None:
    most = [0, 0]
    guard = threading.Lock()

    class Counting(MemoryAdapter):
        async def submit(self, payload: dict[str, Any], frame: dict[str, Any]) -> Any:
            with guard:
                most[0] += 1
                most[1] = max(most)
            return await super().submit(payload, frame)

    jobs.configure(Counting, delivery_max_in_flight=3)

    def item(number: int) -> int:
        time.sleep(0.02)
        with guard:
            most[0] -= 1
        return number

    # By reference, so that the worker's threads share this process's counter.
    globals()["counted_item"] = item
    item.__qualname__ = item.__name__ = "counted_item"
    with weave() as w:
        w.do(range(20), environment="jobs")(item)
    assert w.result.final == list(range(20))
    assert most[1] <= 3


def test_the_background_loop_is_not_the_weave_s(jobs: Jobs) -> None:
    jobs.configure(MemoryAdapter)
    assert run(lambda: "done") == "done"
    assert io_loop().loop.is_running()
