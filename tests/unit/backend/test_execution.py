"""One execution of one task: exactly one final event, whatever the task does, and bytes for whatever it returned."""

import asyncio
import contextvars
import functools
import platform
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from wove.backend.execution import TaskExecution, current_run, is_coroutine_function
from wove.backend.final_events import final_event_bytes
from wove.backend.frames import deserialize_frame, frame_from_bytes
from wove.backend.types import EventFrame
from wove.serialization import dumps, encode

Execute = Callable[[TaskExecution], EventFrame]


def _frame(function: Callable[..., Any], **args: Any) -> dict[str, Any]:
    return {"type": "run_task", "run_id": "run-1", "task_id": "report", "callable": function, "args": args}


def _pickled(function: Callable[..., Any], **args: Any) -> dict[str, Any]:
    return {
        "run_id": "run-1",
        "task_id": "report",
        "callable_pickle": encode(dumps(function, what="it")),
        "args_pickle": encode(dumps(args, what="it")),
    }


@pytest.fixture(params=["run", "arun"])
def execute(request: pytest.FixtureRequest) -> Execute:
    if request.param == "run":
        return lambda execution: execution.run()
    return lambda execution: asyncio.run(execution.arun())


def _result(execute: Execute, function: Callable[..., Any], **args: Any) -> Any:
    event = execute(TaskExecution(_frame(function, **args)))
    assert event["type"] == "task_result", event
    return event["result"]


def _error(execute: Execute, function: Callable[..., Any], **args: Any) -> EventFrame:
    event = execute(TaskExecution(_frame(function, **args)))
    assert event["type"] == "task_error", event
    return event


async def _double(number: int) -> int:
    await asyncio.sleep(0)
    return number * 2


class Callables:
    async def method(self, number: int) -> int:
        return number * 2

    async def __call__(self, number: int) -> int:
        return number * 2


@pytest.mark.parametrize(
    "function",
    [
        lambda number: number * 2,
        _double,
        lambda number: _double(number),
        functools.partial(_double),
        functools.partial(lambda number: _double(number)),
        Callables().method,
        Callables(),
    ],
    ids=["sync", "coroutine", "returns awaitable", "partial", "partial of lambda", "method", "callable object"],
)
def test_every_kind_of_callable_gives_its_value(execute: Execute, function: Callable[..., Any]) -> None:
    assert _result(execute, function, number=21) == 42


def test_the_final_event_bears_the_ids(execute: Execute) -> None:
    event = execute(TaskExecution(_frame(lambda: None)))
    assert event == {"type": "task_result", "run_id": "run-1", "task_id": "report", "result": None}


def test_a_pickled_task_is_unpickled_and_executed(execute: Execute) -> None:
    event = execute(TaskExecution(_pickled(lambda text: text * 2, text="ab" * 200_000)))
    assert event["result"] == "ab" * 400_000


def test_a_synchronous_callable_runs_outside_of_any_loop(execute: Execute) -> None:
    async def inner() -> str:
        return "from a loop of the task's own"

    def task() -> str:
        with pytest.raises(RuntimeError):
            asyncio.get_running_loop()
        return asyncio.run(inner())

    assert _result(execute, task) == "from a loop of the task's own"


def test_run_executes_a_synchronous_callable_in_the_calling_thread() -> None:
    assert TaskExecution(_frame(threading.get_ident)).run()["result"] == threading.get_ident()


def test_a_coroutine_can_be_run_synchronously_inside_of_a_loop() -> None:
    async def inside() -> EventFrame:
        return TaskExecution(_frame(_double, number=4)).run()

    assert asyncio.run(inside())["result"] == 8


async def test_the_loop_goes_on_while_a_synchronous_callable_blocks() -> None:
    released = threading.Event()
    waiting = asyncio.ensure_future(TaskExecution(_frame(released.wait, timeout=20)).arun())
    await asyncio.sleep(0.01)
    released.set()
    assert (await waiting)["result"] is True


