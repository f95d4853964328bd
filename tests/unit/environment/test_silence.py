"""A time limit that each sign of life sets anew."""

import asyncio

import pytest

from wove.environment.silence import Silence


async def test_a_block_that_stays_silent_is_ended() -> None:
    silence = Silence(lambda: 0.01)
    with pytest.raises(TimeoutError):
        async with silence:
            await asyncio.Event().wait()
    assert silence.expired


async def test_signs_of_life_keep_a_block_alive_beyond_its_limit() -> None:
    silence = Silence(lambda: 5.0)
    loop = asyncio.get_running_loop()
    async with silence:
        silence.broken()
        late = loop.time() + 0.05
        while loop.time() < late:
            silence.broken()
            await asyncio.sleep(0)
    assert not silence.expired


async def test_a_limit_that_becomes_shorter_counts_from_the_next_sign() -> None:
    limits = [600.0]
    silence = Silence(lambda: limits[0])

    async def wait() -> None:
        async with silence:
            limits[0] = 0.01
            silence.broken()
            await asyncio.Event().wait()

    with pytest.raises(TimeoutError):
        await wait()


async def test_without_a_limit_a_block_may_be_silent() -> None:
    silence = Silence(lambda: None)
    async with silence:
        await asyncio.sleep(0.01)
    assert not silence.expired


async def test_a_cancellation_from_outside_is_no_silence() -> None:
    silence = Silence(lambda: 600.0)
    entered = asyncio.Event()

    async def wait() -> None:
        async with silence:
            entered.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(wait())
    await entered.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not silence.expired


async def test_it_can_be_entered_again() -> None:
    silence = Silence(lambda: 0.01)
    for _ in range(2):
        with pytest.raises(TimeoutError):
            async with silence:
                await asyncio.Event().wait()
