"""How a worker takes what Temporal hands out, without a server."""

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from temporalio.client import ActivityHandle, Client
from temporalio.testing import ActivityEnvironment

from wove_temporal import tasks
from wove_temporal.activity_jobs import ActivityJobs
from wove_temporal.jobs import NewJob
from wove_temporal.settings import read_settings


@pytest.fixture
def taken(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Mapping[str, Any], bool]]:
    """What is executed, and whether it begins without asking the weave."""
    executed: list[tuple[Mapping[str, Any], bool]] = []

    async def arun(payload: Mapping[str, Any], *, first_delivery: bool = False) -> None:
        executed.append((payload, first_delivery))

    monkeypatch.setattr(tasks, "arun", arun)
    return executed


async def hand_out(payload: dict[str, Any], **info: Any) -> None:
    environment = ActivityEnvironment()
    environment.info = replace(environment.info, **{"workflow_id": None, "attempt": 1, **info})
    await environment.run(tasks.execute, payload)


async def test_the_first_attempt_at_an_activity_begins_unasked(taken: list[tuple[Mapping[str, Any], bool]]) -> None:
    await hand_out({"run_id": "r"})
    assert taken == [({"run_id": "r"}, True)]


@pytest.mark.parametrize("info", [{"attempt": 2}, {"workflow_id": "w"}])
async def test_a_later_attempt_and_one_in_a_workflow_ask_the_weave(
    taken: list[tuple[Mapping[str, Any], bool]], info: dict[str, Any]
) -> None:
    await hand_out({"run_id": "r"}, **info)
    assert taken == [({"run_id": "r"}, False)]


async def test_an_activity_that_was_started_again_asks_the_weave(
    taken: list[tuple[Mapping[str, Any], bool]], monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[dict[str, Any]] = []

    async def start_activity(activity: str, payload: dict[str, Any], **options: Any) -> str:
        started.append(payload)
        return "handle"

    client: Any = type("FakeClient", (Client,), {"__init__": lambda self: None, "start_activity": None})()
    monkeypatch.setattr(client, "start_activity", start_activity)
    jobs = ActivityJobs(client, read_settings({"target_host": "localhost:7233"}, name="temporal"))
    job = NewJob(id="wove-r", run_id="r", payload={"run_id": "r"}, seconds=None, keyed=False)
    earlier: ActivityHandle[Any] = ActivityHandle(client, id="wove-r", run_id="1")
    await jobs.start(job)
    await jobs.start_again(job, earlier)
    for payload in started:
        await hand_out(payload)
    assert taken == [({"run_id": "r"}, True), ({"run_id": "r"}, False)]


async def test_an_activity_sends_heartbeats_while_its_task_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    beats: list[Any] = []
    environment = ActivityEnvironment()
    environment.info = replace(environment.info, heartbeat_timeout=timedelta(milliseconds=40))
    environment.on_heartbeat = lambda *details: beats.append(details)

    async def arun(payload: Mapping[str, Any], *, first_delivery: bool = False) -> None:
        async with asyncio.timeout(10.0):
            while len(beats) < 3:  # noqa: ASYNC110
                await asyncio.sleep(0.01)

    monkeypatch.setattr(tasks, "arun", arun)
    await environment.run(tasks.execute, {"run_id": "r"})
    assert len(beats) >= 3
