"""The http and https executors against a server that misbehaves on demand."""

import asyncio
import json
import threading
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

import wove
from tests.support.http_stub import Exchange, HttpStub
from tests.support.network import cancel_task, events, final, run_task, started
from wove import HttpEnvironmentExecutor, NetworkExecutorSecurity
from wove.backend.frames import deserialize_frame
from wove.backend.loop import on_io_loop
from wove.environment import network_conversation
from wove.errors import ConfigurationError, DeliveryError, DeliveryTimeoutError, SerializationError

SECRET = "a secret of more than sixteen bytes"


async def give_result(exchange: Exchange) -> None:
    await exchange.answer(exchange.result() if exchange.frame["type"] == "run_task" else b"")


async def never_answer(exchange: Exchange) -> None:
    await asyncio.Event().wait()


def answering(make: Callable[[Exchange], Any], **how: Any) -> Callable[[Exchange], Awaitable[None]]:
    async def handler(exchange: Exchange) -> None:
        await exchange.answer(make(exchange), **how)

    return handler


async def run_against(handler: Callable[[Exchange], Awaitable[None]], **config: Any) -> dict[str, Any]:
    async with HttpStub(handler) as stub, started(HttpEnvironmentExecutor(), url=stub.url, **config) as executor:
        await executor.send(run_task())
        return await final(executor)


def assert_transport_error(event: dict[str, Any], text: str, *, retryable: bool = True) -> None:
    assert event["type"] == "task_error"
    assert event["run_id"] == "run-1"
    assert event["task_id"] == "add"
    assert event["error"]["source"] == "transport"
    assert event["error"]["retryable"] is retryable
    assert text in event["error"]["message"]
    assert isinstance(event["exception"], DeliveryError)
    assert text in str(event["exception"])


# --- what is sent ---


async def test_a_command_is_posted_as_json_with_pickled_callable_and_arguments() -> None:
    async with HttpStub(give_result) as stub, started(HttpEnvironmentExecutor(), url=stub.url + "?queue=a") as executor:
        await executor.send(run_task(delivery={"delivery_timeout": 5.0}))
        await final(executor)
    (exchange,) = stub.exchanges
    assert (exchange.method, exchange.target) == ("POST", "/wove/tasks?queue=a")
    assert exchange.headers["content-type"] == "application/json"
    assert exchange.headers["host"] == f"127.0.0.1:{stub.port}"
    frame = deserialize_frame(exchange.frame)
    assert (frame["type"], frame["run_id"], frame["task_id"]) == ("run_task", "run-1", "add")
    assert frame["callable"](**frame["args"]) == 3
    assert frame["delivery"] == {"delivery_timeout": 5.0}


async def test_configured_headers_are_sent() -> None:
    async with (
        HttpStub(give_result) as stub,
        started(HttpEnvironmentExecutor(), url=stub.url, headers={"X-Tenant": "blue"}) as executor,
    ):
        await executor.send(run_task())
        await final(executor)
    assert stub.exchanges[0].headers["x-tenant"] == "blue"


async def test_each_request_is_signed_over_what_is_sent() -> None:
    security = {"type": "signed", "secret": SECRET}
    service = NetworkExecutorSecurity.from_config(security)
    async with (
        HttpStub(give_result) as stub,
        started(HttpEnvironmentExecutor(), url=stub.url + "?a=1", security=security) as executor,
    ):
        for run_id in ("one", "two"):
            await executor.send(run_task(run_id))
            await final(executor)
    for exchange in stub.exchanges:
        service.verify_headers(headers=exchange.headers, transport="http", target="/wove/tasks?a=1", body=exchange.body)


async def test_a_bearer_token_is_sent() -> None:
    async with HttpStub(give_result) as stub:
        security = {"type": "bearer", "token": "a-token-of-enough-length"}
        async with started(HttpEnvironmentExecutor(), url=stub.url, security=security) as executor:
            await executor.send(run_task())
            await final(executor)
    assert stub.exchanges[0].headers["authorization"] == "Bearer a-token-of-enough-length"


async def test_a_callable_that_cannot_be_pickled_fails_where_it_is_sent() -> None:
    async with started(HttpEnvironmentExecutor(), url="http://127.0.0.1:9/") as executor:
        with pytest.raises(SerializationError, match="'add'"):
            await executor.send(run_task(args={"left": threading.Lock(), "right": 2}))


async def test_a_large_argument_arrives() -> None:
    handler = answering(lambda exchange: exchange.result(len(exchange.body)))
    async with HttpStub(handler) as stub, started(HttpEnvironmentExecutor(), url=stub.url) as executor:
        await executor.send(run_task(args={"left": b"x" * 20_000_000, "right": 2}))
        assert (await final(executor))["result"] > 26_000_000


# --- what is answered ---


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


