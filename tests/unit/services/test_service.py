"""What a worker service does with commands, without any transport."""

import asyncio
import base64
import json
import os
import pickle
import signal
import time
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.support.commands import add, command, plain, sleep, touch, until, wait_for
from wove.backend.frames import deserialize_event
from wove.backend.types import FINAL_EVENTS
from wove.errors import ConfigurationError, DeliveryOrphanedError
from wove.services import service as service_module
from wove.services.service import BadCommand, Busy, WorkerService
from wove.services.settings import ServiceSettings


class Ear:
    """Listens to runs."""

    def __init__(self) -> None:
        self.events: asyncio.Queue[dict[str, Any]] = asyncio.Queue()

    def hear(self, run_id: str, kind: str, event: bytes) -> None:
        self.events.put_nowait(json.loads(event))

    async def next(self) -> dict[str, Any]:
        async with asyncio.timeout(20):
            return deserialize_event(await self.events.get())

    async def until(self, *kinds: str) -> dict[str, Any]:
        while (event := await self.next())["type"] not in kinds:
            pass
        return event

    async def final(self) -> dict[str, Any]:
        return await self.until(*FINAL_EVENTS)


@asynccontextmanager
async def running(**settings: Any) -> AsyncIterator[WorkerService]:
    service = WorkerService(ServiceSettings(**{"workers": 1, **settings}))
    await service.start()
    try:
        yield service
    finally:
        await service.stop(0)


def token() -> str:
    return uuid.uuid4().hex


async def test_a_run_is_executed_and_its_events_are_told() -> None:
    ear = Ear()
    async with running() as service:
        assert service.take(command(add, left=1, right=2), ear.hear) == "run-1"
        assert (await ear.next())["type"] == "task_started"
        event = await ear.next()
    assert (event["type"], event["run_id"], event["task_id"], event["result"]) == ("task_result", "run-1", "task", 3)


