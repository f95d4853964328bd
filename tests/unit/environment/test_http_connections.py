"""Connections of the http executor: those that fail, and those that are kept."""

import asyncio
import threading
from typing import Any

import pytest

import wove
from tests.support.http_runs import answering, assert_transport_error, give_result, never_answer, run_against
from tests.support.http_stub import Exchange, HttpStub
from tests.support.network import final, run_task, started
from wove import HttpEnvironmentExecutor
from wove.backend.loop import on_io_loop
from wove.environment import network_conversation
from wove.errors import DeliveryTimeoutError

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
