"""Calls from one event loop to another, with one wake-up for as many as come together."""

import asyncio
import threading
from collections import deque
from collections.abc import Callable

Call = Callable[[], None]

# As many calls are made before the loop looks at its timers and sockets again.
_CALLS_AT_ONCE = 64


class Crossing:
    """Makes calls on a loop, in their order. `post` may be called from any thread.

    Waking another thread's loop is a system call and a change of threads; a burst of a hundred runs, or of their
    results, needs only one.
    """

    __slots__ = ("_calls", "_lock", "_loop")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._lock = threading.Lock()
        # Bounded by what is in flight: a submission, a withdrawal and an outcome for each run at most.
        self._calls: deque[Call] = deque()

    def post(self, call: Call) -> None:
        """Let the loop make a call soon.

        Raises:
            RuntimeError: the loop is closed.
        """
        with self._lock:
            if self._loop.is_closed():
                # Calls that it has not made any more are still in the queue, so nobody would try to wake it.
                raise RuntimeError("The event loop is closed.")
            self._calls.append(call)
            if len(self._calls) > 1:
                return
        try:
            # Without the lock: waking lets the other thread run at once, and it would only wait for the lock again.
            self._loop.call_soon_threadsafe(self._make)
        except RuntimeError:
            with self._lock:
                self._calls.clear()
            raise

    def _make(self) -> None:
        try:
            for _ in range(min(len(self._calls), _CALLS_AT_ONCE)):
                try:
                    # It stays in the queue meanwhile: as long as there is one, nobody needs to wake the loop.
                    self._calls[0]()
                finally:
                    with self._lock:
                        self._calls.popleft()
        finally:
            if self._calls:
                self._loop.call_soon(self._make)
