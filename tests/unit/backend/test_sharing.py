"""Resources that are opened once, shared, and closed when nobody uses them any more."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from wove.backend.loop import on_io_loop
from wove.backend.sharing import SharedResources


class Resources:
    """Counts what is opened and closed, each in its order; closing waits for `may_close`."""

    def __init__(self, *, linger: float = 60.0) -> None:
        self.history: list[str] = []
        self.may_close = asyncio.Event()
        self.may_close.set()
        self.closing = asyncio.Event()
        self.closed = asyncio.Event()
        self.failures: list[Exception] = []
        self.shared: SharedResources[str, str] = SharedResources(self.open, self.close, linger=linger)

    async def open(self, key: str) -> str:
        await asyncio.sleep(0)
        if self.failures:
            raise self.failures.pop()
        self.history.append(f"open {key}")
        return key

    async def close(self, resource: str) -> None:
        self.history.append(f"closing {resource}")
        self.closing.set()
        await self.may_close.wait()
        self.history.append(f"closed {resource}")
        self.closed.set()


def on_background(test: Callable[[], Awaitable[None]]) -> Callable[[], Awaitable[None]]:
    async def run() -> None:
        async def body() -> Any:
            await asyncio.wait_for(test(), 10)

        await on_io_loop(body())

    run.__name__ = test.__name__
    return run


@on_background
async def test_users_of_a_key_share_one_resource() -> None:
    resources = Resources()
    await asyncio.gather(*(resources.shared.acquire("a") for _ in range(3)), resources.shared.acquire("b"))
    assert sorted(resources.history) == ["open a", "open b"]
    await resources.shared.close_all()


@on_background
async def test_an_unused_resource_lingers_for_the_next_user() -> None:
    resources = Resources()
    await resources.shared.acquire("a")
    resources.shared.release("a")
    await resources.shared.acquire("a")
    assert resources.history == ["open a"]
    await resources.shared.close_all()
    assert resources.history == ["open a", "closing a", "closed a"]


@on_background
async def test_a_resource_that_lingered_long_enough_is_closed() -> None:
    resources = Resources(linger=0.01)
    await resources.shared.acquire("a")
    resources.shared.release("a")
    await resources.closed.wait()


@on_background
async def test_only_the_last_user_closes_at_once() -> None:
    resources = Resources()
    await asyncio.gather(resources.shared.acquire("a"), resources.shared.acquire("a"))
    resources.shared.release("a", at_once=True)
    await resources.shared.closed("a")
    assert resources.history == ["open a"]
    resources.shared.release("a", at_once=True)
    await resources.shared.closed("a")
    assert resources.history == ["open a", "closing a", "closed a"]


@on_background
async def test_a_resource_is_not_opened_while_its_predecessor_is_being_closed() -> None:
    resources = Resources()
    resources.may_close.clear()
    await resources.shared.acquire("a")
    resources.shared.release("a", at_once=True)
    again = asyncio.ensure_future(resources.shared.acquire("a"))
    await resources.closing.wait()
    for _ in range(10):
        await asyncio.sleep(0)
    assert not again.done()
    resources.may_close.set()
    assert await again == "a"
    assert resources.history == ["open a", "closing a", "closed a", "open a"]
    await resources.shared.close_all()


@on_background
async def test_a_failure_to_open_reaches_every_waiting_user_and_the_next_one_tries_again() -> None:
    resources = Resources()
    resources.failures.append(OSError("no"))
    outcomes = await asyncio.gather(
        resources.shared.acquire("a"), resources.shared.acquire("a"), return_exceptions=True
    )
    assert [str(outcome) for outcome in outcomes] == ["no", "no"]
    assert await resources.shared.acquire("a") == "a"
    await resources.shared.close_all()


@on_background
async def test_a_user_that_is_cancelled_while_it_waits_does_not_count() -> None:
    resources = Resources()
    waiting = asyncio.ensure_future(resources.shared.acquire("a"))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    await resources.shared.acquire("a")
    resources.shared.release("a", at_once=True)
    await resources.shared.closed("a")
    assert resources.history[-1] == "closed a"
