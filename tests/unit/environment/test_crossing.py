"""Calls that cross from one loop to another."""

import asyncio
import threading
import time
from typing import Any

import pytest

from wove.environment.crossing import Crossing


class CountingLoop(asyncio.SelectorEventLoop):
    """Counts how often another thread wakes it."""

    def __init__(self) -> None:
        super().__init__()
        self.wakings = 0

    def call_soon_threadsafe(self, callback: Any, *args: Any, context: Any = None) -> asyncio.Handle:  # type: ignore[override]
        self.wakings += 1
        return super().call_soon_threadsafe(callback, *args, context=context)


def run_until_made(loop: asyncio.AbstractEventLoop, made: list[int], count: int) -> None:
    async def wait() -> None:
        deadline = time.monotonic() + 30
        for _ in iter(lambda: len(made) < count, False):
            assert time.monotonic() < deadline
            await asyncio.sleep(0)

    loop.run_until_complete(wait())


@pytest.fixture
def loop() -> Any:
    made = CountingLoop()
    yield made
    made.close()


def test_calls_are_made_in_their_order_with_one_waking(loop: CountingLoop) -> None:
    crossing, made = Crossing(loop), list[int]()
    for number in range(100):
        crossing.post(lambda number=number: made.append(number))  # type: ignore[misc]
    run_until_made(loop, made, 100)
    assert made == list(range(100))
    assert loop.wakings == 1


def test_a_call_that_comes_later_wakes_the_loop_again(loop: CountingLoop) -> None:
    crossing, made = Crossing(loop), list[int]()
    for number in range(3):
        crossing.post(lambda number=number: made.append(number))  # type: ignore[misc]
        run_until_made(loop, made, number + 1)
    assert loop.wakings == 3


def test_a_call_that_a_call_posts_is_made_too(loop: CountingLoop) -> None:
    crossing, made = Crossing(loop), list[int]()

    def call() -> None:
        made.append(1)
        crossing.post(lambda: made.append(2))

    crossing.post(call)
    run_until_made(loop, made, 2)
    assert made == [1, 2]


def test_a_call_that_raises_does_not_take_the_others_with_it(loop: CountingLoop) -> None:
    crossing, made = Crossing(loop), list[int]()
    errors: list[dict[str, Any]] = []
    loop.set_exception_handler(lambda _, context: errors.append(context))

    def fail() -> None:
        raise ZeroDivisionError

    crossing.post(fail)
    crossing.post(lambda: made.append(1))
    run_until_made(loop, made, 1)
    assert [type(context["exception"]) for context in errors] == [ZeroDivisionError]


def test_a_burst_leaves_room_for_others(loop: CountingLoop) -> None:
    crossing, made = Crossing(loop), list[int]()
    for number in range(1000):
        crossing.post(lambda number=number: made.append(number))  # type: ignore[misc]
    seen: list[int] = []

    async def look() -> None:
        while len(made) < 1000:
            await asyncio.sleep(0)
            seen.append(len(made))

    loop.run_until_complete(look())
    assert len(seen) >= 10


def test_calls_of_many_threads_all_arrive(loop: CountingLoop) -> None:
    crossing, made = Crossing(loop), list[int]()

    def post() -> None:
        for number in range(500):
            crossing.post(lambda number=number: made.append(number))  # type: ignore[misc]

    threads = [threading.Thread(target=post) for _ in range(4)]
    for thread in threads:
        thread.start()
    run_until_made(loop, made, 2000)
    for thread in threads:
        thread.join()
    assert len(made) == 2000


def test_a_call_to_an_idle_loop_is_never_lost(loop: CountingLoop) -> None:
    crossing = Crossing(loop)
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        for _ in range(1000):
            made = threading.Event()
            crossing.post(made.set)
            assert made.wait(10)
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()


def test_a_closed_loop_is_an_error_every_time() -> None:
    loop = CountingLoop()
    crossing = Crossing(loop)
    crossing.post(lambda: None)
    loop.close()
    for _ in range(2):
        with pytest.raises(RuntimeError, match="closed"):
            crossing.post(lambda: None)