async def test_nothing_is_unpickled_in_the_service_s_own_process(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> Any:
            return os.system, (f"echo $PPID > {tmp_path}/pid",)

    body = json.loads(command(add, left=1, right=2))
    body["callable_pickle"] = base64.b64encode(pickle.dumps(Trap())).decode()
    ear = Ear()
    async with running() as service:
        service.take(json.dumps(body).encode(), ear.hear)
        await ear.final()
    assert int((tmp_path / "pid").read_text()) != os.getpid()


async def test_line_breaks_in_a_command_do_not_matter() -> None:
    ear = Ear()
    async with running() as service:
        service.take(json.dumps(json.loads(command(add, left=1, right=2)), indent=2).encode(), ear.hear)
        assert (await ear.final())["result"] == 3


async def test_the_same_command_twice_runs_once_and_tells_both() -> None:
    first, second, third = Ear(), Ear(), Ear()
    async with running() as service:
        service.take(command(token), first.hear)
        service.take(command(token), second.hear)
        result = (await first.final())["result"]
        assert (await second.final())["result"] == result
        assert service.take(command(token), third.hear) is None, "it has ended: nothing more is to be heard"
        assert (await third.final())["result"] == result


async def test_who_attaches_to_a_run_hears_the_rest(tmp_path: Path) -> None:
    first, second = Ear(), Ear()
    async with running() as service:
        service.take(command(wait_for, path=str(tmp_path / "go")), first.hear)
        await first.until("task_started")
        service.leave("run-1", first.hear)
        assert service.take(plain("attach_run"), second.hear) == "run-1"
        assert (await second.next())["type"] == "task_started"
        (tmp_path / "go").touch()
        assert (await second.final())["result"] == "waited"
    assert first.events.empty()


async def test_who_attaches_to_an_unknown_run_is_told_so() -> None:
    ear = Ear()
    async with running() as service:
        assert service.take(plain("attach_run"), ear.hear) is None
        event = await ear.final()
    assert isinstance(event["exception"], DeliveryOrphanedError)
    assert event["exception"].state == "gone"
    assert event["error"]["retryable"]


async def test_a_running_task_is_cancelled(tmp_path: Path) -> None:
    ear = Ear()
    async with running() as service:
        service.take(command(wait_for, path=str(tmp_path / "go")), ear.hear)
        await until((tmp_path / "go.begun").exists)
        assert service.take(plain("cancel_task"), ear.hear) is None
        assert (await ear.final())["type"] == "task_cancelled"
    assert (tmp_path / "go.cancelled").exists()


async def test_a_task_that_waits_for_a_thread_is_cancelled_without_being_started(tmp_path: Path) -> None:
    first, second = Ear(), Ear()
    async with running(threads=1) as service:
        service.take(command(sleep, run_id="sleeps", seconds=0.3), first.hear)
        service.take(command(touch, run_id="waits", path=str(tmp_path / "ran")), second.hear)
        service.take(plain("cancel_task", "waits"), second.hear)
        assert (await second.final())["type"] == "task_cancelled"
        assert (await first.final())["type"] == "task_result"
    assert not (tmp_path / "ran").exists()


async def test_as_many_synchronous_tasks_as_configured_run_side_by_side(tmp_path: Path) -> None:
    ear = Ear()
    async with running(threads=20) as service:
        for number in range(20):
            service.take(command(_meet, run_id=f"run-{number}", folder=str(tmp_path), number=number), ear.hear)
        for _ in range(20):
            assert (await ear.final())["type"] == "task_result"


def _meet(folder: str, number: int) -> None:
    """Wait until all twenty are there."""
    Path(folder, str(number)).touch()
    deadline = time.monotonic() + 20
    while len(os.listdir(folder)) < 20:
        assert time.monotonic() < deadline, "they do not run side by side"
        time.sleep(0.01)


async def test_a_cancel_that_comes_before_its_command_is_remembered(tmp_path: Path) -> None:
    ear = Ear()
    async with running() as service:
        service.take(plain("cancel_task"), ear.hear)
        service.take(command(touch, path=str(tmp_path / "ran")), ear.hear)
        assert (await ear.final())["type"] == "task_cancelled"
    assert not (tmp_path / "ran").exists()


async def test_a_cancel_of_an_ended_run_changes_nothing() -> None:
    ear = Ear()
    async with running() as service:
        service.take(command(add, left=1, right=2), ear.hear)
        await ear.final()
        service.take(plain("cancel_task"), ear.hear)
        service.take(command(add, left=1, right=2), ear.hear)
        assert (await ear.final())["result"] == 3


# --- runs that nobody listens to ---


async def test_a_run_that_nobody_listens_to_is_cancelled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service_module, "ABANDONED_SECONDS", 0.05)
    ear = Ear()
    async with running() as service:
        service.take(command(wait_for, path=str(tmp_path / "go")), ear.hear)
        await until((tmp_path / "go.begun").exists)
        service.leave("run-1", ear.hear)
        await until((tmp_path / "go.cancelled").exists)


async def test_a_detached_run_goes_on_without_listeners(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service_module, "ABANDONED_SECONDS", 0.05)
    ear = Ear()
    delivery = {"delivery_orphan_policy": "detach"}
    async with running() as service:
        service.take(command(wait_for, delivery=delivery, path=str(tmp_path / "go")), ear.hear)
        await ear.until("task_started")
        service.leave("run-1", ear.hear)
        await asyncio.sleep(0.2)
        (tmp_path / "go").touch()
        await until(lambda: service.running == 0)
        service.take(plain("attach_run"), ear.hear)
        assert (await ear.final())["result"] == "waited"


async def test_a_run_whose_listener_comes_back_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service_module, "ABANDONED_SECONDS", 0.1)
    ear = Ear()
    async with running() as service:
        service.take(command(wait_for, path=str(tmp_path / "go")), ear.hear)
        await ear.until("task_started")
        service.leave("run-1", ear.hear)
        service.take(plain("attach_run"), ear.hear)
        await asyncio.sleep(0.3)
        (tmp_path / "go").touch()
        assert (await ear.final())["result"] == "waited"


async def test_outcomes_are_forgotten_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service_module, "KEPT_SECONDS", 0.05)
    ear = Ear()
    async with running() as service:
        service.take(command(add, left=1, right=2), ear.hear)
        await ear.final()
        await asyncio.sleep(0.2)
        service.take(plain("attach_run"), ear.hear)
        assert (await ear.final())["type"] == "task_error"


