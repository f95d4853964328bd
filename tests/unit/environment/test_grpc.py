"""The grpc executor against a server that misbehaves on demand."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import grpc
import pytest

from tests.support.network import cancel_task, events, final, run_task, started
from wove import GrpcEnvironmentExecutor, NetworkExecutorSecurity
from wove.backend.frames import deserialize_frame
from wove.environment.contract import EnvironmentExecutor
from wove.errors import DeliveryError

SERVICE = "wove.network_executor.WorkerService"
SECRET = "a secret of more than sixteen bytes"

Context = Any


@pytest.fixture(scope="module", autouse=True)
async def one_loop() -> AsyncIterator[None]:
    """All tests share an event loop: gRPC's thread goes on talking to a loop that it has once served."""
    yield  # noqa: PT022 - the loop is closed together with the fixture


Handler = Callable[[bytes, Context], Awaitable[bytes]]


class Stub:
    """A gRPC server with the one method that every worker service has, and, if wanted, Wove's own streaming one."""

    def __init__(self, handler: Handler, *, method: str = "Send", stream: Any = None) -> None:
        self.handler = handler
        self.methods: dict[str, grpc.RpcMethodHandler[bytes, bytes]] = {
            method: grpc.unary_unary_rpc_method_handler(self._send)
        }
        if stream is not None:
            self.methods["Stream"] = grpc.unary_stream_rpc_method_handler(stream)
        self.calls: list[tuple[dict[str, Any], dict[str, Any]]] = []
        self.bodies: list[bytes] = []
        self.port = 0

    @asynccontextmanager
    async def listening(self) -> AsyncIterator["Stub"]:
        server = grpc.aio.server(options=[("grpc.max_receive_message_length", -1)])
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, self.methods),))
        self.port = server.add_insecure_port(f"127.0.0.1:{self.port}")
        await server.start()
        try:
            yield self
        finally:
            await server.stop(None)

    async def _send(self, body: bytes, context: Context) -> bytes:
        self.bodies.append(body)
        self.calls.append((json.loads(body), dict(context.invocation_metadata())))
        return await self.handler(body, context)


def result(frame: dict[str, Any], value: Any = 42) -> dict[str, Any]:
    return {"type": "task_result", "run_id": frame["run_id"], "task_id": frame["task_id"], "result": value}


def answering(make: Callable[[dict[str, Any]], Any]) -> Handler:
    async def handler(body: bytes, context: Context) -> bytes:
        answer = make(json.loads(body))
        return answer if isinstance(answer, bytes) else json.dumps(answer).encode()

    return handler


async def never_answer(body: bytes, context: Context) -> bytes:
    await asyncio.Event().wait()
    return b""


@asynccontextmanager
async def executor_at(stub: Stub, **config: Any) -> AsyncIterator[EnvironmentExecutor]:
    async with stub.listening():
        target = f"127.0.0.1:{stub.port}"
        async with started(GrpcEnvironmentExecutor(), target=target, **config) as executor:
            yield executor


def assert_transport_error(event: dict[str, Any], text: str, *, retryable: bool = True) -> None:
    assert event["type"] == "task_error"
    assert event["error"]["source"] == "transport"
    assert event["error"]["retryable"] is retryable
    assert text in event["error"]["message"]
    assert isinstance(event["exception"], DeliveryError)


async def test_a_command_is_one_unary_call_with_the_bytes_of_its_json() -> None:
    stub = Stub(answering(result))
    async with executor_at(stub) as executor:
        await executor.send(run_task())
        assert await final(executor) == result({"run_id": "run-1", "task_id": "add"})
    ((frame, _),) = stub.calls
    decoded = deserialize_frame(frame)
    assert decoded["callable"](**decoded["args"]) == 3


async def test_another_method_can_be_called() -> None:
    stub = Stub(answering(result), method="Run")
    async with executor_at(stub, method=f"/{SERVICE}/Run") as executor:
        await executor.send(run_task())
        assert (await final(executor))["result"] == 42


async def test_metadata_and_a_signature_over_the_method_are_sent() -> None:
    security = {"type": "signed", "secret": SECRET}
    stub = Stub(answering(result))
    async with executor_at(stub, security=security, metadata={"x-tenant": "blue"}) as executor:
        await executor.send(run_task())
        await final(executor)
    metadata = stub.calls[0][1]
    assert metadata["x-tenant"] == "blue"
    NetworkExecutorSecurity.from_config(security).verify_metadata(
        metadata=metadata, transport="grpc", target=f"/{SERVICE}/Send", body=stub.bodies[0]
    )


@pytest.mark.parametrize("shape", [lambda event: [event], lambda event: {"events": [event]}], ids=["list", "events"])
async def test_an_answer_may_be_a_list_or_events(shape: Callable[[Any], Any]) -> None:
    async with executor_at(Stub(answering(lambda frame: shape(result(frame))))) as executor:
        await executor.send(run_task())
        assert (await final(executor))["result"] == 42


async def test_a_cancel_may_be_answered_with_nothing() -> None:
    released = asyncio.Event()

    async def handler(body: bytes, context: Context) -> bytes:
        frame = json.loads(body)
        if frame["type"] == "cancel_task":
            released.set()
            return b""
        await released.wait()
        return json.dumps({"type": "task_cancelled", "run_id": frame["run_id"]}).encode()

    async with executor_at(Stub(handler)) as executor:
        await executor.send(run_task())
        await executor.send(cancel_task())
        assert (await final(executor))["type"] == "task_cancelled"


