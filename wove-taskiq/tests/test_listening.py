"""Workers of Wove's own line, and connections to Redis that are silent or break."""

import asyncio
import contextlib
import os
import signal
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing, asynccontextmanager

import pytest
from taskiq import AckableMessage, AsyncBroker, BrokerMessage
from taskiq_backend import RedisServer, own_command

from wove_taskiq.worker import QUEUE_VARIABLE, STREAM_VARIABLE, URL_VARIABLE, make_broker

SECONDS = 30.0


@pytest.fixture(params=["list", "stream"])
def kind(request: pytest.FixtureRequest, redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setenv(URL_VARIABLE, f"{redis_server.url()}?socket_timeout=0.2")
    monkeypatch.setenv(QUEUE_VARIABLE, f"listening-{request.param}")
    if request.param == "stream":
        monkeypatch.setenv(STREAM_VARIABLE, "1")
    yield str(request.param)
    with redis_server.client() as client:
        client.delete(f"listening-{request.param}")


@asynccontextmanager
async def _listening(broker: AsyncBroker) -> AsyncIterator["asyncio.Task[bytes | AckableMessage]"]:
    await broker.startup()
    async with aclosing(broker.listen()) as messages:
        waiting = asyncio.ensure_future(anext(messages))
        try:
            yield waiting
        finally:
            waiting.cancel()
            await asyncio.wait([waiting])
    await broker.shutdown()


async def _wait_for_blocked(redis_server: RedisServer, *, besides: str = "", idle: int = 0) -> str:
    """Return the id of the connection that waits for a message, and has done so for some seconds."""
    deadline = time.monotonic() + SECONDS
    with redis_server.client() as client:
        while time.monotonic() < deadline:
            for each in client.client_list():
                if "b" in each["flags"] and each["id"] != besides and int(each["age"]) >= idle:
                    return str(each["id"])
            await asyncio.sleep(0.02)
    raise AssertionError("Nobody waits for messages.")


async def _listens(broker: AsyncBroker, waiting: "asyncio.Task[bytes | AckableMessage]") -> bool:
    await broker.kick(BrokerMessage(task_id="one", task_name="wove.run", message=b"hello", labels={}))
    message = await asyncio.wait_for(waiting, SECONDS)
    return (message.data if isinstance(message, AckableMessage) else message) == b"hello"


async def test_a_worker_waits_for_messages_for_longer_than_for_answers(kind: str, redis_server: RedisServer) -> None:
    broker = make_broker()
    async with _listening(broker) as waiting:
        await _wait_for_blocked(redis_server, idle=1)
        assert await _listens(broker, waiting)


async def test_a_worker_listens_on_after_its_connection_broke(kind: str, redis_server: RedisServer) -> None:
    broker = make_broker()
    async with _listening(broker) as waiting:
        broken = await _wait_for_blocked(redis_server)
        with redis_server.client() as client:
            client.client_kill_filter(_id=broken)
        await _wait_for_blocked(redis_server, besides=broken)
        assert await _listens(broker, waiting)


@pytest.mark.parametrize("options", [[], ["--stream"]], ids=["list", "stream"])
def test_a_worker_that_waits_for_messages_ends_at_sigterm(redis_server: RedisServer, options: list[str]) -> None:
    command = own_command(redis_server.url(), "--queue-name", "ending", *options)
    env = {**os.environ, "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(command, stderr=subprocess.PIPE, env=env, text=True, start_new_session=True) as worker:
        assert worker.stderr is not None
        try:
            # Each of its two processes says so.
            for _ in range(2):
                assert any("Listening started." in line for line in worker.stderr)
            asyncio.run(_wait_for_blocked(redis_server))
            worker.send_signal(signal.SIGTERM)
            assert worker.wait(SECONDS) == 0
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(worker.pid, signal.SIGKILL)
    with redis_server.client() as client:
        client.delete("ending")
