"""Outcomes that Redis carries, without a weave: what payloads say, the worker's side, the adapter's side."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from arq.connections import ArqRedis, create_pool
from arq.constants import in_progress_key_prefix, job_key_prefix, retry_key_prefix
from arq_backend import RedisServer

from tests.support.relay import Relay
from wove.testing.servers import free_port
from wove_arq.arriving import Arrivals, entries_in
from wove_arq.connecting import to_redis_settings
from wove_arq.exchange import Exchange, Outcome
from wove_arq.outcomes import CARRIED_TRIES, FIELD, LARGEST, asked, asking, stream_of
from wove_arq.settings import read_settings

NAME = "0123456789abcdef" * 2
STREAM = stream_of(NAME)


async def _restricted(redis: ArqRedis, redis_server: RedisServer, *rules: str) -> dict[str, Any]:
    """Return the settings of a user who may do everything but what the rules take away."""
    command = ["ACL", "SETUSER", "limited", "reset", "on", ">secret", "~*", "+@all", *rules]
    await redis.execute_command(*command)  # type: ignore[no-untyped-call]
    return {"host": "127.0.0.1", "port": redis_server.port, "username": "limited", "password": "secret"}


async def _job(redis: ArqRedis, name: str) -> None:
    """Leave what ARQ has of a job that a worker has begun."""
    await redis.set(f"{job_key_prefix}{name}", b"payload")
    await redis.psetex(f"{in_progress_key_prefix}{name}", 600_000, b"1")
    await redis.set(f"{retry_key_prefix}{name}", 1)


# --- payloads ---


def test_a_worker_finds_the_payload_as_it_was_and_the_stream() -> None:
    payload = {"run_id": "one"}
    assert asked(asking(payload, NAME, 1000)) == (payload, STREAM, 1000)
    assert asked(payload) == (payload, None, 0)


def test_a_payload_that_is_signed_does_not_ask_and_is_not_heeded() -> None:
    payload = {"run_id": "one", "callback_security": "env:SECRET"}
    assert asking(payload, NAME, 1000) == payload
    tampered = {**payload, FIELD: [NAME, 1000]}
    assert asked(tampered) == (tampered, None, 0)


@pytest.mark.parametrize(
    "wish", [None, "x", [], [NAME], [NAME, 0], [NAME, "9"], ["../arq:queue", 9], [f"{NAME}\n", 9], [7, 9]]
)
def test_no_other_key_can_be_asked_for(wish: object) -> None:
    assert asked({"run_id": "one", FIELD: wish}) == ({"run_id": "one"}, None, 0)


def test_a_worker_has_a_limit_of_its_own() -> None:
    assert asked({FIELD: [NAME, 10 * LARGEST]}) == ({}, STREAM, LARGEST)


# --- the worker's side ---


async def test_an_outcome_is_in_its_stream_for_a_while_and_its_job_has_nothing_more_to_say(redis: ArqRedis) -> None:
    await _job(redis, "one")
    assert await Exchange().say(Outcome(STREAM, "one", "run", b"outcome"), redis)
    ((_, fields),) = await redis.xrange(STREAM)
    assert fields == {b"run": b"outcome"}
    assert 0 < await redis.pttl(STREAM) <= 600_000
    assert await redis.get(f"{retry_key_prefix}one") == str(CARRIED_TRIES).encode()


async def test_an_outcome_leaves_nothing_of_a_job_that_is_over(redis: ArqRedis) -> None:
    assert await Exchange().say(Outcome(STREAM, "one", "run", b"outcome"), redis)
    assert await redis.keys() == [STREAM.encode()]


async def test_what_is_said_at_one_moment_is_answered_one_by_one(redis: ArqRedis) -> None:
    await _job(redis, "there")
    await _job(redis, "other")
    await redis.set(stream_of("f" * 32), "no stream")
    exchange = Exchange()
    heard = await asyncio.gather(
        exchange.say("there", redis),
        exchange.say("taken back", redis),
        exchange.say(Outcome(stream_of("f" * 32), "there", "run", b"lost"), redis),
        exchange.say(Outcome(STREAM, "other", "run", b"x" * LARGEST), redis),
        *(exchange.say(Outcome(STREAM, "other", f"run {n}", b"x" * LARGEST), redis) for n in range(40)),
    )
    assert heard == [True, False, False, True, *40 * [True]]
    assert await redis.get(f"{retry_key_prefix}there") == b"1"
    assert await redis.pttl(f"{in_progress_key_prefix}there") <= 6_000
    assert await redis.xlen(STREAM) == 41


async def test_jobs_are_shown_and_outcomes_posted_where_a_worker_may_use_no_scripts(
    redis: ArqRedis, redis_server: RedisServer
) -> None:
    limited = await create_pool(to_redis_settings(await _restricted(redis, redis_server, "-@scripting")))
    await _job(redis, "one")
    exchange = Exchange()
    outcome = Outcome(STREAM, "one", "run", b"outcome")
    heard = await asyncio.gather(exchange.say("one", limited), exchange.say(outcome, limited))
    assert list(heard) == [True, False]
    assert await redis.pttl(f"{in_progress_key_prefix}one") <= 6_000
    await limited.aclose(close_connection_pool=True)


async def test_a_redis_that_is_away_has_no_outcome() -> None:
    away = ArqRedis(host="127.0.0.1", port=free_port())
    assert not await Exchange().say(Outcome(STREAM, "one", "run", b"outcome"), away)
    await away.aclose(close_connection_pool=True)


async def test_whoever_waits_is_told_when_the_conversation_breaks_off() -> None:
    class Broken:
        async def evalsha(self, *arguments: object) -> object:
            raise ValueError("of another kind")

    exchange = Exchange()
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: None)
    heard = await asyncio.gather(*(exchange.say(name, Broken()) for name in ("one", "two")))
    assert heard == [False, False]


# --- the adapter's side ---


@pytest.fixture
async def arrivals(redis: ArqRedis, redis_server: RedisServer) -> AsyncIterator[Arrivals]:
    arrivals = Arrivals(read_settings({"redis_settings": redis_server.url()}))
    assert await arrivals.open()
    yield arrivals
    await arrivals.close()


async def _next(outcomes: AsyncIterator[tuple[str, bytes]]) -> tuple[str, bytes]:
    async with asyncio.timeout(20.0):
        return await anext(outcomes)


async def _gone(redis: ArqRedis, key: str) -> None:
    async with asyncio.timeout(20.0):
        while await redis.exists(key):  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def test_outcomes_arrive_in_their_order_and_nothing_is_left(arrivals: Arrivals, redis: ArqRedis) -> None:
    stream = stream_of(arrivals.name)
    for number in range(120):
        await redis.xadd(stream, {f"run {number}": b"outcome"})
    outcomes = arrivals.outcomes()
    assert [await _next(outcomes) for _ in range(120)] == [(f"run {number}", b"outcome") for number in range(120)]
    further = asyncio.create_task(_next(outcomes))
    await _gone(redis, stream)
    await redis.xadd(stream, {"last": b"outcome"})
    assert await further == ("last", b"outcome")


async def test_what_is_no_outcome_at_all_arrives_too_and_is_up_to_whoever_checks_it(
    arrivals: Arrivals, redis: ArqRedis
) -> None:
    await redis.xadd(stream_of(arrivals.name), {b"\xff": b""})
    assert await _next(arrivals.outcomes()) == ("\ufffd", b"")


async def test_waiting_goes_on_after_redis_has_been_away(redis: ArqRedis, redis_server: RedisServer) -> None:
    with Relay(redis_server.port) as relay:
        arrivals = Arrivals(read_settings({"redis_settings": redis_server.url(relay.port)}))
        assert await arrivals.open()
        outcomes = arrivals.outcomes()
        waiting = asyncio.create_task(_next(outcomes))
        await redis.xadd(stream_of(arrivals.name), {"one": b"before"})
        assert await waiting == ("one", b"before")
        await asyncio.to_thread(relay.shut)
        waiting = asyncio.create_task(_next(outcomes))
        await redis.xadd(stream_of(arrivals.name), {"two": b"meanwhile"})
        await asyncio.to_thread(relay.open)
        heard = {await waiting}
        while ("two", b"meanwhile") not in heard:
            # What has been read, and could not be removed, may come again.
            heard.add(await _next(outcomes))
        assert heard <= {("one", b"before"), ("two", b"meanwhile")}
        await arrivals.close()


async def test_an_adapter_that_closes_removes_what_is_left_and_waits_no_more(
    redis: ArqRedis, redis_server: RedisServer
) -> None:
    arrivals = Arrivals(read_settings({"redis_settings": redis_server.url()}))
    assert await arrivals.open()
    waiting = asyncio.create_task(_next(arrivals.outcomes()))
    await redis.xadd(stream_of(arrivals.name), {"one": b"outcome"})
    assert await waiting == ("one", b"outcome")
    await redis.xadd(stream_of(arrivals.name), {"two": b"outcome"})
    await arrivals.close()
    assert not await redis.exists(stream_of(arrivals.name))


async def test_closing_does_not_depend_on_redis(redis_server: RedisServer) -> None:
    with Relay(redis_server.port) as relay:
        arrivals = Arrivals(read_settings({"redis_settings": redis_server.url(relay.port)}))
        assert await arrivals.open()
        await asyncio.to_thread(relay.shut)
        async with asyncio.timeout(20.0):
            await arrivals.close()


@pytest.mark.parametrize("rule", ["-xread", "-eval"])
async def test_a_redis_that_lets_nobody_wait_for_outcomes_carries_none(
    redis: ArqRedis, redis_server: RedisServer, rule: str
) -> None:
    settings = await _restricted(redis, redis_server, rule)
    assert not await Arrivals(read_settings({"redis_settings": settings})).open()


async def test_entries_are_read_in_both_protocols(redis: ArqRedis, redis_server: RedisServer) -> None:
    await redis.xadd(STREAM, {"one": b"outcome"})
    other = ArqRedis(host="127.0.0.1", port=redis_server.port, protocol=3)
    for client in (redis, other):
        ((_, fields),) = entries_in(await client.xread({STREAM: "0"}))
        assert fields == {b"one": b"outcome"}
        assert entries_in(await client.xread({"arq:nothing": "0"})) == []
    await other.aclose(close_connection_pool=True)
