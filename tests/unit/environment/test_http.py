"""The http and https executors: what they send, and what they refuse to send."""

import asyncio
import threading

import pytest

from tests.support.http_runs import answering, give_result, never_answer
from tests.support.http_stub import Exchange, HttpStub
from tests.support.network import cancel_task, final, run_task, started
from wove import HttpEnvironmentExecutor, NetworkExecutorSecurity
from wove.backend.frames import deserialize_frame
from wove.environment import network_conversation
from wove.errors import ConfigurationError, SerializationError

SECRET = "a secret of more than sixteen bytes"


# --- tasks ---


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


# --- cancels ---


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
