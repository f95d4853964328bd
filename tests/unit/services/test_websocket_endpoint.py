"""A worker service over WebSocket, as any client sees it."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from starlette.applications import Starlette

from tests.support.commands import add, command, plain, until, wait_for
from wove import NetworkExecutorSecurity
from wove.backend.frames import deserialize_event
from wove.services import create_app
from wove.services import service as service_module

PATH = "/wove/tasks"
SIGNED = {"type": "signed", "secret": "a secret of more than sixteen bytes"}


class Client:
    """The other end of a WebSocket, without a network."""

    def __init__(self, app: Starlette, headers: dict[str, str] | None = None) -> None:
        self.app = app
        self.received: asyncio.Queue[Any] = asyncio.Queue()
        self.sent: asyncio.Queue[Any] = asyncio.Queue()
        self.sent.put_nowait({"type": "websocket.connect"})
        pairs = [(name.lower().encode(), value.encode()) for name, value in (headers or {}).items()]
        scope = {"type": "websocket", "path": PATH, "raw_path": PATH.encode(), "query_string": b"a=1"}
        scope |= {"headers": pairs, "root_path": "", "subprotocols": []}
        self.serving = asyncio.create_task(app(scope, self.sent.get, self.received.put))

    def send(self, body: bytes, *, binary: bool = False) -> None:
        self.sent.put_nowait({"type": "websocket.receive", **({"bytes": body} if binary else {"text": body.decode()})})

    async def next(self) -> Any:
        async with asyncio.timeout(20):
            return await self.received.get()

    async def event(self, *kinds: str) -> dict[str, Any]:
        while True:
            frame = json.loads((await self.next())["text"])
            if frame.get("type") in kinds:
                return deserialize_event(frame)

    async def close(self, *, stop: bool = True) -> None:
        self.sent.put_nowait({"type": "websocket.disconnect", "code": 1000})
        await self.serving
        if stop:
            await self.app.state.service.stop(0)


async def connected(**settings: Any) -> Client:
    client = Client(create_app(**{"workers": 1, **settings}))
    assert (await client.next())["type"] == "websocket.accept"
    return client


async def test_the_handshake_announces_the_beat() -> None:
    client = Client(create_app(workers=1, beat=5))
    assert await client.next() == {"type": "websocket.accept", "headers": [(b"wove-beat", b"5")]}
    await client.close()


@pytest.mark.parametrize("binary", [False, True])
async def test_a_command_is_executed_and_its_events_come_back(binary: bool) -> None:
    client = await connected()
    client.send(command(add, left=1, right=2), binary=binary)
    assert (await client.event("task_started"))["run_id"] == "run-1"
    assert (await client.event("task_result"))["result"] == 3
    await client.close()


async def test_many_runs_share_the_connection() -> None:
    client = await connected()
    for number in range(50):
        client.send(command(add, run_id=f"run-{number}", left=number, right=1))
    results = [await client.event("task_result") for _ in range(50)]
    assert {event["run_id"]: event["result"] for event in results} == {f"run-{n}": n + 1 for n in range(50)}
    await client.close()


async def test_a_run_is_cancelled(tmp_path: Path) -> None:
    client = await connected()
    client.send(command(wait_for, path=str(tmp_path / "go")))
    await until((tmp_path / "go.begun").exists)
    client.send(plain("cancel_task"))
    assert (await client.event("task_cancelled"))["run_id"] == "run-1"
    await client.close()


async def test_a_run_goes_on_over_another_connection(tmp_path: Path) -> None:
    first = await connected()
    first.send(command(wait_for, path=str(tmp_path / "go")))
    await first.event("task_started")
    await first.close(stop=False)
    second = Client(first.app)
    await second.next()
    second.send(plain("attach_run"))
    await second.event("task_started")
    (tmp_path / "go").touch()
    assert (await second.event("task_result"))["result"] == "waited"
    await second.close()


async def test_the_runs_of_a_client_that_has_gone_are_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service_module, "ABANDONED_SECONDS", 0.05)
    client = await connected()
    client.send(command(wait_for, path=str(tmp_path / "go")))
    await until((tmp_path / "go.begun").exists)
    await client.close(stop=False)
    await until((tmp_path / "go.cancelled").exists)
    await client.app.state.service.stop(0)


async def test_a_quiet_connection_gets_signs_of_life() -> None:
    client = await connected(beat=0.05)
    assert await client.next() == {"type": "websocket.send", "text": '{"events":[]}'}
    await client.close()


async def test_a_command_that_cannot_be_carried_out_ends_its_run() -> None:
    client = await connected()
    client.send(plain("run_task"))
    event = await client.event("task_error")
    assert event["run_id"] == "run-1"
    assert event["error"]["source"] == "transport"
    assert "'callable_pickle'" in event["error"]["message"]
    await client.close()


async def test_a_service_that_is_shutting_down_refuses_runs() -> None:
    client = await connected()
    await client.app.state.service.stop(0)
    client.send(command(add, left=1, right=2))
    event = await client.event("task_error")
    assert "shutting down" in event["error"]["message"]
    assert event["error"]["retryable"]
    await client.close()


@pytest.mark.parametrize("body", [b"<html>", b"[]", b"{}", b"[" * 100_000])
async def test_a_client_that_sends_no_commands_is_hung_up_on(body: bytes) -> None:
    client = await connected()
    client.send(body)
    assert (await client.next())["code"] == 1003
    await client.close()


async def test_a_message_that_is_too_large_is_hung_up_on() -> None:
    client = await connected(max_body_bytes=1000)
    client.send(b"x" * 1001)
    assert (await client.next())["code"] == 1009
    await client.close()


async def test_a_signed_handshake_is_accepted() -> None:
    security = NetworkExecutorSecurity.from_config(SIGNED)
    headers = security.headers_for(transport="websocket", target=PATH + "?a=1")
    client = Client(create_app(workers=1, security=SIGNED), headers)
    assert (await client.next())["type"] == "websocket.accept"
    await client.close()


@pytest.mark.parametrize("transport", ["none", "http"])
async def test_a_handshake_that_is_not_signed_rightly_is_refused(transport: Any) -> None:
    security = NetworkExecutorSecurity.from_config("none" if transport == "none" else SIGNED)
    headers = security.headers_for(transport="http", target=PATH + "?a=1")
    client = Client(create_app(workers=1, security=SIGNED), headers)
    message = await client.next()
    assert message["type"] == "websocket.close"
    await client.serving
