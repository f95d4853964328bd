"""Every way that a map may take, and what it is given on each of them."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

# Each of them sends a map another way: threads that drain, threads under the loop, the loop alone, the loop by turns.
WAYS: list[Any] = [
    pytest.param(False, {}, id="sync"),
    pytest.param(False, {"timeout": 60.0}, id="sync-timeout"),
    pytest.param(True, {}, id="async"),
    pytest.param(True, {"workers": 2}, id="async-workers"),
    pytest.param(True, {"timeout": 60.0}, id="async-timeout"),
]
every_way = pytest.mark.parametrize(("asynchronous", "options"), WAYS)


def per_item(work: Callable[[Any], Any], *, asynchronous: bool) -> Callable[..., Any]:
    """Make a task named ``item`` of one parameter; asynchronous ones let others run first."""

    def item(number: Any) -> Any:
        return work(number)

    async def item_async(number: Any) -> Any:
        await asyncio.sleep(0)
        return work(number)

    item_async.__name__ = "item"
    return item_async if asynchronous else item


async def generated_async() -> AsyncIterator[int]:
    """Three numbers; others run before each of them."""
    for number in (1, 2, 3):
        await asyncio.sleep(0)
        yield number