def test_context_variables_of_the_caller_are_seen(execute: Execute) -> None:
    variable = contextvars.ContextVar("variable", default="unset")
    token = variable.set("set by the caller")
    try:
        assert _result(execute, variable.get) == "set by the caller"
        assert _result(execute, lambda: _read(variable)) == "set by the caller"
    finally:
        variable.reset(token)


async def _read(variable: contextvars.ContextVar[str]) -> str:
    return variable.get()


def test_a_task_can_ask_which_run_it_is(execute: Execute) -> None:
    frame = _frame(current_run) | {
        "task_name": "report",
        "attempt": 2,
        "deadline": 17.5,
        "trace": {"traceparent": "00"},
    }
    run = execute(TaskExecution(frame))["result"]
    assert (run.run_id, run.task_name, run.attempt, run.deadline) == ("run-1", "report", 2, 17.5)
    assert run.trace == {"traceparent": "00"}
    assert current_run() is None


def test_a_coroutine_can_ask_which_run_it_is(execute: Execute) -> None:
    async def ask() -> str | None:
        run = current_run()
        return run.run_id if run else None

    assert _result(execute, ask) == "run-1"


@pytest.mark.parametrize("raise_it", ["directly", "in a coroutine"])
@pytest.mark.parametrize("kind", [ValueError, StopIteration, KeyError, MemoryError], ids=lambda kind: kind.__name__)
def test_an_exception_travels_with_its_description(execute: Execute, kind: type[Exception], raise_it: str) -> None:
    error = kind("bad")

    async def raising() -> None:
        raise error

    def task() -> Any:
        if raise_it == "in a coroutine":
            return raising()
        raise error

    event = _error(execute, task)
    # PEP 479: a coroutine turns a StopIteration into a RuntimeError.
    turned = isinstance(error, StopIteration) and raise_it == "in a coroutine"
    assert type(event["exception"]) is (RuntimeError if turned else type(error))
    assert event["error"]["kind"] == type(event["exception"]).__name__
    assert event["error"]["source"] == "task"
    assert "test_execution" in event["error"]["traceback"]
    assert turned or "execution.py" not in event["error"]["traceback"].replace("test_execution.py", "")


@pytest.mark.parametrize("raise_it", ["directly", "in a coroutine"])
@pytest.mark.parametrize(
    "error",
    [SystemExit(3), KeyboardInterrupt(), GeneratorExit(), BaseException("base")],
    ids=lambda e: type(e).__name__,
)
def test_what_would_end_a_process_is_told_but_not_sent(execute: Execute, error: BaseException, raise_it: str) -> None:
    async def raising() -> None:
        raise error

    def task() -> Any:
        if raise_it == "in a coroutine":
            return raising()
        raise error

    event = _error(execute, task)
    assert event["error"]["kind"] == type(error).__name__
    assert "exception" not in event


def test_a_task_that_cancels_itself_is_cancelled(execute: Execute) -> None:
    async def task() -> None:
        raise asyncio.CancelledError

    assert execute(TaskExecution(_frame(task)))["type"] == "task_cancelled"


def test_a_call_with_wrong_arguments_is_the_task_s_failure(execute: Execute) -> None:
    event = _error(execute, _double, wrong=1)
    assert event["error"]["kind"] == "TypeError"
    assert event["error"]["source"] == "task"


def test_a_callable_from_a_missing_module_names_the_module_and_the_versions(execute: Execute) -> None:
    pickle_of_missing = b"cnot_installed_here\nfunction\n."
    frame = _pickled(print) | {"callable_pickle": encode(pickle_of_missing), "python": "3.99.1"}
    event = execute(TaskExecution(frame))
    assert event["error"]["source"] == "transport"
    message = event["error"]["message"]
    assert f"'not_installed_here' is not installed here, for {sys.executable} on {platform.node()}" in message
    assert "Python 3.99.1" in event["error"]["message"]
    assert f"this is Python {sys.version.split()[0]}" in event["error"]["message"]


@pytest.mark.parametrize("damaged", ["not base64!", encode(b"no pickle"), 5, None], ids=str)
def test_damaged_arguments_are_an_error_of_the_run(execute: Execute, damaged: object) -> None:
    event = execute(TaskExecution(_pickled(print) | {"args_pickle": damaged}))
    assert (event["type"], event["error"]["source"]) == ("task_error", "transport")


