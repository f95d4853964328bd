"""Calls that cross from one loop to another."""

import asyncio
import threading
from collections.abc import Callable, Iterator
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


class Made:
    """What the calls have done, and on which thread."""

    def __init__(self) -> None:
        self.numbers: list[int] = []
        self.threads: set[int] = set()
        self._changed = threading.Condition()

    def call(self, number: int) -> Callable[[], None]:
        def make() -> None:
            with self._changed:
                self.numbers.append(number)
                self.threads.add(threading.get_ident())
                self._changed.notify()

        return make

    async def until(self, count: int) -> list[int]:
        """Wait on another thread until so many calls have been made."""

        def wait() -> None:
            with self._changed:
                assert self._changed.wait_for(lambda: len(self.numbers) >= count, 30)

        await asyncio.to_thread(wait)
        return self.numbers


def not_lost() -> None:
    raise AssertionError("the loop is not closed")


@pytest.fixture
def loop() -> Iterator[CountingLoop]:
    """A loop that runs in a thread of its own."""
    running = CountingLoop()
    thread = threading.Thread(target=running.run_forever)
    thread.start()
    yield running
    running.call_soon_threadsafe(running.stop)
    thread.join()
    running.close()


async def test_what_one_turn_posts_is_made_in_its_order_with_two_wakings(loop: CountingLoop) -> None:
    crossing, made = Crossing(loop), Made()
    for number in range(100):
        crossing.post(made.call(number), lost=not_lost)
    assert await made.until(100) == list(range(100))
    assert loop.wakings == 2
    assert made.threads.isdisjoint({threading.get_ident()})


async def test_what_a_later_turn_posts_wakes_the_loop_again(loop: CountingLoop) -> None:
    crossing, made = Crossing(loop), Made()
    for number in range(3):
        crossing.post(made.call(number), lost=not_lost)
        await made.until(number + 1)
    assert made.numbers == [0, 1, 2]
    assert loop.wakings == 3


async def test_calls_of_many_turns_keep_their_order(loop: CountingLoop) -> None:
    crossing, made = Crossing(loop), Made()
    for number in range(2000):
        crossing.post(made.call(number), lost=not_lost)
        if number % 7 == 0:
            await asyncio.sleep(0)
    assert await made.until(2000) == list(range(2000))


async def test_a_call_that_raises_does_not_take_the_others_with_it(loop: CountingLoop) -> None:
    crossing, made = Crossing(loop), Made()
    errors: list[dict[str, Any]] = []
    loop.set_exception_handler(lambda _, context: errors.append(context))

    def fail() -> None:
        raise ZeroDivisionError

    crossing.post(fail, lost=not_lost)
    crossing.post(made.call(1), lost=not_lost)
    await made.until(1)
    assert [type(context["exception"]) for context in errors] == [ZeroDivisionError]


async def test_a_burst_leaves_room_for_others(loop: CountingLoop) -> None:
    crossing, made = Crossing(loop), Made()
    seen: list[int] = []

    def look() -> None:
        seen.append(len(made.numbers))
        if seen[-1] < 1000:
            loop.call_soon(look)

    for number in range(1000):
        crossing.post(made.call(number), lost=not_lost)
    loop.call_soon_threadsafe(look)
    await made.until(1000)
    assert len(seen) >= 10


async def test_a_call_to_a_closed_loop_is_lost_every_time() -> None:
    closed = CountingLoop()
    closed.close()
    crossing, lost = Crossing(closed), asyncio.Queue[int]()
    for number in range(2):
        crossing.post(not_lost, lost=lambda number=number: lost.put_nowait(number))  # type: ignore[misc]
        assert await asyncio.wait_for(lost.get(), 10) == number
