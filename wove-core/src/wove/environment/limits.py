"""``delivery_max_in_flight``: how many runs of an environment may be submitted at a time, in the whole process."""

import asyncio
import os
import threading
from collections import deque


class _Waiter:
    __slots__ = ("future", "granted", "limit", "loop")

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.loop = asyncio.get_running_loop()
        self.future: asyncio.Future[None] = self.loop.create_future()
        self.granted = False


class InFlightLimit:
    """The places of one environment, first come, first served.

    Shared by all weaves of the process, on whatever loops and threads they run. It lives on the weaves' side, so that a
    weave notices the end of its own run even while the background loop is blocked.
    """

    __slots__ = ("_lock", "_taken", "_waiting")

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._taken = 0
        # Not bounded itself: holds one entry per ready task, which `max_pending` and the graph bound.
        self._waiting: deque[_Waiter] = deque()

    def place(self, limit: int | None) -> "_Place":
        """Hold a place while an ``async with`` block runs; wait until fewer than `limit` are taken. None waits for
        nothing.
        """
        return _Place(self, limit)

    def _take(self, limit: int | None) -> _Waiter | None:
        with self._lock:
            if limit is None or (self._taken < limit and not self._waiting):
                self._taken += 1
                return None
            waiter = _Waiter(limit)
            self._waiting.append(waiter)
            return waiter

    def _withdraw(self, waiter: _Waiter) -> None:
        with self._lock:
            if not waiter.granted:
                self._waiting.remove(waiter)
                # The next one may have a higher limit.
                self._grant()
                return
        self._release()

    def _release(self) -> None:
        with self._lock:
            self._taken -= 1
            self._grant()

    def _grant(self) -> None:
        while self._waiting and self._taken < self._waiting[0].limit:
            waiter = self._waiting.popleft()
            try:
                waiter.loop.call_soon_threadsafe(_wake, waiter.future)
            except RuntimeError:  # Its loop is closed: nobody waits there any more.
                continue
            waiter.granted = True
            self._taken += 1


class _Place:
    # A generator would cost several times as much, for every task.
    __slots__ = ("_limit", "_places")

    def __init__(self, places: InFlightLimit, limit: int | None) -> None:
        self._places = places
        self._limit = limit

    async def __aenter__(self) -> None:
        waiter = self._places._take(self._limit)
        if waiter is not None:
            try:
                await waiter.future
            except asyncio.CancelledError:
                self._places._withdraw(waiter)
                raise

    async def __aexit__(self, *raised: object) -> None:
        self._places._release()


def _wake(future: "asyncio.Future[None]") -> None:
    if not future.done():
        future.set_result(None)


_lock = threading.Lock()
_limits: dict[str, InFlightLimit] = {}


def in_flight_limit(environment: str) -> InFlightLimit:
    """Return the process's one limit of an environment."""
    with _lock:
        found = _limits.get(environment)
        if found is None:
            found = _limits[environment] = InFlightLimit()
        return found


def _forget_after_fork() -> None:
    # The parent's runs are not the child's.
    global _lock, _limits
    _lock = threading.Lock()
    _limits = {}


os.register_at_fork(after_in_child=_forget_after_fork)
