"""One execution of one task: exactly one final event, whatever the task does."""

import asyncio
import contextvars
import functools
import platform
import sys
import threading
from collections.abc import Callable
from typing import Any

import pytest

from tests.support.commands import frame_of
from tests.support.tasks import double_async
from tests.unit.backend.conftest import Execute
from wove.backend.execution import TaskExecution, current_run, is_coroutine_function
from wove.backend.types import EventFrame
from wove.serialization import dumps, encode


def _pickled(function: Callable[..., Any], **args: Any) -> dict[str, Any]:
    return {
        "run_id": "run-1",
        "task_id": "report",
        "callable_pickle": encode(dumps(function, what="it")),
        "args_pickle": encode(dumps(args, what="it")),
    }


def _result(execute: Execute, function: Callable[..., Any], **args: Any) -> Any:
    event = execute(TaskExecution(frame_of(function, **args)))
    assert event["type"] == "task_result", event
    return event["result"]


def _error(execute: Execute, function: Callable[..., Any], **args: Any) -> EventFrame:
    event = execute(TaskExecution(frame_of(function, **args)))
    assert event["type"] == "task_error", event
    return event


class Callables:
    async def method(self, number: int) -> int:
        return number * 2

    async def __call__(self, number: int) -> int:
        return number * 2


@pytest.mark.parametrize(
    "function",
    [
        lambda number: number * 2,
        double_async,
        lambda number: double_async(number),
        functools.partial(double_async),
        functools.partial(lambda number: double_async(number)),
        Callables().method,
        Callables(),
    ],
    ids=["sync", "coroutine", "returns awaitable", "partial", "partial of lambda", "method", "callable object"],
)
def test_every_kind_of_callable_gives_its_value(execute: Execute, function: Callable[..., Any]) -> None:
    assert _result(execute, function, number=21) == 42


def test_the_final_event_bears_the_ids(execute: Execute) -> None:
    event = execute(TaskExecution(frame_of(lambda: None)))
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
    assert TaskExecution(frame_of(threading.get_ident)).run()["result"] == threading.get_ident()


def test_a_coroutine_can_be_run_synchronously_inside_of_a_loop() -> None:
    async def inside() -> EventFrame:
        return TaskExecution(frame_of(double_async, number=4)).run()

    assert asyncio.run(inside())["result"] == 8


async def test_the_loop_goes_on_while_a_synchronous_callable_blocks() -> None:
    released = threading.Event()
    waiting = asyncio.ensure_future(TaskExecution(frame_of(released.wait, timeout=20)).arun())
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
    frame = frame_of(current_run) | {
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

    assert execute(TaskExecution(frame_of(task)))["type"] == "task_cancelled"


def test_a_call_with_wrong_arguments_is_the_task_s_failure(execute: Execute) -> None:
    event = _error(execute, double_async, wrong=1)
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
    event = execute(TaskExecution(frame_of("no function")))  # type: ignore[arg-type]
    assert "the callable is a str" in event["error"]["message"]


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (double_async, True),
        (functools.partial(functools.partial(double_async), 1), True),
        (Callables().method, True),
        (Callables(), True),
        (Callables, False),
        (lambda: double_async(1), False),
        (print, False),
    ],
)
def test_coroutine_functions_are_told_from_others(function: Callable[..., Any], expected: bool) -> None:
    assert is_coroutine_function(function) is expected
