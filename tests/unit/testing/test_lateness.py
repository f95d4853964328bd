"""A blocked loop is noticed, an idle one is not."""

import asyncio
import time

import wove
from wove.backend.loop import io_loop
from wove.testing.lateness import LatenessOfTheBackground, measure_lateness


async def block(seconds: float) -> None:
    time.sleep(seconds)  # noqa: ASYNC251


async def test_a_blocked_loop_is_late() -> None:
    worst: list[float] = []
    measuring = asyncio.create_task(measure_lateness(worst.append))
    await asyncio.sleep(0.02)
    await block(0.2)
    await asyncio.sleep(0.02)
    measuring.cancel()
    assert max(worst) > 0.15


def test_what_blocks_wove_s_background_loop_is_measured_there_alone() -> None:
    with LatenessOfTheBackground() as lateness:
        io_loop().spawn(asyncio.sleep(0.05)).result(5.0)
        io_loop().spawn(block(0.3)).result(5.0)
        io_loop().spawn(asyncio.sleep(0.05)).result(5.0)
    wove.shutdown()
    assert lateness.background > 0.2
    assert lateness.background - lateness.idle > 0.1
