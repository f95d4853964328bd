"""Equal idempotency keys on one host: one execution at a time, and its result for all."""

import asyncio
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.event_server import CANCEL, EventServer, Move, event_server
from tests.support.payloads import payload_for
from wove.backend.connections import connections
from wove.backend.frames import deserialize_frame
from wove.backend.once import OnceGuard
from wove.backend.spool import Spool, spool
from wove.integrations.worker import arun, run

Run = Callable[[dict[str, Any]], bytes | None]
IDS = {"run_id": "second", "task_id": "again"}


@pytest.fixture
def server() -> Iterator[EventServer]:
    with event_server() as server:
        yield server
    connections().close()


@pytest.fixture(autouse=True)
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv("WOVE_SPOOL_DIR", str(tmp_path / "spool"))
    spool.cache_clear()
    yield tmp_path / "spool"
    spool.cache_clear()


@pytest.fixture(params=["run", "arun"])
def execute(request: pytest.FixtureRequest) -> Run:
    if request.param == "run":
        return lambda payload: run(payload, once_seconds=60)
    return lambda payload: asyncio.run(arun(payload, once_seconds=60))


class Task:
    """A task that counts its executions and fails or waits as it is told. Found by name, not copied."""

    def __init__(self) -> None:
        self.executions = 0
        self.fail = False
        self.entered = threading.Event()
        self.released = threading.Event()
        self.released.set()

    def __call__(self) -> int:
        self.executions += 1
        self.entered.set()
        self.released.wait(20)
        if self.fail:
            raise ValueError("not this time")
        return self.executions


_task: list[Task] = []


@pytest.fixture
def task() -> Iterator[Task]:
    _task[:] = [Task()]
    yield _task[0]
    _task.clear()


def _call_task() -> int:
    return _task[0]()


def _keyed(server: EventServer, key: str | None = "daily-report") -> dict[str, Any]:
    return payload_for(server.url, _call_task) | {"delivery": {"delivery_idempotency_key": key}}


def _results(server: EventServer) -> dict[str, Any]:
    events = [deserialize_frame(request.event) for request in server.requests if request.kind == "task_result"]
    return {event["run_id"]: event["result"] for event in events}


def test_a_later_run_with_the_key_gets_the_first_one_s_result(execute: Run, server: EventServer, task: Task) -> None:
    first, second = _keyed(server), _keyed(server)
    execute(first)
    execute(second)
    assert task.executions == 1
    assert _results(server) == {first["run_id"]: 1, second["run_id"]: 1}


def test_a_run_with_the_key_waits_for_the_one_that_is_executed(execute: Run, server: EventServer, task: Task) -> None:
    task.released.clear()
    payloads = [_keyed(server) for _ in range(3)]
    threads = [threading.Thread(target=execute, args=(payload,)) for payload in payloads]
    for thread in threads:
        thread.start()
    server.wait_for("task_started", 3)
    task.released.set()
    for thread in threads:
        thread.join(20)
    assert task.executions == 1
    assert list(_results(server).values()) == [1, 1, 1]


def test_a_waiting_run_can_be_cancelled(server: EventServer, task: Task) -> None:
    task.released.clear()
    holding = threading.Thread(target=run, args=(_keyed(server),), kwargs={"once_seconds": 60})
    holding.start()
    assert task.entered.wait(20)
    waiting = _keyed(server) | {"lease": 0.3}
    server.rule = lambda request: CANCEL if request.kind == "heartbeat" else Move(body={"lease": 0.3})
    run(waiting, once_seconds=60)
    assert server.wait_for("task_cancelled")[0].event["run_id"] == waiting["run_id"]
    server.rule = lambda request: Move()
    task.released.set()
    holding.join(20)
    assert task.executions == 1


def test_a_failed_run_leaves_the_key_to_the_next_attempt(execute: Run, server: EventServer, task: Task) -> None:
    task.fail = True
    execute(_keyed(server))
    task.fail = False
    again = _keyed(server)
    execute(again)
    assert task.executions == 2
    assert _results(server) == {again["run_id"]: 2}


def test_another_key_or_adapter_or_none_is_executed(execute: Run, server: EventServer, task: Task) -> None:
    execute(_keyed(server))
    for payload in (_keyed(server, "another"), _keyed(server) | {"adapter": "other"}, _keyed(server, None)):
        execute(payload)
    assert task.executions == 4


def test_without_being_asked_no_key_is_looked_at(server: EventServer, task: Task) -> None:
    run(_keyed(server))
    run(_keyed(server))
    assert task.executions == 2


def test_a_result_is_given_again_for_its_time_only(server: EventServer, task: Task, kept: Path) -> None:
    run(_keyed(server), once_seconds=60)
    run(_keyed(server), once_seconds=0.0)
    assert task.executions == 2


def test_the_given_event_bears_the_ids_of_the_run_that_gets_it(tmp_path: Path) -> None:
    kept = Spool(tmp_path / "kept")
    first = OnceGuard("key", adapter="celery", kept=kept, seconds=60)
    assert first.enter({"run_id": "first", "task_id": "once"}, told_to_stop=lambda: False) is None
    first.remember(b'{"type":"task_result","run_id":"first","task_id":"once","result_pickle":"gAVLAS4="}')
    first.leave()
    first.leave()
    second = OnceGuard("key", adapter="celery", kept=kept, seconds=60)
    assert second.enter(IDS, told_to_stop=lambda: False) == (
        b'{"type":"task_result","run_id":"second","task_id":"again","result_pickle":"gAVLAS4="}'
    )
    second.leave()


def test_waiting_ends_when_it_is_told_to_stop(tmp_path: Path) -> None:
    kept = Spool(tmp_path / "kept")
    holder, waiter = (OnceGuard("key", adapter="celery", kept=kept, seconds=60) for _ in range(2))
    holder.enter(IDS, told_to_stop=lambda: False)
    slept: list[float] = []
    assert waiter.enter(IDS, told_to_stop=lambda: len(slept) == 3, sleep=slept.append) is None
    assert len(slept) == 3
    waiter.leave()
    holder.leave()


def test_where_nothing_can_be_kept_every_run_is_executed(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    kept = Spool(tmp_path / "file")
    for _ in range(2):
        guard = OnceGuard("key", adapter="celery", kept=kept, seconds=60)
        assert guard.enter(IDS, told_to_stop=lambda: False) is None
        guard.remember(b"{}")
