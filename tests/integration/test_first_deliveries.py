"""Workers of backends that show that a job comes for the first time, or once: they ask less of the receiver."""

import asyncio
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.owners import SECRET, owning
from wove.errors import DeliveryGivenUpError
from wove.integrations.worker import arun, run
from wove.testing.servers import free_port

pytestmark = pytest.mark.usefixtures("own_spool")


def _length(text: str) -> int:
    return len(text)


def _touch(path: str) -> None:
    Path(path).touch()


def _wait_for(path: str) -> str:
    deadline = time.monotonic() + 30.0
    while not os.path.exists(path):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return "released"


async def test_a_short_task_of_a_backend_that_delivers_once_needs_one_event() -> None:
    async with owning() as owner:
        payload = await owner.payload(_length, text="abc")
        await asyncio.to_thread(run, payload, delivered_once=True)
        assert (await owner.recv())["result"] == 3


@pytest.mark.parametrize("proof", ["first_delivery", "delivered_once"])
@pytest.mark.parametrize("execute", [run, arun])
async def test_a_first_delivery_begins_without_asking(execute: Callable[..., Any], proof: str) -> None:
    async with owning() as owner:
        payload = await owner.payload(_length, text="abc")
        await (arun(payload, **{proof: True}) if execute is arun else asyncio.to_thread(run, payload, **{proof: True}))
        assert (await owner.recv())["type"] == "task_result"


async def test_a_first_delivery_that_was_not_taken_back_from_its_queue_asks(tmp_path: Path) -> None:
    async with owning() as owner:
        payload = await owner.payload(_touch, path=str(tmp_path / "ran"))
        payload["delivery"] = {"delivery_orphan_policy": "fail"}
        await owner.close(payload)
        await asyncio.to_thread(run, payload, first_delivery=True)
    assert not (tmp_path / "ran").exists()


async def test_a_signed_payload_that_is_sent_once_more_is_not_executed_as_a_first_delivery(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("JOBS_SECRET", SECRET)
    async with owning(callback_security="env:JOBS_SECRET") as owner:
        payload = await owner.payload(_touch, path=str(tmp_path / "ran"))
        await asyncio.to_thread(run, payload, delivered_once=True)
        await owner.outcome()
        (tmp_path / "ran").unlink()
        await asyncio.to_thread(run, payload, delivered_once=True)
    assert not (tmp_path / "ran").exists()


async def test_a_job_that_comes_again_after_its_first_delivery_is_not_executed(tmp_path: Path) -> None:
    async with owning() as owner:
        payload = await owner.payload(_touch, path=str(tmp_path / "ran"))
        await asyncio.to_thread(run, payload, first_delivery=True)
        await owner.outcome()
    (tmp_path / "ran").unlink()
    # The weave is gone; this host remembers.
    await asyncio.to_thread(run, payload)
    assert not (tmp_path / "ran").exists()


async def test_the_outcome_of_a_job_that_comes_once_is_kept_while_it_cannot_be_delivered(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("WOVE_CALLBACK_RETRY_SECONDS", "0.5")
    async with owning() as owner:
        payload = await owner.payload(_length, text="abc")
        payload["callback_url"] = f"http://127.0.0.1:{free_port()}/wove/events/nobody"
        with pytest.raises(DeliveryGivenUpError):
            await asyncio.to_thread(run, payload, delivered_once=True)
    assert len(list((tmp_path / "spool").glob("*.outcome"))) == 1


async def test_a_longer_task_of_a_backend_that_delivers_once_is_heard_of_while_it_runs(tmp_path: Path) -> None:
    async with owning() as owner:
        payload = await owner.payload(_wait_for, path=str(tmp_path / "go"))
        running = asyncio.create_task(asyncio.to_thread(run, payload, delivered_once=True))
        assert (await owner.recv())["type"] == "task_started"
        (tmp_path / "go").touch()
        assert (await owner.outcome())["result"] == "released"
        await running


async def test_what_waits_at_the_receiver_is_fetched_without_a_start(tmp_path: Path) -> None:
    async with owning() as owner:
        payload = await owner.payload(_length, text="x" * 10_000, limit=2000)
        assert "claim" in payload
        await asyncio.to_thread(run, payload, delivered_once=True)
        assert (await owner.outcome())["result"] == 10_000


async def test_a_backend_that_delivers_once_leaves_nothing_on_the_worker_s_host(tmp_path: Path) -> None:
    async with owning() as owner:
        await asyncio.to_thread(run, await owner.payload(_length, text="abc"), delivered_once=True)
        await owner.outcome()
    assert [path for path in (tmp_path / "spool").rglob("*") if path.is_file()] == []


async def test_a_task_that_comes_after_its_time_is_not_executed_by_a_backend_that_delivers_once() -> None:
    async with owning() as owner:
        payload = await owner.payload(_length, text="abc")
        payload["deadline"] = time.time() - 1.0
        await asyncio.to_thread(run, payload, delivered_once=True)
        event = await owner.outcome()
    assert event["type"] == "task_error"
    assert "after its delivery_timeout" in event["error"]["message"]