def test_a_pickle_that_exits_is_an_error_of_the_run(execute: Execute) -> None:
    exits = encode(b"csys\nexit\n(I3\ntR.")
    event = execute(TaskExecution(_pickled(print) | {"args_pickle": exits}))
    assert (event["type"], event["error"]["kind"]) == ("task_error", "SystemExit")


def test_something_that_cannot_be_called_is_an_error_of_the_run(execute: Execute) -> None:
    event = execute(TaskExecution(_frame("no function")))  # type: ignore[arg-type]
    assert "the callable is a str" in event["error"]["message"]


class Stoppable:
    """Stops an execution from another thread as soon as its task says that it runs."""

    def __init__(self) -> None:
        self.running = threading.Event()

    def event(self, execute: Execute, function: Callable[..., Any]) -> EventFrame:
        execution = TaskExecution(_frame(function))

        def stop() -> None:
            assert self.running.wait(20)
            execution.stop()

        stopper = threading.Thread(target=stop)
        stopper.start()
        try:
            return execute(execution)
        finally:
            stopper.join(20)


def test_a_running_synchronous_task_is_stopped(execute: Execute) -> None:
    stoppable = Stoppable()

    def task() -> None:
        stoppable.running.set()
        while True:
            pass

    assert stoppable.event(execute, task)["type"] == "task_cancelled"


def test_a_sleeping_task_in_the_main_thread_is_stopped_at_once() -> None:
    stoppable = Stoppable()

    def task() -> None:
        stoppable.running.set()
        time.sleep(60)

    began = time.monotonic()
    assert stoppable.event(lambda execution: execution.run(), task)["type"] == "task_cancelled"
    assert time.monotonic() - began < 20


@pytest.mark.parametrize("wrap", [lambda coroutine: coroutine, lambda coroutine: lambda: coroutine()])
def test_a_running_coroutine_is_cancelled(execute: Execute, wrap: Callable[[Any], Any]) -> None:
    stoppable = Stoppable()
    seen = []

    async def task() -> None:
        stoppable.running.set()
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            seen.append("cancelled")
            raise

    assert stoppable.event(execute, wrap(task))["type"] == "task_cancelled"
    assert seen == ["cancelled"]


def test_a_task_that_ends_otherwise_when_stopped_counts_as_cancelled(execute: Execute) -> None:
    stoppable = Stoppable()

    async def task() -> None:
        stoppable.running.set()
        try:
            await asyncio.sleep(60)
        finally:
            raise OSError("while cleaning up")

    assert stoppable.event(execute, task)["type"] == "task_cancelled"


def test_a_task_that_ignores_the_stop_keeps_its_result(execute: Execute) -> None:
    stoppable = Stoppable()

    async def task() -> str:
        stoppable.running.set()
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            return "finished all the same"
        return "never"

    event = stoppable.event(execute, task)
    assert (event["type"], event.get("result")) == ("task_result", "finished all the same")


@pytest.mark.parametrize("function", [lambda: 1 / 0, _double], ids=["sync", "coroutine"])
def test_a_task_that_is_stopped_before_it_starts_does_not_start(execute: Execute, function: Callable[..., Any]) -> None:
    execution = TaskExecution(_frame(function))
    execution.stop()
    assert execute(execution)["type"] == "task_cancelled"


def test_stopping_after_the_end_does_nothing(execute: Execute) -> None:
    execution = TaskExecution(_frame(lambda: 1))
    assert execute(execution)["result"] == 1
    execution.stop()


async def test_cancelling_arun_cancels_the_coroutine_and_is_raised() -> None:
    started, seen = asyncio.Event(), []

    async def task() -> None:
        started.set()
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            seen.append("cancelled")
            raise

    running = asyncio.ensure_future(TaskExecution(_frame(task)).arun())
    await started.wait()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert seen == ["cancelled"]


