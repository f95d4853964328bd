"""Blocking calls in threads, a bounded number at a time."""

import asyncio
from collections.abc import Callable
from typing import Any, TypeVar

from wove.backend.threads import in_daemon_thread

T = TypeVar("T")


class BoundedThreads:
    """Runs blocking functions in daemon threads. Lives as long as its adapter; its loop only.

    Args:
        most: how many may run at a time.
    """

    def __init__(self, most: int) -> None:
        self._free = asyncio.Semaphore(most)

    async def run(self, function: Callable[..., T], *args: Any) -> T:
        """Return what a function returns. Cancelling the caller leaves it running, and its thread taken, to its end."""
        await self._free.acquire()
        call = asyncio.ensure_future(in_daemon_thread(function, *args))
        call.add_done_callback(self._ended)
        return await asyncio.shield(call)

    def _ended(self, call: "asyncio.Future[Any]") -> None:
        self._free.release()
        if not call.cancelled():
            call.exception()  # Its caller may be gone, and nobody else asks.
