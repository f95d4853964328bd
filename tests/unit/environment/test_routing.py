"""The runtime that routes tasks to environments, with executors on the real background loop."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

import pytest

from tests.support.executors import ScriptedExecutor
from wove.backend.loop import io_loop, on_io_loop, shutdown
from wove.environment import ExecutorRuntime, LocalEnvironmentExecutor
from wove.errors import (
    ConfigurationError,
    DeliveryOrphanedError,
    DeliveryTimeoutError,
    EnvironmentExecutionError,
    UnknownEnvironmentError,
    UnknownExecutorError,
)


def runtime(run_config: Mapping[str, Any] | None = None, **definitions: Mapping[str, Any]) -> ExecutorRuntime:
    return ExecutorRuntime(definitions, run_config or {})


def count(obj: str) -> int:
    return len(obj)


async def run(at: ExecutorRuntime, function: Callable[..., Any] = count, **info: Any) -> Any:
    return await at.run_task(task_name="report", task_func=function, task_args={"obj": "abc"}, task_info=info)


async def sent(executor: ScriptedExecutor, kind: str = "run_task", count: int = 1) -> str:
    return await asyncio.wait_for(on_io_loop(executor.until_sent(kind, count)), 30)


def emit(executor: ScriptedExecutor, kind: str, run_id: str, **fields: Any) -> None:
    io_loop().loop.call_soon_threadsafe(lambda: executor.emit(kind, run_id, **fields))


class Lateness:
    """How late the current loop has run a timer, at worst."""

    def __init__(self) -> None:
        self.worst = 0.0
        self._task = asyncio.create_task(self._measure())

    async def _measure(self) -> None:
        while True:
            before = time.perf_counter()
            await asyncio.sleep(0.005)
            self.worst = max(self.worst, time.perf_counter() - before - 0.005)

    def stop(self) -> None:
        self._task.cancel()


@pytest.fixture
async def executor() -> ScriptedExecutor:
    return ScriptedExecutor()


@pytest.fixture
async def at(executor: ScriptedExecutor) -> AsyncIterator[ExecutorRuntime]:
    running = runtime(jobs={"executor": executor})
    await running.start()
    yield running
    await running.stop()


async def test_it_runs_standalone_with_a_local_environment() -> None:
    at = ExecutorRuntime({"default": {"executor": "local"}}, run_config={})
    await at.start()
    assert await at.run_task(task_name="t", task_func=lambda: 42, task_args={}, task_info={}) == 42
    await at.stop()


@pytest.mark.parametrize("value", [None, "local", LocalEnvironmentExecutor()])
def test_local_environments_are_known(value: object) -> None:
    assert runtime(here={"executor": value}).is_local_environment("here")


def test_a_remote_environment_is_not_local() -> None:
    assert not runtime(jobs={"executor": "stdio"}).is_local_environment("jobs")


async def test_an_unknown_environment_is_a_name_error_that_suggests_the_right_one() -> None:
    at = runtime(jobs={"executor": "local"}, mails={"executor": "local"})
    with pytest.raises(UnknownEnvironmentError, match="Did you mean 'jobs'"):
        await run(at, environment="job")


async def test_without_a_name_a_task_runs_in_default_or_in_the_only_environment() -> None:
    assert await run(runtime(only={"executor": "local"})) == 3
    assert await run(runtime(other={"executor": "local"}, default={"executor": "local"})) == 3
    with pytest.raises(UnknownEnvironmentError):
        await run(runtime(one={"executor": "local"}, two={"executor": "local"}))


def test_a_definition_that_is_no_mapping_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="Environment 'jobs'"):
        runtime(jobs="stdio")  # type: ignore[arg-type]


async def test_an_unknown_executor_fails_the_start_and_names_the_environment() -> None:
    at = runtime(jobs={"executor": "celry"})
    with pytest.raises(UnknownExecutorError, match=r"Environment 'jobs'.*'celry'.*Did you mean 'celery'"):
        await at.start()


def test_a_config_that_is_no_mapping_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="Environment 'jobs': executor_config"):
        runtime(jobs={"executor": "stdio", "executor_config": "redis://secret"})


async def test_a_result_comes_back(at: ExecutorRuntime, executor: ScriptedExecutor) -> None:
    task = asyncio.create_task(run(at))
    run_id = await sent(executor)
    emit(executor, "task_result", run_id, result=3)
    assert await task == 3


async def test_an_exception_comes_back_as_the_very_object(at: ExecutorRuntime, executor: ScriptedExecutor) -> None:
    task = asyncio.create_task(run(at))
    raised = ValueError("bad")
    emit(executor, "task_error", await sent(executor), exception=raised)
    with pytest.raises(ValueError, match="bad") as caught:
        await task
    assert caught.value is raised


@pytest.mark.parametrize(
    "raised", [SystemExit(3), KeyboardInterrupt(), asyncio.CancelledError(), StopIteration(1), GeneratorExit()]
)
async def test_an_exception_that_ends_more_than_a_task_is_wrapped(
    at: ExecutorRuntime, executor: ScriptedExecutor, raised: BaseException
) -> None:
    task = asyncio.create_task(run(at))
    emit(executor, "task_error", await sent(executor), exception=raised)
    with pytest.raises(EnvironmentExecutionError, match=type(raised).__name__):
        await task


async def test_environments_start_at_the_same_time() -> None:
    together = asyncio.Barrier(3)

    class Meeting(ScriptedExecutor):
        async def start(self, **settings: Any) -> None:
            async with asyncio.timeout(30):
                await together.wait()
            await super().start(**settings)

    executors = {f"jobs-{n}": Meeting() for n in range(3)}
    at = ExecutorRuntime({name: {"executor": each} for name, each in executors.items()}, {})
    await at.start()
    await at.stop()
    assert [(each.starts, each.stops) for each in executors.values()] == [(1, 1)] * 3


async def test_if_one_environment_cannot_start_none_stays_started() -> None:
    good, bad = ScriptedExecutor(), ScriptedExecutor()
    bad.start_failure = ConnectionError("broker is gone")
    at = runtime(good={"executor": good}, bad={"executor": bad})
    with pytest.raises(ConnectionError, match="broker is gone"):
        await at.start()
    assert (good.starts, good.stops) in ((1, 1), (0, 0))
    await at.stop()


async def test_a_start_that_hangs_does_not_hold_up_the_failure_of_another() -> None:
    class Hanging(ScriptedExecutor):
        cancelled = False

        async def start(self, **settings: Any) -> None:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                Hanging.cancelled = True
                raise

    bad = ScriptedExecutor()
    bad.start_failure = ConnectionError("broker is gone")
    at = runtime(hanging={"executor": Hanging()}, bad={"executor": bad})
    with pytest.raises(ConnectionError):
        await asyncio.wait_for(at.start(), 30)
    assert Hanging.cancelled


async def test_starting_twice_starts_once(executor: ScriptedExecutor) -> None:
    at = runtime(jobs={"executor": executor})
    await at.start()
    await at.start()
    await at.stop()
    assert (executor.starts, executor.stops) == (1, 1)


async def test_it_can_be_started_again_after_a_stop(executor: ScriptedExecutor) -> None:
    executor.auto = True
    at = runtime(jobs={"executor": executor})
    for _ in range(2):
        await at.start()
        assert await run(at) == {"obj": "abc"}
        await at.stop()


async def test_an_environment_may_be_added_later_once(executor: ScriptedExecutor) -> None:
    executor.auto = True
    at = runtime(here={"executor": "local"})
    await at.start()
    await asyncio.gather(*(at.ensure_environment("jobs", {"executor": executor}) for _ in range(3)))
    assert executor.starts == 1
    assert await run(at, environment="jobs") == {"obj": "abc"}
    await at.stop()


async def test_a_task_starts_its_environment_if_need_be(executor: ScriptedExecutor) -> None:
    executor.auto = True
    at = runtime(jobs={"executor": executor})
    assert await run(at) == {"obj": "abc"}
    await at.stop()
    assert executor.stops == 1


async def test_two_runtimes_share_an_instance(executor: ScriptedExecutor) -> None:
    executor.auto = True
    first, second = runtime(jobs={"executor": executor}), runtime(jobs={"executor": executor})
    await asyncio.gather(first.start(), second.start())
    assert executor.starts == 1
    await first.stop()
    assert await run(second) == {"obj": "abc"}
    await second.stop()
    assert executor.stops == 1


async def test_the_executor_gets_weave_settings_and_definition_options(executor: ScriptedExecutor) -> None:
    at = runtime({"debug": True}, jobs={"executor": executor, "executor_config": {"url": "x"}, "retries": 2})
    await at.start()
    assert executor.config == {"url": "x"}
    assert executor.run_config == {"debug": True, "retries": 2}
    await at.stop()


async def test_options_of_the_task_win_over_those_of_the_definition(executor: ScriptedExecutor) -> None:
    executor.auto = True
    at = runtime(jobs={"executor": executor, "delivery_timeout": 50.0, "delivery_heartbeat_seconds": 5.0})
    await run(at, delivery_timeout=20.0)
    assert executor.commands[0]["delivery"] == {"delivery_timeout": 20.0, "delivery_heartbeat_seconds": 5.0}
    await at.stop()


async def test_a_bad_grace_fails_the_start(executor: ScriptedExecutor) -> None:
    at = runtime(jobs={"executor": executor, "executor_config": {"dead_job_grace": "soon"}})
    with pytest.raises(ConfigurationError, match="dead_job_grace"):
        await at.start()
    assert executor.starts == 0


async def test_no_more_runs_are_in_flight_than_allowed(executor: ScriptedExecutor) -> None:
    at = runtime(crowded={"executor": executor, "delivery_max_in_flight": 2})
    await at.start()
    tasks = [asyncio.create_task(run(at)) for _ in range(5)]
    for number in range(2, 6):
        await sent(executor, count=number)
        # Whatever was to be sent besides has had the time.
        await on_io_loop(asyncio.sleep(0.01))
        runs = executor.of_type("run_task")
        assert len(runs) == number
        emit(executor, "task_result", runs[number - 2], result=3)
    emit(executor, "task_result", executor.of_type("run_task")[-1], result=3)
    assert await asyncio.gather(*tasks) == [3] * 5
    await at.stop()


async def test_the_time_of_a_run_that_waits_for_its_turn_does_not_run(executor: ScriptedExecutor) -> None:
    at = runtime(queued={"executor": executor, "delivery_max_in_flight": 1, "delivery_timeout": 5.0})
    await at.start()
    first, second = asyncio.create_task(run(at)), asyncio.create_task(run(at))
    run_id = await sent(executor)
    await asyncio.sleep(0.2)
    emit(executor, "task_result", run_id, result=1)
    run_id = await sent(executor, count=2)
    deadlines = [frame["deadline"] for frame in executor.commands]
    assert deadlines[1] - deadlines[0] >= 0.15
    emit(executor, "task_result", run_id, result=2)
    assert sorted(await asyncio.gather(first, second)) == [1, 2]
    await at.stop()


async def test_equal_keys_of_two_weaves_run_once(executor: ScriptedExecutor) -> None:
    first, second = runtime(jobs={"executor": executor}), runtime(jobs={"executor": executor})
    await first.start()
    await second.start()
    tasks = [asyncio.create_task(run(at, delivery_idempotency_key="k-{obj}")) for at in (first, second)]
    run_id = await sent(executor)
    await asyncio.sleep(0.05)
    emit(executor, "task_result", run_id, result=3)
    assert await asyncio.gather(*tasks) == [3, 3]
    assert len(executor.of_type("run_task")) == 1
    await first.stop()
    await second.stop()


async def test_cancelling_a_task_cancels_its_run_without_waiting(
    at: ExecutorRuntime, executor: ScriptedExecutor
) -> None:
    task = asyncio.create_task(run(at))
    run_id = await sent(executor)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await sent(executor, "cancel_task") == run_id


async def test_cancelling_with_require_ack_waits_for_the_confirmation(
    at: ExecutorRuntime, executor: ScriptedExecutor
) -> None:
    task = asyncio.create_task(run(at, delivery_cancel_mode="require_ack"))
    run_id = await sent(executor)
    task.cancel()
    await sent(executor, "cancel_task")
    await asyncio.sleep(0.05)
    assert not task.done()
    emit(executor, "task_cancelled", run_id)
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_second_cancellation_waits_no_longer(at: ExecutorRuntime, executor: ScriptedExecutor) -> None:
    task = asyncio.create_task(run(at, delivery_cancel_mode="require_ack"))
    run_id = await sent(executor)
    task.cancel()
    await sent(executor, "cancel_task")
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(task, 2)
    emit(executor, "task_cancelled", run_id)


async def test_stopping_orphans_what_is_in_flight(executor: ScriptedExecutor) -> None:
    at = runtime(jobs={"executor": executor})
    await at.start()
    task = asyncio.create_task(run(at))
    run_id = await sent(executor)
    await at.stop()
    with pytest.raises(DeliveryOrphanedError):
        await task
    assert executor.of_type("cancel_task") == [run_id]
    assert executor.stops == 1


async def test_stopping_one_runtime_leaves_the_runs_of_another_alone(executor: ScriptedExecutor) -> None:
    first, second = runtime(jobs={"executor": executor}), runtime(jobs={"executor": executor})
    await first.start()
    await second.start()
    task = asyncio.create_task(run(second))
    run_id = await sent(executor)
    await first.stop()
    emit(executor, "task_result", run_id, result=3)
    assert await task == 3
    await second.stop()


async def test_a_shutdown_orphans_what_is_in_flight_and_the_next_start_works(executor: ScriptedExecutor) -> None:
    at = runtime(jobs={"executor": executor})
    await at.start()
    task = asyncio.create_task(run(at))
    await sent(executor)
    await asyncio.to_thread(shutdown)
    with pytest.raises(DeliveryOrphanedError, match="shut down"):
        await task
    with pytest.raises(DeliveryOrphanedError, match="shut down"):
        await run(at)
    await at.stop()
    executor.auto = True
    await at.start()
    assert await run(at) == {"obj": "abc"}
    await at.stop()


class Blocking(ScriptedExecutor):
    """Breaks the rules: its send holds up the background loop."""

    async def send(self, frame: dict[str, Any]) -> None:
        if frame["type"] == "run_task":
            time.sleep(2.5)  # noqa: ASYNC251


async def test_a_send_that_blocks_the_background_loop_does_not_hold_up_timeout_nor_weave() -> None:
    at = runtime(jobs={"executor": Blocking()})
    await at.start()
    lateness = Lateness()
    before = time.monotonic()
    with pytest.raises(DeliveryTimeoutError, match="background loop does not respond"):
        await run(at, delivery_timeout=0.3)
    await at.stop()
    assert time.monotonic() - before < 2.0
    lateness.stop()
    assert lateness.worst < 0.2
    # The next test must not meet the blocked loop.
    await asyncio.wait_for(on_io_loop(asyncio.sleep(0)), 30)


async def test_slow_starts_and_stops_do_not_block_the_caller_s_loop() -> None:
    class Slow(ScriptedExecutor):
        async def start(self, **settings: Any) -> None:
            time.sleep(0.3)  # noqa: ASYNC251
            await super().start(**settings)

        async def stop(self) -> None:
            time.sleep(0.3)  # noqa: ASYNC251

    at = runtime(jobs={"executor": Slow()})
    lateness = Lateness()
    await at.start()
    await at.stop()
    lateness.stop()
    assert lateness.worst < 0.2
