"""The websocket executor against a server that misbehaves on demand."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from http import HTTPStatus
from typing import Any

import pytest
from websockets.asyncio.server import ServerConnection, serve
from websockets.http11 import Request, Response

from tests.support.network import cancel_task, events, final, run_task, started
from wove import NetworkExecutorSecurity, WebSocketEnvironmentExecutor
from wove.backend.frames import deserialize_frame
from wove.environment import network_conversation
from wove.environment.contract import EnvironmentExecutor
from wove.errors import DeliveryError

SECRET = "a secret of more than sixteen bytes"
Handler = Callable[[ServerConnection], Awaitable[None]]


class Stub:
    """A WebSocket server whose connections a handler serves."""

    def __init__(self, handler: Handler, *, headers: dict[str, str] | None = None, refuse: int | None = None) -> None:
        self.handler = handler
        self.headers = headers or {}
        self.refuse = refuse
        self.connections: list[ServerConnection] = []
        self.port = 0

    @property
    def url(self) -> str:
        return f"ws://127.0.0.1:{self.port}/wove/tasks?queue=a"

    @asynccontextmanager
    async def listening(self) -> AsyncIterator["Stub"]:
        async with serve(
            self._serve, "127.0.0.1", self.port, process_request=self._answer, process_response=self._add, max_size=None
        ) as server:
            self.port = server.sockets[0].getsockname()[1]
            yield self

    async def _serve(self, connection: ServerConnection) -> None:
        self.connections.append(connection)
        await self.handler(connection)

    def _answer(self, connection: ServerConnection, request: Request) -> Response | None:
        if self.refuse is None or request.path == "/elsewhere":
            return None
        response = connection.respond(HTTPStatus(self.refuse), "not today")
        response.headers["Location"] = "/elsewhere"
        return response

    def _add(self, connection: ServerConnection, request: Request, response: Response) -> Response:
        for name, value in self.headers.items():
            response.headers[name] = value
        return response


def result(frame: dict[str, Any], value: Any = 42) -> dict[str, Any]:
    return {"type": "task_result", "run_id": frame["run_id"], "task_id": frame["task_id"], "result": value}


async def give_results(connection: ServerConnection) -> None:
    async for message in connection:
        await connection.send(json.dumps(result(json.loads(message))))


def answering(make: Callable[[dict[str, Any]], Any]) -> Handler:
    async def handler(connection: ServerConnection) -> None:
        async for message in connection:
            answer = make(json.loads(message))
            await connection.send(answer if isinstance(answer, str | bytes) else json.dumps(answer))

    return handler


@asynccontextmanager
async def executor_at(stub: Stub, **config: Any) -> AsyncIterator[EnvironmentExecutor]:
    async with stub.listening(), started(WebSocketEnvironmentExecutor(), url=stub.url, **config) as executor:
        yield executor


def assert_transport_error(event: dict[str, Any], text: str) -> None:
    assert event["type"] == "task_error"
    assert event["error"]["source"] == "transport"
    assert text in event["error"]["message"]
    assert isinstance(event["exception"], DeliveryError)


async def test_a_command_is_one_text_message() -> None:
    messages: list[Any] = []

    async def handler(connection: ServerConnection) -> None:
        async for message in connection:
            messages.append(message)
            await connection.send(json.dumps(result(json.loads(message))))

    async with executor_at(Stub(handler)) as executor:
        await executor.send(run_task())
        assert (await final(executor))["result"] == 42
    (message,) = messages
    assert isinstance(message, str)
    frame = deserialize_frame(json.loads(message))
    assert frame["callable"](**frame["args"]) == 3


async def test_the_handshake_is_signed_over_an_empty_body_and_carries_headers() -> None:
    security = {"type": "signed", "secret": SECRET}
    stub = Stub(give_results)
    async with executor_at(stub, security=security, headers={"X-Tenant": "blue"}) as executor:
        await executor.send(run_task())
        await final(executor)
        request = stub.connections[0].request
    assert request is not None
    assert request.headers["X-Tenant"] == "blue"
    NetworkExecutorSecurity.from_config(security).verify_headers(
        headers=request.headers, transport="websocket", target="/wove/tasks?queue=a"
    )


@pytest.mark.parametrize(
    "shape",
    [
        lambda event: event,
        lambda event: [event],
        lambda event: {"events": [event]},
        lambda event: json.dumps(event).encode(),
    ],
    ids=["one event", "a list", "events", "a binary message"],
)
async def test_a_message_may_be_one_event_a_list_or_events(shape: Callable[[Any], Any]) -> None:
    async with executor_at(Stub(answering(lambda frame: shape(result(frame))))) as executor:
        await executor.send(run_task())
        assert await final(executor) == result({"run_id": "run-1", "task_id": "add"})


async def test_events_come_in_order() -> None:
    async def handler(connection: ServerConnection) -> None:
        frame = json.loads(await connection.recv())
        for kind in ("task_started", "heartbeat"):
            await connection.send(json.dumps({"type": kind, "run_id": frame["run_id"]}))
        await connection.send(json.dumps(result(frame)))
        await connection.wait_closed()

    async with executor_at(Stub(handler)) as executor:
        await executor.send(run_task())
        assert [event["type"] for event in await events(executor)] == ["task_started", "heartbeat", "task_result"]


async def test_many_runs_share_one_connection_and_may_end_in_any_order() -> None:
    async def handler(connection: ServerConnection) -> None:
        frames = [json.loads(await connection.recv()) for _ in range(200)]
        await connection.send(json.dumps([result(frame, frame["run_id"]) for frame in reversed(frames)]))
        await connection.wait_closed()

    stub = Stub(handler)
    async with executor_at(stub) as executor:
        for number in range(200):
            await executor.send(run_task(f"run-{number}"))
        answers = [await final(executor) for _ in range(200)]
    assert all(answer["result"] == answer["run_id"] for answer in answers)
    assert len({answer["run_id"] for answer in answers}) == 200
    assert len(stub.connections) == 1


async def test_a_cancel_is_sent_over_the_same_connection() -> None:
    async def handler(connection: ServerConnection) -> None:
        await connection.recv()
        frame = json.loads(await connection.recv())
        assert frame["type"] == "cancel_task"
        await connection.send(json.dumps({"type": "task_cancelled", "run_id": frame["run_id"]}))
        await connection.wait_closed()

    async with executor_at(Stub(handler)) as executor:
        await executor.send(run_task())
        await executor.send(cancel_task())
        assert (await final(executor))["type"] == "task_cancelled"


async def test_large_messages_travel_both_ways() -> None:
    async with executor_at(Stub(answering(lambda frame: result(frame, frame["args_pickle"])))) as executor:
        await executor.send(run_task(args={"left": b"x" * 20_000_000}))
        assert len((await final(executor))["result"]) > 26_000_000


async def test_an_event_of_an_unknown_run_is_ignored() -> None:
    handler = answering(lambda frame: [result({"run_id": "stranger", "task_id": "x"}, 1), result(frame)])
    async with executor_at(Stub(handler)) as executor:
        await executor.send(run_task())
        assert (await final(executor))["run_id"] == "run-1"


@pytest.mark.parametrize("junk", ["<html>", b"\x00\xff", "[" * 100_000, "42", '{"events": 5}'])
async def test_junk_ends_the_runs_of_its_connection(junk: str | bytes) -> None:
    async with executor_at(Stub(answering(lambda frame: junk))) as executor:
        await executor.send(run_task())
        assert_transport_error(await final(executor), "no event")


async def test_the_connection_is_made_anew_after_junk() -> None:
    answers = iter(["junk"])
    stub = Stub(answering(lambda frame: next(answers, None) or result(frame)))
    async with executor_at(stub) as executor:
        await executor.send(run_task())
        await final(executor)
        await executor.send(run_task("run-2"))
        assert (await final(executor))["result"] == 42
    assert len(stub.connections) == 2


async def test_a_message_that_is_too_large_is_an_error() -> None:
    async with executor_at(Stub(answering(lambda frame: "x" * 2_000_000)), max_response_bytes=1_000_000) as executor:
        await executor.send(run_task())
        assert_transport_error(await final(executor), "'max_response_bytes'")


async def test_a_connection_that_breaks_ends_its_runs_and_the_next_run_gets_a_new_one() -> None:
    breaking = iter([True])

    async def handler(connection: ServerConnection) -> None:
        async for message in connection:
            if next(breaking, False):
                connection.transport.abort()
                return
            await connection.send(json.dumps(result(json.loads(message))))

    stub = Stub(handler)
    async with executor_at(stub) as executor:
        await executor.send(run_task())
        event = await final(executor)
        assert_transport_error(event, "the connection broke")
        assert event["error"]["retryable"]
        await executor.send(run_task("run-2"))
        assert (await final(executor))["result"] == 42


async def test_runs_are_taken_up_again_at_a_service_that_keeps_runs() -> None:
    commands: list[str] = []

    async def handler(connection: ServerConnection) -> None:
        async for message in connection:
            frame = json.loads(message)
            commands.append(frame["type"])
            if frame["type"] == "run_task":
                connection.transport.abort()
            else:
                await connection.send(json.dumps(result(frame, 7)))

    async with executor_at(Stub(handler, headers={"Wove-Beat": "10"})) as executor:
        await executor.send(run_task())
        assert (await final(executor))["result"] == 7
    assert commands == ["run_task", "attach_run"]


async def test_a_service_that_stops_its_signs_of_life_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(network_conversation, "RESUME_SECONDS", 0.3)

    async def handler(connection: ServerConnection) -> None:
        await connection.wait_closed()

    async with executor_at(Stub(handler, headers={"Wove-Beat": "0.05"})) as executor:
        await executor.send(run_task())
        assert_transport_error(await final(executor), "silent for 0.15")


async def test_signs_of_life_keep_a_silent_run_alive() -> None:
    async def handler(connection: ServerConnection) -> None:
        frame = json.loads(await connection.recv())
        for _ in range(20):
            await connection.send('{"events":[]}')
            await asyncio.sleep(0.02)
        await connection.send(json.dumps(result(frame)))
        await connection.wait_closed()

    async with executor_at(Stub(handler, headers={"Wove-Beat": "0.05"})) as executor:
        await executor.send(run_task())
        assert (await final(executor))["result"] == 42


async def test_a_service_that_takes_longer_than_the_timeout_is_given_up() -> None:
    async def handler(connection: ServerConnection) -> None:
        await connection.wait_closed()

    async with executor_at(Stub(handler), timeout=0.1) as executor:
        await executor.send(run_task())
        assert_transport_error(await final(executor), "within the timeout of 0.1 s")


async def test_a_redirect_is_not_followed() -> None:
    async with executor_at(Stub(give_results, refuse=307)) as executor:
        await executor.send(run_task())
        assert_transport_error(await final(executor), "redirects are not followed")


@pytest.mark.parametrize(("status", "retryable"), [(401, False), (403, False), (500, True)])
async def test_a_refused_handshake_says_why(status: int, retryable: bool) -> None:
    async with executor_at(Stub(give_results, refuse=status)) as executor:
        await executor.send(run_task())
        event = await final(executor)
    assert_transport_error(event, f"answered with status {status}: not today")
    assert event["error"]["retryable"] is retryable


async def test_a_service_that_is_not_there_is_an_error_soon() -> None:
    async with started(WebSocketEnvironmentExecutor(), url="ws://127.0.0.1:9/") as executor:
        await executor.send(run_task())
        event = await final(executor, seconds=5)
    assert_transport_error(event, "cannot be reached")
    assert_transport_error(event, "python -m wove.services websocket --host 127.0.0.1 --port 9")


async def test_a_service_that_does_not_answer_the_handshake_is_an_error() -> None:
    async def serve_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    async with await asyncio.start_server(serve_nothing, "127.0.0.1", 0) as server:
        url = f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
        async with started(WebSocketEnvironmentExecutor(), url=url, open_timeout=0.2) as executor:
            await executor.send(run_task())
            assert_transport_error(await final(executor), "cannot be reached")


async def test_proxy_variables_are_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    async with executor_at(Stub(give_results)) as executor:
        await executor.send(run_task())
        assert (await final(executor))["result"] == 42


async def test_stopping_closes_the_connection() -> None:
    stub = Stub(give_results)
    async with stub.listening():
        async with started(WebSocketEnvironmentExecutor(), url=stub.url) as executor:
            await executor.send(run_task())
            await final(executor)
        async with asyncio.timeout(20):
            await stub.connections[0].wait_closed()
