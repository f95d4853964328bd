"""Runs that a worker does not execute: refused, cancelled, late, or executed already."""

import threading
import time

import pytest

from tests.support.event_server import CANCEL, EventServer, Move, final_event
from tests.support.payloads import payload_for
from tests.support.worker_tasks import Counter, call_shared, shared
from tests.unit.integrations.conftest import Run
from wove.backend.spool import spool
from wove.errors import DeliveryGivenUpError, EventRefusedError


# Fault 17, fault 27: over, or in another worker's hands.
@pytest.mark.parametrize("status", [409, 410])
def test_a_run_that_this_worker_should_not_execute_is_not(
    execute: Run, server: EventServer, counter: Counter, status: int
) -> None:
    server.rule = lambda request: Move(status)
    execute(payload_for(server.url, counter))
    assert counter.count == 0
    assert server.kinds == ["task_started"]


def test_a_run_that_was_cancelled_in_the_queue_is_not_executed(
    execute: Run, server: EventServer, counter: Counter
) -> None:
    server.rule = lambda request: CANCEL
    execute(payload_for(server.url, counter))
    assert counter.count == 0
    assert server.kinds == ["task_started", "task_cancelled"]


@pytest.mark.parametrize("status", [401, 403])
def test_a_worker_that_the_weave_does_not_trust_does_not_execute(
    execute: Run, server: EventServer, counter: Counter, status: int
) -> None:
    server.rule = lambda request: Move(status)
    with pytest.raises(EventRefusedError):
        execute(payload_for(server.url, counter))
    assert counter.count == 0


def test_a_url_that_leads_elsewhere_is_complained_about_and_does_not_hide_in_silence(
    execute: Run, server: EventServer, counter: Counter, caplog: pytest.LogCaptureFixture
) -> None:
    server.rule = lambda request: Move(404)
    with pytest.raises(DeliveryGivenUpError, match="status 404"):
        execute(payload_for(server.url, counter) | {"callback_retry_seconds": 0.3})
    assert counter.count == 1
    assert "/wove/events/<callback_token>" in caplog.text
    assert "the-token" not in caplog.text


# Fault 15 from this side: an unanswered start event never holds the task up for long.
def test_a_start_event_that_nobody_answers_does_not_keep_the_task_from_running(
    execute: Run, server: EventServer, counter: Counter
) -> None:
    released = threading.Event()
    server.rule = lambda request: Move(after=released.wait) if request.kind == "task_started" else Move()
    execute(payload_for(server.url, counter))
    assert counter.count == 1
    # On a busy machine, a start that nobody waits for any more may reach the server after it.
    assert "task_result" in server.kinds
    released.set()


# Fault 26: the weave is gone, so only this host knows that the run has been executed.
def test_a_finished_run_is_not_executed_again_where_nobody_confirms_it(
    execute: Run, server: EventServer, counter: Counter
) -> None:
    payload = payload_for(server.url, counter)
    execute(payload)
    server.close()
    spool.cache_clear()
    execute(payload)
    assert counter.count == 1


def test_a_run_that_this_process_executes_already_is_not_executed_twice(
    execute: Run, server: EventServer, counter: Counter
) -> None:
    released, again = threading.Event(), []
    payload = payload_for(server.url, call_shared)

    def task() -> int:
        execution = threading.Thread(target=execute, args=(payload,))
        execution.start()
        execution.join(20)
        again.append(execution.is_alive())
        released.set()
        return counter()

    shared["task"] = task
    execute(payload)
    assert again == [False]
    assert counter.count == 1


def test_a_run_that_reaches_a_worker_too_late_is_not_executed_where_nobody_confirms_it(
    execute: Run, server: EventServer, counter: Counter
) -> None:
    server.rule = lambda request: Move(503) if request.kind == "task_started" else Move()
    execute(payload_for(server.url, counter) | {"deadline": time.time() - 1})
    assert counter.count == 0
    final = final_event(server)
    assert final["error"]["kind"] == "DeliveryTimeoutError"
    assert final["error"]["retryable"] is True


def test_a_weave_that_confirms_a_late_run_gets_its_result(execute: Run, server: EventServer, counter: Counter) -> None:
    # The weave's own clock decides; this host's may be wrong.
    execute(payload_for(server.url, counter) | {"deadline": time.time() - 1})
    assert counter.count == 1