async def test_a_cancel_may_be_answered_with_nothing() -> None:
    released = asyncio.Event()

    async def handler(exchange: Exchange) -> None:
        if exchange.frame["type"] == "cancel_task":
            await exchange.answer(b"", status="204 No Content")
            released.set()
        else:
            await released.wait()
            await exchange.answer(exchange.event("task_cancelled"))

    async with HttpStub(handler) as stub, started(HttpEnvironmentExecutor(), url=stub.url) as executor:
        await executor.send(run_task())
        await stub.until(lambda stub: len(stub.exchanges) == 1)
        await executor.send(cancel_task())
        assert (await final(executor))["type"] == "task_cancelled"
    assert stub.exchanges[1].frame["delivery_cancel_mode"] == "best_effort"


async def test_a_final_event_that_answers_a_cancel_ends_the_run() -> None:
    async def handler(exchange: Exchange) -> None:
        if exchange.frame["type"] == "run_task":
            await never_answer(exchange)
        await exchange.answer(exchange.event("task_cancelled"))

    async with HttpStub(handler) as stub, started(HttpEnvironmentExecutor(), url=stub.url) as executor:
        await executor.send(run_task())
        await stub.until(lambda stub: len(stub.exchanges) == 1)
        await executor.send(cancel_task())
        assert (await final(executor))["type"] == "task_cancelled"


