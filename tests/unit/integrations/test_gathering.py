"""What is asked at one moment is dealt with at once."""

import asyncio

import pytest

from wove.integrations.gathering import Gathering


class Dealer:
    """Notes what it deals with, and finishes when it may."""

    def __init__(self) -> None:
        self.dealt: list[list[int]] = []
        self.began = asyncio.Event()
        self.may_finish = asyncio.Event()
        self.may_finish.set()

    async def deal(self, items: list[int]) -> None:
        self.dealt.append(items)
        self.began.set()
        await self.may_finish.wait()


async def test_items_of_one_moment_are_dealt_with_together() -> None:
    dealer = Dealer()
    gathering = Gathering(dealer.deal)
    await asyncio.gather(*(gathering.add(number) for number in range(3)))
    assert dealer.dealt == [[0, 1, 2]]


async def test_an_item_of_a_later_moment_does_not_wait_for_an_earlier_one() -> None:
    dealer = Dealer()
    dealer.may_finish.clear()
    gathering = Gathering(dealer.deal)
    first = asyncio.create_task(gathering.add(1))
    await dealer.began.wait()
    dealer.began.clear()
    second = asyncio.create_task(gathering.add(2))
    await dealer.began.wait()
    assert dealer.dealt == [[1], [2]]
    dealer.may_finish.set()
    await asyncio.gather(first, second)


async def test_a_failure_belongs_to_all_who_asked() -> None:
    async def fail(items: list[int]) -> None:
        raise ConnectionError("the backend is away")

    gathering = Gathering(fail)
    failures = await asyncio.gather(gathering.add(1), gathering.add(2), return_exceptions=True)
    assert [type(each) for each in failures] == [ConnectionError, ConnectionError]


async def test_an_item_is_dealt_with_though_the_caller_gave_up() -> None:
    dealer = Dealer()
    gathering = Gathering(dealer.deal)
    caller = asyncio.create_task(gathering.add(1))
    await asyncio.sleep(0)
    caller.cancel()
    await gathering.close(10.0)
    assert dealer.dealt == [[1]]


async def test_closing_stops_what_takes_too_long() -> None:
    dealer = Dealer()
    dealer.may_finish.clear()
    gathering = Gathering(dealer.deal)
    caller = asyncio.create_task(gathering.add(1))
    await dealer.began.wait()
    await gathering.close(0.0)
    with pytest.raises(asyncio.CancelledError):
        await caller


async def test_closing_without_items_is_nothing() -> None:
    await Gathering(Dealer().deal).close(0.0)