async def test_large_messages_travel_both_ways() -> None:
    async with executor_at(Stub(answering(lambda frame: result(frame, frame["args_pickle"])))) as executor:
        await executor.send(run_task(args={"left": b"x" * 20_000_000}))
        assert len((await final(executor))["result"]) > 26_000_000


async def test_a_hundred_runs_are_in_flight_at_once() -> None:
    everybody = asyncio.Barrier(100)

    async def handler(body: bytes, context: Context) -> bytes:
        await everybody.wait()
        return json.dumps(result(json.loads(body))).encode()

    async with executor_at(Stub(handler)) as executor:
        for number in range(100):
            await executor.send(run_task(f"run-{number}"))
        assert len({(await final(executor))["run_id"] for _ in range(100)}) == 100


async def test_a_service_of_wove_s_own_is_heard_while_the_task_runs() -> None:
    go_on = asyncio.Event()

    async def stream(body: bytes, context: Context) -> AsyncIterator[bytes]:
        frame = json.loads(body)
        if frame["type"] == "hello":
            yield b'{"type":"hello","beat":10}'
            return
        yield json.dumps({"type": "task_started", "run_id": frame["run_id"]}).encode()
        yield b'{"events":[]}'
        await go_on.wait()
        yield json.dumps(result(frame)).encode()

    stub = Stub(answering(result), stream=stream)
    async with executor_at(stub) as executor:
        await executor.send(run_task())
        async with asyncio.timeout(20):
            assert (await executor.recv())["type"] == "task_started"
        go_on.set()
        assert [event["type"] for event in await events(executor)] == ["task_result"]
    assert stub.calls == []


async def test_a_streaming_method_that_is_not_wove_s_is_not_used() -> None:
    async def stream(body: bytes, context: Context) -> AsyncIterator[bytes]:
        yield b"who are you?"

    async with executor_at(Stub(answering(result), stream=stream)) as executor:
        await executor.send(run_task())
        assert (await final(executor))["result"] == 42


@pytest.mark.parametrize("junk", [b"<html>", b"\x00\xff", b"[" * 100_000, b"42", b'{"run_id": "run-1"}'])
async def test_junk_is_an_error(junk: bytes) -> None:
    async with executor_at(Stub(answering(lambda frame: junk))) as executor:
        await executor.send(run_task())
        assert_transport_error(await final(executor), "no event")


async def test_an_answer_for_another_run_is_refused() -> None:
    async with executor_at(Stub(answering(lambda frame: result({"run_id": "x", "task_id": "add"})))) as executor:
        await executor.send(run_task())
        assert_transport_error(await final(executor), "another run")


async def test_an_empty_answer_is_no_answer_to_a_task() -> None:
    async with executor_at(Stub(answering(lambda frame: b""))) as executor:
        await executor.send(run_task())
        assert_transport_error(await final(executor), "without a final event")


async def test_an_answer_that_is_too_large_is_an_error() -> None:
    stub = Stub(answering(lambda frame: result(frame, "x" * 2_000_000)))
    async with executor_at(stub, max_response_bytes=1_000_000) as executor:
        await executor.send(run_task())
        assert_transport_error(await final(executor), "RESOURCE_EXHAUSTED", retryable=False)


@pytest.mark.parametrize(
    ("status", "retryable"),
    [(grpc.StatusCode.UNAUTHENTICATED, False), (grpc.StatusCode.INTERNAL, True), (grpc.StatusCode.UNKNOWN, True)],
)
async def test_an_error_status_says_what_the_service_said(status: grpc.StatusCode, retryable: bool) -> None:
    async def handler(body: bytes, context: Context) -> bytes:
        await context.abort(status, "not today")
        return b""

    async with executor_at(Stub(handler)) as executor:
        await executor.send(run_task())
        assert_transport_error(await final(executor), f"{status.name}: not today", retryable=retryable)


async def test_a_service_that_is_not_there_is_an_error_soon() -> None:
    async with started(GrpcEnvironmentExecutor(), target="127.0.0.1:9") as executor:
        await executor.send(run_task())
        event = await final(executor, seconds=10)
    assert_transport_error(event, "cannot be reached")
    assert_transport_error(event, "python -m wove.services grpc --host 127.0.0.1 --port 9")


async def test_a_service_that_goes_away_ends_its_runs() -> None:
    arrived = asyncio.Event()

    async def handler(body: bytes, context: Context) -> bytes:
        arrived.set()
        return await never_answer(body, context)

    stub = Stub(handler)
    listening = stub.listening()
    await listening.__aenter__()
    async with started(GrpcEnvironmentExecutor(), target=f"127.0.0.1:{stub.port}") as executor:
        await executor.send(run_task())
        await arrived.wait()
        await listening.__aexit__(None, None, None)
        assert_transport_error(await final(executor), "the connection broke")


async def test_a_service_that_takes_longer_than_the_timeout_is_given_up() -> None:
    async with executor_at(Stub(never_answer), timeout=0.2) as executor:
        await executor.send(run_task())
        assert_transport_error(await final(executor), "within the timeout of 0.2 s")


async def test_proxy_variables_are_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "grpc_proxy", "https_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    async with executor_at(Stub(answering(result))) as executor:
        await executor.send(run_task())
        assert (await final(executor))["result"] == 42