async def test_no_more_outcomes_are_kept_than_there_is_room_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service_module, "KEPT_BYTES", 1_000_000)
    ear = Ear()
    async with running() as service:
        for number in range(3):
            service.take(command(_many_bytes, run_id=f"run-{number}"), ear.hear)
            await ear.final()
        service.take(plain("attach_run", "run-0"), ear.hear)
        assert (await ear.final())["type"] == "task_error"
        service.take(plain("attach_run", "run-2"), ear.hear)
        assert (await ear.final())["type"] == "task_result"


def _many_bytes() -> bytes:
    return bytes(500_000)


# --- what is refused ---


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "no valid JSON"),
        (b"[]", "JSON object"),
        (b"{}", "'type'"),
        (b'{"type": "run_task"}', "'run_id'"),
        (plain("run_task"), "'callable_pickle'"),
        (plain("run_task", callable_pickle="AA=="), "'args_pickle'"),
        (plain("run_task", callable_pickle=5, args_pickle=""), "'callable_pickle'"),
        (plain("run_tusk"), "No command is of type 'run_tusk'"),
        (plain("task_result"), "No command is of type"),
        (plain("run_task", run_id="x" * 1000), "at most 255"),
    ],
)
async def test_what_is_no_command_is_refused(body: bytes, message: str) -> None:
    service = WorkerService(ServiceSettings(workers=1))
    with pytest.raises(BadCommand, match=message):
        service.take(body, Ear().hear)


async def test_too_many_runs_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service_module, "MOST_RUNS", 1)
    async with running() as service:
        service.take(command(sleep, seconds=0.1), Ear().hear)
        with pytest.raises(Busy, match="has 1 runs"):
            service.take(command(sleep, run_id="run-2", seconds=0.1), Ear().hear)


@pytest.mark.parametrize(
    "settings",
    [
        {"workers": 0},
        {"workers": 1.5},
        {"threads": 0},
        {"beat": 0},
        {"beat": float("nan")},
        {"grace": -1},
        {"grace": "1"},
    ],
)
def test_settings_of_the_wrong_kind_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match=next(iter(settings))):
        ServiceSettings(**settings)


# --- the end ---


async def test_a_service_that_stops_lets_its_runs_finish(tmp_path: Path) -> None:
    ear = Ear()
    async with running() as service:
        service.take(command(wait_for, path=str(tmp_path / "go")), ear.hear)
        await ear.until("task_started")
        stopping = asyncio.create_task(service.stop(20))
        await until(lambda: service.draining)
        with pytest.raises(Busy, match="shutting down"):
            service.take(command(add, run_id="run-2", left=1, right=2), ear.hear)
        (tmp_path / "go").touch()
        assert (await ear.final())["result"] == "waited"
        await stopping


@pytest.mark.parametrize("hurried", [False, True])
async def test_a_service_that_stops_reports_runs_that_do_not_finish(tmp_path: Path, hurried: bool) -> None:
    ear = Ear()
    async with running() as service:
        service.take(command(wait_for, path=str(tmp_path / "go")), ear.hear)
        await ear.until("task_started")
        stopping = asyncio.create_task(service.stop(60 if hurried else 0.05))
        await until(lambda: service.draining)
        if hurried:
            service.hurry()
        event = await ear.final()
        await stopping
    assert isinstance(event["exception"], DeliveryOrphanedError)
    assert "shut down" in str(event["exception"])
    assert event["error"]["retryable"]


async def test_a_process_that_dies_is_reported_with_its_end_and_replaced() -> None:
    ear = Ear()
    async with running() as service:
        service.take(command(_die, run_id="dies"), ear.hear)
        event = await ear.final()
        service.take(command(add, left=1, right=2), ear.hear)
        assert (await ear.final())["result"] == 3
    assert isinstance(event["exception"], DeliveryOrphanedError)
    assert event["exception"].exit_code == -signal.SIGKILL
    assert "last words" in str(event["exception"])
    assert event["error"]["source"] == "executor"


def _die() -> None:
    os.write(2, b"last words\n")
    os.kill(os.getpid(), signal.SIGKILL)
