"""Calls from one event loop to another, with one wake-up for as many as come together."""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import NamedTuple

# As many calls are made before the loop looks at its timers and sockets again.
_CALLS_AT_ONCE = 64


class _Call(NamedTuple):
    make: Callable[[], None]
    lost: Callable[[], None]


class Crossing:
    """Makes calls on a loop, in their order. `post` is used on one other loop.

    Waking another thread's loop is a system call and a change of threads. So what one turn of the posting loop brings,
    such as the results of a hundred runs, goes over together, with one wake-up at its end.

    Args:
        loop: the loop to make the calls on.
    """

    __slots__ = ("_calls", "_leaving", "_loop")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        # Both are bounded by what is in flight: a submission, a withdrawal and an outcome for each run at most.
        self._leaving: list[_Call] = []
        self._calls: deque[_Call] = deque()

    def post(self, call: Callable[[], None], *, lost: Callable[[], None]) -> None:
        """Let the loop make a call soon.

        Args:
            call: must not raise.
            lost: is called here instead if the loop is closed.
        """
        self._leaving.append(_Call(call, lost))
        if len(self._leaving) == 1:
            asyncio.get_running_loop().call_soon(self._cross)

    def _cross(self) -> None:
        leaving, self._leaving = self._leaving, []
        try:
            self._loop.call_soon_threadsafe(self._take, leaving)
        except RuntimeError:
            for call in leaving:
                call.lost()

    def _take(self, arrived: list[_Call]) -> None:
        self._calls += arrived
        if len(self._calls) == len(arrived):
            self._make()

    def _make(self) -> None:
        try:
            for _ in range(min(len(self._calls), _CALLS_AT_ONCE)):
                try:
                    self._calls[0].make()
                finally:
                    # It stays until then: while there is one, whatever arrives has a turn ahead.
                    self._calls.popleft()
        finally:
            if self._calls:
                self._loop.call_soon(self._make)
