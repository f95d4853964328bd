"""What a delivery makes of the events of a run, well-formed or not, and what plugins hear of them."""

import asyncio
import logging
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.support.desk import desk, order
from tests.support.virtual_time import in_virtual_time
from wove.environment.runs import Outcome
from wove.errors import EnvironmentExecutionError, RemoteTraceback, TaskCancelledError
from wove.plugins import hookimpl, register, unregister

# --- outcomes ---


@in_virtual_time
async def test_the_remote_traceback_is_the_cause_of_the_raised_exception() -> None:
    at = await desk()
    ticket, answer = at.open(order())
    raised = ValueError("bad")
    at.executor.emit("task_error", ticket, exception=raised, error={"kind": "ValueError", "traceback": "File x"})
    assert (await answer).error is raised
    assert isinstance(raised.__cause__, RemoteTraceback)
    await at.close()


@in_virtual_time
async def test_an_error_without_an_exception_becomes_an_execution_error() -> None:
    at = await desk()
    ticket, answer = at.open(order())
    at.executor.emit("task_error", ticket, error={"kind": "Oops", "message": "no"})
    error = (await answer).error
    assert isinstance(error, EnvironmentExecutionError)
    assert error.payload["kind"] == "Oops"
    await at.close()


@in_virtual_time
async def test_a_cancellation_that_nobody_asked_for_is_an_error() -> None:
    at = await desk()
    ticket, answer = at.open(order())
    at.executor.emit("task_cancelled", ticket)
    assert isinstance((await answer).error, TaskCancelledError)
    await at.close()


@in_virtual_time
async def test_an_unknown_event_type_fails_that_run_and_names_the_type() -> None:
    at = await desk()
    first, answer = at.open(order())
    second, other = at.open(order())
    at.executor.emit("task_exploded", first)
    error = (await answer).error
    assert isinstance(error, EnvironmentExecutionError)
    assert "'task_exploded'" in str(error)
    at.executor.emit("task_result", second, result=3)
    assert await other == Outcome(3)
    await at.close()


@in_virtual_time
async def test_a_result_event_without_a_result_is_an_error_that_shows_what_it_has() -> None:
    at = await desk()
    ticket, answer = at.open(order())
    at.executor.emit("task_result", ticket, value=3)
    error = (await answer).error
    assert isinstance(error, EnvironmentExecutionError)
    assert "task_result without 'result'; it has: run_id, task_id, type, value" in str(error)
    await at.close()


@in_virtual_time
async def test_events_of_unknown_runs_are_ignored() -> None:
    at = await desk()
    ticket, answer = at.open(order())
    at.executor.emit("task_result", "somebody-else", result=1)
    at.executor.emit("task_exploded", "somebody-else")
    at.executor.emit("task_result", ticket, result=3)
    assert await answer == Outcome(3)
    await at.close()


@pytest.mark.parametrize("frame", [None, "task_result", {"type": "task_result"}, {"type": "heartbeat", "run_id": 3}])
@in_virtual_time
async def test_an_event_that_names_no_run_is_a_broken_executor(frame: object) -> None:
    at = await desk()
    with pytest.raises(EnvironmentExecutionError, match="'run_id'"):
        at.delivery.receive(frame)
    await at.close()


# --- logs and plugins ---


@pytest.mark.parametrize("level", [logging.WARNING, "WARNING", "warning"])
@in_virtual_time
async def test_log_events_appear_under_the_task_s_logger(caplog: pytest.LogCaptureFixture, level: int | str) -> None:
    at = await desk()
    ticket, answer = at.open(order(task="report"))
    at.executor.emit("log", ticket, message="half done: 50%", level=level)
    at.executor.emit("task_result", ticket, result=3)
    await answer
    [record] = [record for record in caplog.records if record.name == "wove.task.report"]
    assert (record.getMessage(), record.levelno) == ("half done: 50%", logging.WARNING)
    await at.close()


@contextmanager
def listening() -> Iterator[list[tuple[str, ...]]]:
    """Yield what a plugin hears."""
    heard: list[tuple[str, ...]] = []

    class Listener:
        @hookimpl
        def wove_task_submitted(self, weave: str, task: str, run_id: str, environment: str) -> None:
            heard.append(("submitted", weave, task, run_id, environment))

        @hookimpl
        def wove_event_received(self, weave: str, task: str, run_id: str, event_type: str) -> None:
            heard.append(("received", task, run_id, event_type))

    register(Listener(), "listener")
    try:
        yield heard
    finally:
        unregister("listener")


def told_of(ticket: str) -> list[tuple[str, ...]]:
    """Return what there is to hear of a run that is submitted, starts and has a result."""
    return [
        ("submitted", "", "report", ticket, "jobs"),
        ("received", "report", ticket, "task_started"),
        ("received", "report", ticket, "task_result"),
    ]


@in_virtual_time
async def test_plugins_hear_of_submissions_and_events() -> None:
    with listening() as heard:
        at = await desk()
        ticket, answer = at.open(order())
        await asyncio.sleep(0.1)
        at.executor.emit("task_started", ticket)
        at.executor.emit("task_result", ticket, result=3)
        await answer
        await at.close()
    assert heard == told_of(ticket)


@in_virtual_time
async def test_plugins_hear_once_of_a_submission_that_a_fast_worker_overtakes() -> None:
    with listening() as heard:
        at = await desk()
        sent = at.executor.hold["run_task"] = asyncio.Event()
        ticket, answer = at.open(order())
        await asyncio.sleep(0.1)
        at.executor.emit("task_started", ticket)
        await asyncio.sleep(0.1)
        sent.set()
        await asyncio.sleep(0.1)
        at.executor.emit("task_result", ticket, result=3)
        await answer
        await at.close()
    assert heard == told_of(ticket)


@in_virtual_time
async def test_plugins_hear_of_a_start_that_is_told_together_with_the_result() -> None:
    with listening() as heard:
        at = await desk()
        ticket, answer = at.open(order())
        await asyncio.sleep(0.1)
        at.delivery.take({"type": "task_result", "run_id": ticket, "task_id": "report", "result": 3}, started=True)
        await answer
        await at.close()
    assert heard == told_of(ticket)