async def test_a_run_that_cannot_be_sent_is_cancelled_on_this_side(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(network_conversation, "REACH_SECONDS", 60.0)
    monkeypatch.setattr(network_conversation, "SENT_SECONDS", 0.05)
    async with started(HttpEnvironmentExecutor(), url="http://127.0.0.1:9/") as executor:
        await executor.send(run_task())
        await executor.send(cancel_task())
        assert (await final(executor))["type"] == "task_cancelled"


async def test_a_cancel_that_does_not_arrive_raises() -> None:
    async with started(HttpEnvironmentExecutor(), url="http://127.0.0.1:9/") as executor:
        with pytest.raises(ConnectionError, match="'workers'"):
            await executor.send(cancel_task())


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


# --- connections that fail ---


async def test_a_service_that_is_not_there_is_an_error_soon() -> None:
    async with started(HttpEnvironmentExecutor(), url="http://127.0.0.1:9/wove/tasks") as executor:
        await executor.send(run_task())
        event = await final(executor, seconds=5)
    assert_transport_error(event, "http://127.0.0.1:9/wove/tasks: it cannot be reached")
    assert_transport_error(event, "python -m wove.services http --host 127.0.0.1 --port 9")


async def test_a_service_that_comes_up_in_time_gets_the_task() -> None:
    stub = HttpStub(give_result)
    async with stub:
        pass
    async with started(HttpEnvironmentExecutor(), url=stub.url) as executor:
        await executor.send(run_task())
        await asyncio.sleep(0)
        async with stub:
            assert (await final(executor))["result"] == 42


@pytest.mark.parametrize(
    "beginning", [b"", b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n{"], ids=len
)
async def test_a_connection_that_breaks_is_an_error(beginning: bytes) -> None:
    async def handler(exchange: Exchange) -> None:
        await exchange.raw(beginning)
        exchange.drop()

    async with HttpStub(handler) as stub, started(HttpEnvironmentExecutor(), url=stub.url) as executor:
        await executor.send(run_task())
        assert_transport_error(await final(executor), "closed the connection")
    assert stub.commands() == ["run_task"], "the task may have been executed: it is not sent again"


async def test_a_service_that_takes_longer_than_the_timeout_is_given_up_and_told_so() -> None:
    async def handler(exchange: Exchange) -> None:
        await (never_answer(exchange) if exchange.frame["type"] == "run_task" else exchange.answer(b""))

    async with HttpStub(handler) as stub, started(HttpEnvironmentExecutor(), url=stub.url, timeout=0.2) as executor:
        await executor.send(run_task())
        event = await final(executor)
        await stub.until(lambda stub: stub.commands() == ["run_task", "cancel_task"])
    assert_transport_error(event, "within the timeout of 0.2 s")
    assert isinstance(event["exception"], DeliveryTimeoutError)


async def test_a_service_that_falls_silent_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(network_conversation, "SILENCE_SECONDS", 0.2)
    assert_transport_error(await run_against(never_answer), "has sent nothing for 0.2 s")


async def test_a_silent_service_is_waited_for_where_no_timeout_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(network_conversation, "SILENCE_SECONDS", 0.05)

    async def handler(exchange: Exchange) -> None:
        await asyncio.sleep(0.3)
        await exchange.answer(exchange.result())

    assert (await run_against(handler, timeout=None))["result"] == 42


async def test_a_run_is_taken_up_again_at_a_service_that_keeps_runs() -> None:
    async def handler(exchange: Exchange) -> None:
        if exchange.frame["type"] == "attach_run":
            await exchange.answer(exchange.result(7), headers={"Wove-Beat": "10"})
            return
        await exchange.send("200 OK", {"Content-Length": "500", "Wove-Beat": "10"})
        exchange.drop()

    async with HttpStub(handler) as stub, started(HttpEnvironmentExecutor(), url=stub.url) as executor:
        await executor.send(run_task())
        assert (await final(executor))["result"] == 7
    assert stub.commands() == ["run_task", "attach_run"]
    assert stub.exchanges[1].frame == {"type": "attach_run", "run_id": "run-1", "task_id": "add"}


async def test_a_service_that_stops_its_signs_of_life_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(network_conversation, "RESUME_SECONDS", 0.5)

    async def handler(exchange: Exchange) -> None:
        await exchange.send("200 OK", {"Content-Length": "500", "Wove-Beat": "0.05"})
        await asyncio.Event().wait()

    assert_transport_error(await run_against(handler), "silent for 0.15")


async def test_proxy_variables_are_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    assert (await run_against(give_result))["result"] == 42


# --- connections that are kept ---


async def test_runs_that_follow_each_other_share_a_connection() -> None:
    async with HttpStub(give_result) as stub, started(HttpEnvironmentExecutor(), url=stub.url) as executor:
        for number in range(5):
            await executor.send(run_task(f"run-{number}"))
            await final(executor)
    assert stub.connections == 1


async def test_a_connection_that_the_service_closes_is_not_used_again() -> None:
    async def handler(exchange: Exchange) -> None:
        await exchange.answer(exchange.result())
        exchange.drop()

    async with HttpStub(handler) as stub, started(HttpEnvironmentExecutor(), url=stub.url) as executor:
        for number in range(5):
            await executor.send(run_task(f"run-{number}"))
            assert (await final(executor))["result"] == 42
            await stub.until(lambda stub: stub.open == 0)
    assert stub.connections == 5


async def test_a_connection_is_not_used_for_longer_than_the_service_promises_to_keep_it() -> None:
    handler = answering(lambda exchange: exchange.result(), headers={"Keep-Alive": "timeout=1"})
    async with HttpStub(handler) as stub, started(HttpEnvironmentExecutor(), url=stub.url) as executor:
        for number in range(2):
            await executor.send(run_task(f"run-{number}"))
            await final(executor)
    assert stub.connections == 2


async def test_a_hundred_runs_are_in_flight_at_once_without_a_thread() -> None:
    everybody = asyncio.Barrier(100)

    async def handler(exchange: Exchange) -> None:
        await everybody.wait()
        await exchange.answer(exchange.result(exchange.frame["run_id"]))

    async with HttpStub(handler) as stub, started(HttpEnvironmentExecutor(), url=stub.url) as executor:
        before = threading.active_count()
        for number in range(100):
            await executor.send(run_task(f"run-{number}"))
        results = {(await final(executor))["result"] for _ in range(100)}
        assert threading.active_count() <= before
    assert results == {f"run-{number}" for number in range(100)}


async def test_stopping_closes_the_connections_and_gives_up_what_is_pending() -> None:
    async with HttpStub(never_answer) as stub:
        async with started(HttpEnvironmentExecutor(), url=stub.url) as executor:
            await executor.send(run_task())
            await stub.until(lambda stub: len(stub.exchanges) == 1)
        await stub.until(lambda stub: stub.open == 0)


async def test_closing_a_run_closes_its_connection() -> None:
    executor = HttpEnvironmentExecutor()
    async with HttpStub(never_answer) as stub, started(executor, url=stub.url):
        await executor.send(run_task())
        await stub.until(lambda stub: len(stub.exchanges) == 1)
        executor.close_run("run-1")
        await stub.until(lambda stub: stub.open == 0)


async def test_sessions_on_the_background_loop_share_connections_until_shutdown() -> None:
    async with HttpStub(give_result) as stub:

        async def session() -> Any:
            async with started(HttpEnvironmentExecutor(), url=stub.url) as executor:
                await executor.send(run_task())
                return (await final(executor))["result"]

        assert [await on_io_loop(session()) for _ in range(3)] == [42, 42, 42]
        assert stub.connections == 1
        await asyncio.to_thread(wove.shutdown)
        await stub.until(lambda stub: stub.open == 0)


# --- the contract ---


async def test_sending_before_the_start_is_an_error() -> None:
    with pytest.raises(RuntimeError, match="not been started"):
        await HttpEnvironmentExecutor().send(run_task())
    with pytest.raises(RuntimeError, match="not been started"):
        await HttpEnvironmentExecutor().recv()


async def test_an_unknown_command_is_an_error() -> None:
    async with started(HttpEnvironmentExecutor(), url="http://127.0.0.1:9/") as executor:
        with pytest.raises(ValueError, match="Did you mean 'run_task'"):
            await executor.send({"type": "run_tusk", "run_id": "run-1"})


async def test_shutting_a_session_down_says_nothing_to_the_shared_service() -> None:
    async with HttpStub(give_result) as stub, started(HttpEnvironmentExecutor(), url=stub.url) as executor:
        await executor.send({"type": "shutdown"})
        await executor.send(run_task())
        await final(executor)
    assert stub.commands() == ["run_task"]


async def test_https_demands_an_https_url() -> None:
    executor = HttpEnvironmentExecutor(require_https=True)
    with pytest.raises(ConfigurationError, match="https://"):
        await executor.start(environment_name="e", environment_config={"url": "http://127.0.0.1:9/"}, run_config={})
