"""What tests of the network executors share."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from wove.backend.types import FINAL_EVENTS
from wove.environment.contract import EnvironmentExecutor


def add(left: int, right: int) -> int:
    return left + right


def run_task(run_id: str = "run-1", **more: Any) -> dict[str, Any]:
    """Return a ``run_task`` command."""
    ids = {"run_id": run_id, "task_id": "add", "task_name": "add"}
    return {"type": "run_task", **ids, "callable": add, "args": {"left": 1, "right": 2}, "delivery": {}, **more}


def cancel_task(run_id: str = "run-1") -> dict[str, Any]:
    """Return a ``cancel_task`` command."""
    return {"type": "cancel_task", "run_id": run_id, "task_id": "add", "delivery_cancel_mode": "best_effort"}


@asynccontextmanager
async def started(executor: EnvironmentExecutor, **config: Any) -> AsyncIterator[EnvironmentExecutor]:
    """Start an executor as the environment ``workers``, and stop it in the end."""
    await executor.start(environment_name="workers", environment_config=config, run_config={})
    try:
        yield executor
    finally:
        await executor.stop()


async def final(executor: EnvironmentExecutor, *, seconds: float = 20.0) -> dict[str, Any]:
    """Return the next final event."""
    async with asyncio.timeout(seconds):
        while (event := await executor.recv())["type"] not in FINAL_EVENTS:
            pass
    return event


async def events(executor: EnvironmentExecutor, *, seconds: float = 20.0) -> list[dict[str, Any]]:
    """Return the events up to the next final one."""
    heard = []
    async with asyncio.timeout(seconds):
        while True:
            heard.append(await executor.recv())
            if heard[-1]["type"] in FINAL_EVENTS:
                return heard
