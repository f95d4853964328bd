"""Frames reach their reader in order, on whichever loop it waits, and none is lost."""

import asyncio
import threading

import pytest

from wove.backend.inbox import MOST_WAITING, Inbox


def frame(number: int) -> dict[str, int]:
    return {"number": number}


async def test_frames_come_in_order() -> None:
    inbox = Inbox()
    for number in range(3):
        inbox.put(frame(number))
    assert [await inbox.get() for _ in range(3)] == [frame(0), frame(1), frame(2)]


async def test_a_reader_waits_for_a_frame_from_another_thread() -> None:
    inbox = Inbox()
    reading = asyncio.ensure_future(inbox.get())
    await asyncio.sleep(0)
    threading.Thread(target=inbox.put, args=(frame(1),)).start()
    assert await asyncio.wait_for(reading, 5) == frame(1)


async def test_a_cancelled_reader_loses_nothing() -> None:
    inbox = Inbox()
    reading = asyncio.ensure_future(inbox.get())
    await asyncio.sleep(0)
    inbox.put(frame(1))
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading
    assert await inbox.get() == frame(1)


async def test_a_reader_that_gives_up_leaves_its_place() -> None:
    inbox = Inbox()
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(inbox.get(), 0.01)
    inbox.put(frame(1))
    assert await inbox.get() == frame(1)


async def test_a_second_reader_is_refused() -> None:
    inbox = Inbox()
    reading = asyncio.ensure_future(inbox.get())
    await asyncio.sleep(0)
    with pytest.raises(RuntimeError, match="already waits"):
        await inbox.get()
    reading.cancel()


async def test_closing_ends_the_reader_after_what_is_here() -> None:
    inbox = Inbox()
    inbox.put(frame(1))
    inbox.close()
    assert await inbox.get() == frame(1)
    with pytest.raises(RuntimeError, match="closed"):
        await inbox.get()


async def test_closing_wakes_a_waiting_reader() -> None:
    inbox = Inbox()
    reading = asyncio.ensure_future(inbox.get())
    await asyncio.sleep(0)
    inbox.close()
    with pytest.raises(RuntimeError, match="closed"):
        await asyncio.wait_for(reading, 5)


def test_a_reader_on_a_loop_that_has_ended_harms_nobody() -> None:
    inbox = Inbox()

    async def leave() -> None:
        reading = asyncio.ensure_future(inbox.get())
        await asyncio.sleep(0)
        assert not reading.done()

    asyncio.run(leave())
    inbox.put(frame(1))
    assert asyncio.run(inbox.get()) == frame(1)


def test_an_inbox_says_when_it_is_full() -> None:
    inbox = Inbox()
    for number in range(MOST_WAITING - 1):
        inbox.put(frame(number))
    assert not inbox.full
    inbox.put(frame(0))
    assert inbox.full


async def test_a_listener_gets_each_frame_at_once_and_a_reader_hears_of_the_end() -> None:
    inbox = Inbox()
    heard: list[object] = []
    inbox.listen(heard.append)
    reading = asyncio.ensure_future(inbox.get())
    await asyncio.sleep(0)
    inbox.put(frame(1))
    assert heard == [frame(1)]
    inbox.close()
    with pytest.raises(RuntimeError, match="closed"):
        await reading
