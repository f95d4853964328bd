"""The number of runs of an environment that may be submitted at a time."""

import asyncio
import threading
from collections.abc import Callable

import pytest

from wove.environment.limits import InFlightLimit, in_flight_limit


class Holder:
    """Somebody who takes a place and gives it back when told."""

    def __init__(self, limit: InFlightLimit, most: int | None) -> None:
        self.inside = asyncio.Event()
        self.leave = asyncio.Event()
        self.task = asyncio.create_task(self._hold(limit, most))

    async def _hold(self, limit: InFlightLimit, most: int | None) -> None:
        async with limit.place(most):
            self.inside.set()
            await self.leave.wait()


async def settle() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


async def finish(*holders: Holder) -> None:
    for holder in holders:
        holder.leave.set()
    await asyncio.gather(*(holder.task for holder in holders), return_exceptions=True)


async def test_no_more_than_the_limit_are_inside() -> None:
    limit = InFlightLimit()
    holders = [Holder(limit, 2) for _ in range(5)]
    await settle()
    assert [holder.inside.is_set() for holder in holders] == [True, True, False, False, False]
    await finish(*holders)
    assert all(holder.inside.is_set() for holder in holders)


async def test_places_are_given_in_order() -> None:
    limit = InFlightLimit()
    holders = [Holder(limit, 1) for _ in range(3)]
    await settle()
    for index, holder in enumerate(holders):
        assert [other.inside.is_set() for other in holders] == [position <= index for position in range(3)]
        holder.leave.set()
        await settle()


async def test_without_a_limit_nobody_waits_but_everybody_counts() -> None:
    limit = InFlightLimit()
    unlimited = [Holder(limit, None) for _ in range(3)]
    await settle()
    assert all(holder.inside.is_set() for holder in unlimited)
    limited = Holder(limit, 3)
    await settle()
    assert not limited.inside.is_set()
    await finish(*unlimited, limited)


async def test_one_who_is_cancelled_while_waiting_takes_no_place() -> None:
    limit = InFlightLimit()
    first, second, third = (Holder(limit, 1) for _ in range(3))
    await settle()
    second.task.cancel()
    await settle()
    first.leave.set()
    await settle()
    assert third.inside.is_set()
    await finish(third, second)


async def test_one_who_is_cancelled_makes_way_for_one_with_a_higher_limit() -> None:
    limit = InFlightLimit()
    first, second, third = Holder(limit, 1), Holder(limit, 1), Holder(limit, 2)
    await settle()
    assert not third.inside.is_set()
    second.task.cancel()
    await settle()
    assert third.inside.is_set()
    await finish(first, second, third)


async def test_one_who_is_cancelled_just_as_its_turn_comes_passes_the_place_on() -> None:
    limit = InFlightLimit()
    first, second, third = (Holder(limit, 1) for _ in range(3))
    await settle()
    first.leave.set()
    await asyncio.sleep(0)
    second.task.cancel()
    await settle()
    assert not second.inside.is_set()
    assert third.inside.is_set()
    await finish(third, second)


async def test_a_failure_inside_gives_the_place_back() -> None:
    limit = InFlightLimit()
    with pytest.raises(ZeroDivisionError):
        async with limit.place(1):
            raise ZeroDivisionError
    async with asyncio.timeout(5), limit.place(1):
        pass


def test_the_limit_holds_across_threads() -> None:
    limit = InFlightLimit()
    inside, most = [0], [0]
    guard = threading.Lock()

    async def use() -> None:
        async with limit.place(2):
            with guard:
                inside[0] += 1
                most[0] = max(most[0], inside[0])
            await asyncio.sleep(0.001)
            with guard:
                inside[0] -= 1

    async def many() -> None:
        await asyncio.gather(*(use() for _ in range(20)))

    start: Callable[[], None] = lambda: asyncio.run(many())  # noqa: E731
    threads = [threading.Thread(target=start) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert not any(thread.is_alive() for thread in threads)
    assert most == [2]


def test_an_environment_has_one_limit_in_the_process() -> None:
    assert in_flight_limit("a") is in_flight_limit("a")
    assert in_flight_limit("a") is not in_flight_limit("b")
