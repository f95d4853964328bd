"""Resources that outlive a weave: opened once per key, shared, and closed when nobody has used them for a while."""

import asyncio
from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, TypeVar

from wove.backend.loop import IOLoop, io_loop

K = TypeVar("K", bound=Hashable)
R = TypeVar("R")

LINGER_SECONDS = 30.0


class _Shared(Generic[R]):
    __slots__ = ("closing", "opening", "users")

    def __init__(self, opening: "asyncio.Task[R]") -> None:
        self.opening = opening
        self.users = 0
        self.closing: asyncio.TimerHandle | None = None


class SharedResources(Generic[K, R]):
    """Reference-counted resources of one kind on the background loop.

    `acquire` opens a resource or joins one that is open or opening; `release` starts the linger clock when the last
    user leaves. Both are called on the background loop. `wove.shutdown()` closes everything at once.

    Args:
        open: makes the resource for a key; a failure reaches every waiting `acquire`, and the next one tries again.
        close: ends a resource.
        linger: seconds that an unused resource stays open.
    """

    def __init__(
        self,
        open: Callable[[K], Awaitable[R]],
        close: Callable[[R], Awaitable[None]],
        *,
        linger: float = LINGER_SECONDS,
    ) -> None:
        self._open = open
        self._close = close
        self._linger = linger
        self._shared: dict[K, _Shared[R]] = {}
        self._background: IOLoop | None = None
        self._closings: dict[K, asyncio.Task[None]] = {}

    async def acquire(self, key: K) -> R:
        """Return the open resource for a key and count the caller as a user; each success needs one `release`.

        One that is being closed is waited for, and opened anew.
        """
        self._bind()
        entry = self._shared.get(key)
        if entry is None:
            entry = self._shared[key] = _Shared(asyncio.ensure_future(self._opened(key)))
        if entry.closing is not None:
            entry.closing.cancel()
            entry.closing = None
        entry.users += 1
        try:
            return await asyncio.shield(entry.opening)
        except BaseException:
            self._leave(key, entry)
            raise

    def release(self, key: K, *, at_once: bool = False) -> None:
        """Count one user less. The last one starts the linger clock, or closes the resource now if `at_once`."""
        entry = self._shared.get(key)
        if entry is not None:
            self._leave(key, entry, at_once=at_once)

    async def closed(self, key: K) -> None:
        """Wait until the resource of a key is not being closed any more."""
        closing = self._closings.get(key)
        if closing is not None:
            await asyncio.wait([closing])

    async def close_all(self) -> None:
        """Close every resource now, whoever uses it."""
        entries, self._shared = self._shared, {}
        for entry in entries.values():
            if entry.closing is not None:
                entry.closing.cancel()
        closings = (self._end(entry) for entry in entries.values())
        await asyncio.gather(*closings, *self._closings.values(), return_exceptions=True)

    async def _opened(self, key: K) -> R:
        await self.closed(key)
        return await self._open(key)

    def _bind(self) -> None:
        # After `shutdown` or a fork there is another loop, and what was open on the old one is gone.
        background = io_loop()
        if self._background is not background:
            self._background = background
            self._shared = {}
            self._closings = {}
            background.on_close(self.close_all)

    def _leave(self, key: K, entry: _Shared[R], *, at_once: bool = False) -> None:
        entry.users -= 1
        if entry.users > 0:
            return
        failed = entry.opening.done() and (entry.opening.cancelled() or entry.opening.exception() is not None)
        if failed or at_once:
            self._retire(key, entry)
        elif entry.closing is None:
            entry.closing = asyncio.get_running_loop().call_later(self._linger, self._retire, key, entry)

    def _retire(self, key: K, entry: _Shared[R]) -> None:
        if self._shared.get(key) is entry:
            del self._shared[key]
        # A resource that was opened while its predecessor was being closed may be closed only after that.
        self._closings[key] = closing = asyncio.ensure_future(self._end(entry, after=self._closings.get(key)))
        closing.add_done_callback(lambda ended: self._forget(key, ended))

    def _forget(self, key: K, closing: "asyncio.Task[None]") -> None:
        if self._closings.get(key) is closing:
            del self._closings[key]

    async def _end(self, entry: _Shared[R], *, after: "asyncio.Task[None] | None" = None) -> None:
        if after is not None:
            await asyncio.wait([after])
        if not entry.opening.done():
            entry.opening.cancel()
        await asyncio.wait([entry.opening])
        if not entry.opening.cancelled() and entry.opening.exception() is None:
            await self._close(entry.opening.result())
