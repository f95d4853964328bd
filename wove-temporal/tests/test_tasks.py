"""How a worker executes what Temporal hands out, without a server."""

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from temporalio.testing import ActivityEnvironment

from wove_temporal import tasks


async def test_an_activity_sends_heartbeats_while_its_task_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    beats: list[Any] = []
    environment = ActivityEnvironment()
    environment.info = replace(environment.info, heartbeat_timeout=timedelta(milliseconds=40))
    environment.on_heartbeat = lambda *details: beats.append(details)

    async def arun(payload: Mapping[str, Any]) -> None:
        async with asyncio.timeout(10.0):
            while len(beats) < 3:  # noqa: ASYNC110
                await asyncio.sleep(0.01)

    monkeypatch.setattr(tasks, "arun", arun)
    await environment.run(tasks.execute, {"run_id": "r"})
    assert len(beats) >= 3


async def test_an_activity_without_a_heartbeat_timeout_sends_none(monkeypatch: pytest.MonkeyPatch) -> None:
    executed: list[Mapping[str, Any]] = []
    environment = ActivityEnvironment()
    environment.info = replace(environment.info, heartbeat_timeout=None)

    async def arun(payload: Mapping[str, Any]) -> None:
        executed.append(payload)

    monkeypatch.setattr(tasks, "arun", arun)
    await environment.run(tasks.execute, {"run_id": "r"})
    assert executed == [{"run_id": "r"}]
