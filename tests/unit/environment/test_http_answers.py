"""What the http executor makes of the answers of a service, also of a server that misbehaves."""

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest

from tests.support.http_runs import answering, assert_transport_error, run_against
from tests.support.http_stub import Exchange, HttpStub
from tests.support.network import events, final, run_task, started
from wove import HttpEnvironmentExecutor

# --- answers ---


@pytest.mark.parametrize(
    "shape",
    [lambda result: result, lambda result: [result], lambda result: {"events": [result]}],
    ids=["one event", "a list", "events"],
)
async def test_an_answer_may_be_one_event_a_list_or_events(shape: Callable[[Any], Any]) -> None:
    event = await run_against(answering(lambda exchange: shape(exchange.result())))
    assert event == {"type": "task_result", "run_id": "run-1", "task_id": "add", "result": 42}


async def test_events_of_one_answer_come_in_order() -> None:
    handler = answering(
        lambda exchange: [exchange.event("task_started"), exchange.event("heartbeat"), exchange.result()]
    )
    async with HttpStub(handler) as stub, started(HttpEnvironmentExecutor(), url=stub.url) as executor:
        await executor.send(run_task())
        assert [event["type"] for event in await events(executor)] == ["task_started", "heartbeat", "task_result"]


async def test_a_streamed_answer_is_heard_while_it_comes() -> None:
    go_on = asyncio.Event()

    async def handler(exchange: Exchange) -> None:
        assert "application/x-ndjson" in exchange.headers["accept"]
        await exchange.send("200 OK", {"Content-Type": "application/x-ndjson", "Transfer-Encoding": "chunked"})
        await exchange.chunk(b'{"type":"task_started","run_id":"run-1","task')
        await exchange.chunk(b'_id":"add"}\n{"events":[]}\n')
        await go_on.wait()
        await exchange.chunk(b'{"type":"task_result","run_id":"run-1","task_id":"add","result":1}\n')
        await exchange.chunk(b"")

    async with HttpStub(handler) as stub, started(HttpEnvironmentExecutor(), url=stub.url) as executor:
        await executor.send(run_task())
        async with asyncio.timeout(20):
            assert (await executor.recv())["type"] == "task_started"
        go_on.set()
        assert (await final(executor))["result"] == 1


async def test_an_event_of_unknown_type_is_passed_on_for_its_run_to_fail() -> None:
    handler = answering(lambda exchange: [exchange.event("task_paused"), exchange.result()])
    async with HttpStub(handler) as stub, started(HttpEnvironmentExecutor(), url=stub.url) as executor:
        await executor.send(run_task())
        assert [event["type"] for event in await events(executor)] == ["task_paused", "task_result"]


async def test_a_large_result_arrives() -> None:
    text = "x" * 20_000_000
    event = await run_against(answering(lambda exchange: exchange.result(text)))
    assert event["result"] == text


async def test_an_empty_answer_is_no_answer_to_a_task() -> None:
    assert_transport_error(await run_against(answering(lambda exchange: b"")), "without a final event")


