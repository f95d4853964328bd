"""Outcomes that a worker keeps until they are delivered, and those that it does not keep."""

from pathlib import Path

import pytest

from tests.support.event_server import EventServer, Move, Request, final_event, is_final
from tests.support.payloads import payload_for
from tests.support.worker_tasks import Counter
from tests.unit.integrations.conftest import Run
from wove.backend.events import EventSender
from wove.backend.spool import Spool, spool, spool_name
from wove.errors import DeliveryGivenUpError


def _outcomes(kept: Path) -> list[str]:
    return [path.name for path in kept.glob("*.outcome")] if kept.exists() else []


# Fault 10.
def test_an_outcome_that_cannot_be_delivered_is_kept_and_the_job_fails(
    execute: Run, server: EventServer, counter: Counter, kept: Path
) -> None:
    server.close()
    payload = payload_for(server.url, counter) | {"callback_retry_seconds": 0.3}
    with pytest.raises(DeliveryGivenUpError, match="ConnectionRefusedError"):
        execute(payload)
    assert counter.count == 1
    assert len(_outcomes(kept)) == 1


def test_a_kept_outcome_is_delivered_without_executing_the_task_again(
    execute: Run, server: EventServer, counter: Counter, kept: Path
) -> None:
    server.close()
    payload = payload_for(server.url, counter) | {"callback_retry_seconds": 0.3}
    with pytest.raises(DeliveryGivenUpError):
        execute(payload)
    server.open()
    execute(payload | {"callback_retry_seconds": 30.0})
    assert counter.count == 1
    assert server.kinds == ["task_result"]
    assert final_event(server)["result"] == 1
    assert _outcomes(kept) == []


def test_a_kept_outcome_is_posted_under_the_id_that_it_had(execute: Run, server: EventServer, counter: Counter) -> None:
    # The weave has got it, but not said so; posted again under another id it would be a second outcome.
    server.rule = lambda request: Move(500) if is_final(request) else Move()
    payload = payload_for(server.url, counter) | {"callback_retry_seconds": 0.3}
    with pytest.raises(DeliveryGivenUpError):
        execute(payload)
    server.rule = lambda request: Move()
    execute(payload | {"callback_retry_seconds": 30.0})
    ids = {request.headers["webhook-id"] for request in server.requests if is_final(request)}
    assert len(ids) == 1


def test_a_delivered_outcome_is_not_kept(execute: Run, server: EventServer, kept: Path) -> None:
    execute(payload_for(server.url, lambda: 1))
    assert _outcomes(kept) == []


def test_the_outcome_is_kept_before_it_is_first_posted(execute: Run, server: EventServer, kept: Path) -> None:
    seen: list[int] = []

    def look(request: Request) -> Move:
        if is_final(request):
            seen.append(len(_outcomes(kept)))
        return Move()

    server.rule = look
    execute(payload_for(server.url, lambda: 1))
    assert seen == [1]


@pytest.mark.parametrize("status", [409, 410])
def test_an_outcome_that_nobody_wants_is_not_kept(execute: Run, server: EventServer, kept: Path, status: int) -> None:
    server.rule = lambda request: Move(status) if is_final(request) else Move()
    execute(payload_for(server.url, lambda: 1))
    assert _outcomes(kept) == []


def test_a_spool_that_cannot_be_used_does_not_fail_the_run(
    execute: Run, server: EventServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WOVE_SPOOL_DIR", "/dev/null/nowhere")
    spool.cache_clear()
    execute(payload_for(server.url, lambda: 1))
    assert final_event(server)["result"] == 1


def test_an_outcome_of_a_process_that_died_before_posting_is_delivered(
    execute: Run, server: EventServer, counter: Counter, kept: Path
) -> None:
    payload = payload_for(server.url, counter)
    dead = EventSender(server.url, payload["run_id"], key=payload["callback_key"])
    body = b'{"type":"task_result","run_id":"%s","task_id":"report","result":7}' % payload["run_id"].encode()
    Spool(kept).save(spool_name(server.url, payload["run_id"]), dead.event(body))
    execute(payload)
    assert counter.count == 0
    assert final_event(server)["result"] == 7
