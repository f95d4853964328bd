"""How large and how slow a request may be: the receiver stays as small and as quick as it was."""

import asyncio
import contextlib
import gc
import time
import tracemalloc
from typing import Any

import pytest

from tests.support.receiving import (
    IMPATIENT,
    MIB,
    Connection,
    Receiving,
    answered_without_body,
    event,
    receiving,
    still_works,
)
from wove.backend.frames import frame_to_bytes

# --- large ones ---


async def test_a_body_above_the_limit_gets_413_before_it_is_read() -> None:
    async with receiving(callback_max_bytes=1000) as receiver:
        await receiver.open_run("a")
        assert await answered_without_body(receiver.url, content_length="1001") == 413
        answer = await receiver.post(event("a", "log", message="x" * 1000))
        assert answer.status == 413
        assert "1,000" in answer.json["error"]
        assert await still_works(receiver)


async def test_a_body_at_the_limit_is_accepted() -> None:
    body = frame_to_bytes(event("a", "log", message="x" * 1000))
    async with receiving(callback_max_bytes=len(body)) as receiver:
        await receiver.open_run("a")
        assert (await receiver.post(body)).status == 200
        assert (await receiver.post(body + b" ")).status == 413


async def test_500_megabytes_are_refused_in_flat_memory(receiver: Receiving) -> None:
    await receiver.open_run("a")
    size = 500 * MIB
    async with Connection(receiver.url) as connection:
        with allocations() as peak:
            await connection.send(connection.head("POST", {"content-length": str(size)}))
            piece = b"x" * MIB
            for _ in range(500):
                await connection.send(piece)
            answer = await connection.answer()
        assert answer.status == 413
        # The connection has been read to the end of the body, so it carries another request.
        body = frame_to_bytes(event("a"))
        await connection.send(connection.head("POST", {"content-length": str(len(body))}) + body)
        assert (await connection.answer()).status == 200
    assert peak() < 16 * MIB


async def test_an_endless_body_is_cut_at_the_limit_in_flat_memory() -> None:
    async with receiving(callback_max_bytes=64 * MIB) as receiver:
        sent = 0
        with allocations() as peak:
            async with Connection(receiver.url) as connection:
                await connection.send(connection.head("POST", {"transfer-encoding": "chunked"}))
                reading = asyncio.ensure_future(connection.answer(seconds=60))
                piece = b"%x\r\n%s\r\n" % (MIB, b"x" * MIB)
                while not reading.done():
                    await connection.send(piece)
                    sent += MIB
                answer = await reading
        assert answer.status == 413
        assert sent < 96 * MIB
        assert peak() < 16 * MIB
        assert await still_works(receiver)


@contextlib.contextmanager
def allocations() -> Any:
    """Give a function that tells how many bytes more were allocated at the peak of the block than before it."""
    gc.collect()
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    result: list[int] = []
    try:
        yield lambda: result[0]
    finally:
        result.append(tracemalloc.get_traced_memory()[1] - before)
        tracemalloc.stop()


# --- slow ones ---


async def test_headers_that_come_slowly_are_dropped() -> None:
    async with receiving(limits=IMPATIENT) as receiver:
        async with Connection(receiver.url) as silent, Connection(receiver.url) as slow:
            await slow.send(slow.head("POST", {"content-length": "5"})[:-4])
            began = time.monotonic()
            drip = asyncio.ensure_future(_drip(slow, b"\r\nx: y"))
            await asyncio.gather(silent.ends(), slow.ends())
            drip.cancel()
            assert time.monotonic() - began < 5
        assert await still_works(receiver)


@pytest.mark.parametrize("first_request", [False, True])
async def test_endless_headers_are_dropped(receiver: Receiving, first_request: bool) -> None:
    async with Connection(receiver.url) as connection:
        if not first_request:
            await receiver.open_run("a")
            body = frame_to_bytes(event("a"))
            await connection.send(connection.head("POST", {"content-length": str(len(body))}) + body)
            assert (await connection.answer()).status == 200
        await connection.send(connection.head("POST", {})[:-2])
        sent = 0
        with contextlib.suppress(ConnectionError):
            while sent < 64 * MIB:
                await connection.send(b"x: " + b"y" * 65_000 + b"\r\n")
                sent += 65_000
        assert sent < 32 * MIB
    assert await still_works(receiver)


async def test_slow_headers_on_a_kept_connection_are_dropped() -> None:
    async with receiving(limits=IMPATIENT) as receiver, Connection(receiver.url) as connection:
        await receiver.open_run("a")
        body = frame_to_bytes(event("a"))
        await connection.send(connection.head("POST", {"content-length": str(len(body))}) + body)
        assert (await connection.answer()).status == 200
        await connection.send(b"POST /wove")
        await connection.ends()


async def test_a_kept_connection_may_be_idle_for_longer_than_headers_may_take() -> None:
    async with receiving(limits=IMPATIENT) as receiver, Connection(receiver.url) as connection:
        await receiver.open_run("a")
        body = frame_to_bytes(event("a"))
        for pause in (2 * IMPATIENT.head_seconds, 0):
            await connection.send(connection.head("POST", {"content-length": str(len(body))}) + body)
            assert (await connection.answer()).status == 200
            await asyncio.sleep(pause)


@pytest.mark.parametrize("fields", [{"content-length": "1000"}, {"transfer-encoding": "chunked"}])
async def test_a_body_that_comes_slowly_is_dropped(fields: dict[str, str]) -> None:
    async with receiving(limits=IMPATIENT) as receiver:
        async with Connection(receiver.url) as connection:
            await connection.send(connection.head("POST", fields))
            drip = asyncio.ensure_future(_drip(connection, b"1\r\nx\r\n"))
            assert (await connection.answer()).status == 408
            await connection.ends()
            drip.cancel()
        assert await still_works(receiver)


async def test_a_client_that_leaves_in_the_middle_harms_nobody(receiver: Receiving) -> None:
    for _ in range(20):
        async with Connection(receiver.url) as connection:
            await connection.send(connection.head("POST", {"content-length": "1000"}) + b"{")
    assert await still_works(receiver)


async def _drip(connection: Connection, piece: bytes) -> None:
    with contextlib.suppress(ConnectionError):
        while True:
            await connection.send(piece)
            await asyncio.sleep(0.05)