async def test_cancelling_arun_stops_the_thread_of_a_synchronous_callable() -> None:
    started, stopped = threading.Event(), threading.Event()

    def task() -> None:
        started.set()
        try:
            while True:
                time.sleep(0.001)
        finally:
            stopped.set()

    running = asyncio.ensure_future(TaskExecution(_frame(task)).arun())
    assert await asyncio.to_thread(started.wait, 20)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert await asyncio.to_thread(stopped.wait, 20)


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (_double, True),
        (functools.partial(functools.partial(_double), 1), True),
        (Callables().method, True),
        (Callables(), True),
        (Callables, False),
        (lambda: _double(1), False),
        (print, False),
    ],
)
def test_coroutine_functions_are_told_from_others(function: Callable[..., Any], expected: bool) -> None:
    assert is_coroutine_function(function) is expected


def _sent(event: EventFrame, **options: Any) -> dict[str, Any]:
    return deserialize_frame(frame_from_bytes(final_event_bytes(event, **options)))


def _returned(value: Any) -> EventFrame:
    return TaskExecution(_frame(lambda: value)).run()


class Unpicklable:
    def __reduce__(self) -> str:
        raise RuntimeError("stays here")


class ExitsWhenPickled:
    def __reduce__(self) -> str:
        raise SystemExit("pickling me ends the process")


@pytest.mark.parametrize(
    "value", [threading.Lock(), (number for number in "ab"), Unpicklable(), {"deep": [threading.Lock()]}]
)
def test_a_result_that_cannot_be_pickled_becomes_an_error_that_names_the_task(value: object) -> None:
    frame = _sent(_returned(value))
    assert frame["type"] == "task_error"
    assert frame["error"]["kind"] == "SerializationError"
    assert "result of task 'report'" in str(frame["exception"])


def test_the_error_names_the_part_that_cannot_be_pickled() -> None:
    message = _sent(_returned({"rows": [1, threading.Lock()]}))["error"]["message"]
    assert "'_thread.lock'" in message or "'lock'" in message
    assert "['rows'][1]" in message


def test_a_result_that_exits_while_it_is_pickled_becomes_an_error() -> None:
    assert _sent(_returned(ExitsWhenPickled()))["error"]["kind"] == "SystemExit"


def test_values_come_back_unchanged() -> None:
    value: dict[str, Any] = {"surrogate": "\ud800", "big": 10**5000, "infinity": float("-inf"), "bytes": b"\x00\xff"}
    value["self"] = value
    sent = _sent(_returned(value))["result"]
    assert sent["self"] is sent
    assert {name: sent[name] for name in ("surrogate", "big", "infinity", "bytes")} == {
        name: value[name] for name in ("surrogate", "big", "infinity", "bytes")
    }
    nan = _sent(_returned(float("nan")))["result"]
    assert nan != nan


def test_a_result_over_the_limit_becomes_an_error_with_both_sizes() -> None:
    frame = _sent(_returned("x" * 5000), limit=4000)
    assert frame["error"]["kind"] == "PayloadTooLargeError"
    assert "the limit is 4,000 bytes" in frame["error"]["message"]
    assert frame["exception"].size > 5000


def test_results_as_json_are_plain_values() -> None:
    data = frame_from_bytes(final_event_bytes(_returned({"rows": [1, 2.5, None]}), pickles=False))
    assert data["result"] == {"rows": [1, 2.5, None]}
    assert not any(name.endswith("_pickle") for name in data)


def test_a_result_that_is_not_json_becomes_a_plain_error_where_pickles_are_refused() -> None:
    data = frame_from_bytes(final_event_bytes(_returned({1, 2}), pickles=False))
    assert data["type"] == "task_error"
    assert "results='json'" in data["error"]["message"]
    assert not any(name.endswith("_pickle") for name in data)


def test_an_exception_that_cannot_be_rebuilt_is_sent_in_words() -> None:
    class NeedsTwo(Exception):
        def __init__(self, first: str, second: str) -> None:
            super().__init__(f"{first} and {second}")

    def task() -> None:
        raise NeedsTwo("one", "two")

    frame = _sent(TaskExecution(_frame(task)).run())
    assert "exception" not in frame
    assert (frame["error"]["kind"], frame["error"]["message"]) == ("NeedsTwo", "one and two")
    assert "in task" in frame["error"]["traceback"]