async def test_an_announcement_of_the_answer_is_passed_over() -> None:
    async def handler(exchange: Exchange) -> None:
        await exchange.raw(b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n")
        await exchange.answer(exchange.result())

    assert (await run_against(handler))["result"] == 42


async def test_an_answer_may_end_with_its_connection() -> None:
    async def handler(exchange: Exchange) -> None:
        body = json.dumps(exchange.result()).encode()
        await exchange.raw(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n" + body)
        exchange.drop()

    async with HttpStub(handler) as stub, started(HttpEnvironmentExecutor(), url=stub.url) as executor:
        for number in range(2):
            await executor.send(run_task(f"run-{number}"))
            assert (await final(executor))["result"] == 42
    assert stub.connections == 2


async def test_what_nobody_has_asked_for_answers_no_later_run() -> None:
    async def handler(exchange: Exchange) -> None:
        body = json.dumps(exchange.result()).encode()
        answer = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)
        await exchange.raw(answer + b"HTTP/1.1 500 No\r\nContent-Length: 2\r\n\r\nno")

    async with HttpStub(handler) as stub, started(HttpEnvironmentExecutor(), url=stub.url) as executor:
        for number in range(2):
            await executor.send(run_task(f"run-{number}"))
            assert (await final(executor))["result"] == 42
    assert stub.connections == 2


# --- answers that are none ---


@pytest.mark.parametrize(
    "junk",
    [
        b"<html>It works!</html>",
        b"\x00\xff\xfe",
        b'{"type": "task_result", "run_id": "run-1"',
        b"[" * 100_000,
        b"42",
        b'["task_result"]',
        b'{"events": 5}',
        b'{"run_id": "run-1"}',
        b'{"type": 5, "run_id": "run-1"}',
        b'{"type": "task_result", "run_id": ["run-1"]}',
    ],
)
async def test_junk_is_an_error(junk: bytes) -> None:
    event = await run_against(answering(lambda exchange: junk))
    assert event["type"] == "task_error"
    assert event["error"]["source"] == "transport"


async def test_an_answer_for_another_run_is_refused() -> None:
    handler = answering(lambda exchange: {"type": "task_result", "run_id": "run-2", "task_id": "add", "result": 1})
    assert_transport_error(await run_against(handler), "another run")


async def test_a_redirect_is_not_followed() -> None:
    async def handler(exchange: Exchange) -> None:
        if exchange.target == "/elsewhere":
            await exchange.answer(exchange.result())
        await exchange.answer(b"", status="307 Temporary Redirect", headers={"Location": "/elsewhere"})

    async with HttpStub(handler) as stub, started(HttpEnvironmentExecutor(), url=stub.url) as executor:
        await executor.send(run_task())
        assert_transport_error(await final(executor), "redirects are not followed", retryable=False)
    assert [exchange.target for exchange in stub.exchanges] == ["/wove/tasks"]


@pytest.mark.parametrize(
    ("status", "retryable"),
    [("401 Unauthorized", False), ("404 Not Found", False), ("500 Internal Server Error", True), ("502 Bad", True)],
)
async def test_an_error_status_says_what_the_service_said(status: str, retryable: bool) -> None:
    event = await run_against(answering(lambda exchange: b"no such\x1b[31m luck", status=status))
    assert_transport_error(event, f"status {status[:3]}: no such [31m luck", retryable=retryable)


async def test_a_service_that_is_busy_is_asked_again() -> None:
    answers = iter(["503 Service Unavailable", "429 Too Many Requests"])

    async def handler(exchange: Exchange) -> None:
        status = next(answers, None)
        await (exchange.answer(b"", status=status) if status else exchange.answer(exchange.result()))

    assert (await run_against(handler))["result"] == 42


async def test_a_service_that_stays_busy_is_an_error() -> None:
    handler = answering(lambda exchange: b"later", status="503 Service Unavailable")
    assert_transport_error(await run_against(handler), "status 503: later")


async def test_an_answer_that_is_announced_as_too_large_is_not_read() -> None:
    async def handler(exchange: Exchange) -> None:
        await exchange.send("200 OK", {"Content-Length": str(600 * 1024 * 1024)})
        await asyncio.Event().wait()

    assert_transport_error(await run_against(handler), "larger than the 268,435,456 bytes", retryable=False)


@pytest.mark.parametrize("content_type", ["application/json", "application/x-ndjson"])
async def test_an_endless_answer_is_cut_off(content_type: str) -> None:
    async def handler(exchange: Exchange) -> None:
        await exchange.send("200 OK", {"Content-Type": content_type, "Transfer-Encoding": "chunked"})
        while True:
            await exchange.chunk(b"x" * 65536)

    event = await run_against(handler, max_response_bytes=1_000_000)
    assert_transport_error(event, "larger than the 1,000,000 bytes", retryable=False)


@pytest.mark.parametrize("data", [b"SSH-2.0-OpenSSH_9.6\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\n"])
async def test_a_server_that_does_not_speak_http_is_an_error(data: bytes) -> None:
    async def handler(exchange: Exchange) -> None:
        await exchange.raw(data)
        await asyncio.Event().wait()

    assert_transport_error(await run_against(handler), "does not speak HTTP")


@pytest.mark.parametrize(
    "beginning", [b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n"]
)
async def test_endless_headers_and_trailers_are_cut_off(beginning: bytes) -> None:
    async def handler(exchange: Exchange) -> None:
        await exchange.raw(beginning)
        while True:
            await exchange.raw(b"X-More: " + b"x" * 1000 + b"\r\n")

    assert_transport_error(await run_against(handler), "headers are longer than 65,536 bytes")
