"""Weaves whose few tasks all run elsewhere: Wove's background loop runs them, while their thread waits."""

import asyncio
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

import wove
from tests.support.executors import ScriptedExecutor
from tests.support.waiting import wait_until
from wove import weave
from wove.errors import DeliveryOrphanedError, DeliveryTimeoutError, EnvironmentExecutionError, TaskTimeoutError
from wove.runtime import RuntimeConfig


@pytest.fixture
def there(configuration: RuntimeConfig) -> Iterator[ScriptedExecutor]:
    executor = ScriptedExecutor(auto=True)
    use(executor)
    yield executor
    wove.shutdown()


def use(executor: ScriptedExecutor) -> None:
    there = {"executor": executor}
    wove.config(default_environment="here", environments={"here": {"executor": "local"}, "there": there})


def remote_result(**options: Any) -> Any:
    with weave(environment="there", item=1) as w:

        @w.do(**options)
        def echo(item: int) -> int:
            return item

    return w.result.echo


@contextmanager
def running(results: list[Any]) -> Iterator[threading.Thread]:
    """Run a weave in another thread, and leave what becomes of it in `results`."""

    def run() -> None:
        try:
            results.append(remote_result())
        except BaseException as error:
            results.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield thread
    finally:
        thread.join(10.0)


def background_thread() -> threading.Thread:
    return next(thread for thread in threading.enumerate() if thread.name == "wove-io")


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit, asyncio.CancelledError])
def test_whatever_a_remote_task_raises_the_next_weave_works(there: ScriptedExecutor, kind: type[BaseException]) -> None:
    assert remote_result() == {"item": 1}
    thread = background_thread()

    class Raising(ScriptedExecutor):
        async def send(self, frame: dict[str, Any]) -> None:
            if frame["type"] == "run_task":
                self.emit("task_error", frame["run_id"], exception=kind("from there"))

    use(Raising())
    with pytest.raises(EnvironmentExecutionError, match=kind.__name__):
        remote_result()
    use(there)
    assert remote_result() == {"item": 1}
    assert background_thread() is thread


def test_a_shutdown_ends_the_weave_with_what_has_happened(there: ScriptedExecutor) -> None:
    there.auto = False
    results: list[Any] = []
    with running(results):
        wait_until(lambda: there.of_type("run_task") != [], what="the task is sent")
        wove.shutdown()
    (error,) = results
    assert isinstance(error, DeliveryOrphanedError)


def test_weaves_begun_while_wove_is_shut_down_again_and_again_all_come_to_an_end(there: ScriptedExecutor) -> None:
    over = threading.Event()
    results: list[Any] = []

    def run_many() -> None:
        for _ in range(50):
            try:
                results.append(remote_result())
            except Exception as error:
                results.append(error)
        over.set()

    thread = threading.Thread(target=run_many, daemon=True)
    thread.start()
    while not over.wait(0.005):
        wove.shutdown()
    thread.join(10.0)
    assert len(results) == 50
    assert {type(result) for result in results} <= {dict, DeliveryOrphanedError}


def test_a_weave_inside_of_a_stopped_task_is_stopped_with_it(there: ScriptedExecutor) -> None:
    there.auto = False
    with weave() as w:

        @w.do
        def outer() -> Any:
            return remote_result()

        @w.do
        def fails() -> None:
            wait_until(lambda: there.of_type("run_task") != [], what="the inner task is sent")
            raise ValueError("stop")

    with pytest.raises(ValueError, match="stop"):
        _ = w.result.fails
    wait_until(lambda: there.of_type("cancel_task") == there.of_type("run_task"), what="the inner task is cancelled")


async def test_a_weave_below_a_running_loop_blocks_it_until_its_end(there: ScriptedExecutor) -> None:
    assert remote_result() == {"item": 1}


class Blocking(ScriptedExecutor):
    """Breaks the rules: its send holds up the background loop."""

    def __init__(self) -> None:
        super().__init__(auto=True)
        self.released = threading.Event()

    async def send(self, frame: dict[str, Any]) -> None:
        if frame["type"] == "run_task":
            self.released.wait(30.0)
        await super().send(frame)


@pytest.mark.parametrize(
    ("options", "expected"),
    [({"delivery_timeout": 0.2}, DeliveryTimeoutError), ({"timeout": 0.2}, TaskTimeoutError)],
    ids=["delivery_timeout", "timeout"],
)
def test_a_task_with_a_limit_ends_in_time_though_an_executor_blocks_the_background_loop(
    there: ScriptedExecutor, options: dict[str, Any], expected: type[Exception]
) -> None:
    executor = Blocking()
    use(executor)
    before = time.monotonic()
    try:
        with pytest.raises(expected):
            remote_result(**options)
        assert time.monotonic() - before < 20.0
    finally:
        executor.released.set()
    use(there)
    assert remote_result() == {"item": 1}
