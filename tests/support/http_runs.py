"""Runs of the http executor against a stub: what the stub answers, and what becomes of the run."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from tests.support.http_stub import Exchange, HttpStub
from tests.support.network import final, run_task, started
from wove import HttpEnvironmentExecutor
from wove.errors import DeliveryError


async def give_result(exchange: Exchange) -> None:
    """Answer a task with its result, and anything else with nothing."""
    await exchange.answer(exchange.result() if exchange.frame["type"] == "run_task" else b"")


async def never_answer(exchange: Exchange) -> None:
    """Keep the connection open and silent."""
    await asyncio.Event().wait()


def answering(make: Callable[[Exchange], Any], **how: Any) -> Callable[[Exchange], Awaitable[None]]:
    """Make a handler that answers with what a function makes of the request."""

    async def handler(exchange: Exchange) -> None:
        await exchange.answer(make(exchange), **how)

    return handler


async def run_against(handler: Callable[[Exchange], Awaitable[None]], **config: Any) -> dict[str, Any]:
    """Send one task to a stub with this handler, and return the run's final event."""
    async with HttpStub(handler) as stub, started(HttpEnvironmentExecutor(), url=stub.url, **config) as executor:
        await executor.send(run_task())
        return await final(executor)


def assert_transport_error(event: dict[str, Any], text: str, *, retryable: bool = True) -> None:
    """Check that a final event says: the way to the service failed, not the task."""
    assert event["type"] == "task_error"
    assert event["run_id"] == "run-1"
    assert event["task_id"] == "add"
    assert event["error"]["source"] == "transport"
    assert event["error"]["retryable"] is retryable
    assert text in event["error"]["message"]
    assert isinstance(event["exception"], DeliveryError)
    assert text in str(event["exception"])
