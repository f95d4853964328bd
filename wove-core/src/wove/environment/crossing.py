"""Calls from one event loop to another, with one wake-up for as many as come together."""

import asyncio
from collections import deque
from collections.abc import Callable
from contextvars import Context
from typing import NamedTuple

# As many calls are made before the loop looks at its timers and sockets again.
_CALLS_AT_ONCE = 64


class _Call(NamedTuple):
    make: Callable[[], None]
    lost: Callable[[], None]


class Crossing:
    """Makes calls on a loop, in their order. `post` is used on one other loop, or on the same one.

    Waking another thread's loop is a system call and a change of threads. So only the first call of a turn of the
    posting loop goes over at once. What else the turn brings, such as the results of a hundred runs, goes over together
    at its end. Calls are made in an empty context: what they leave on the loop must not keep the values of the caller's
    variables.

    Args:
        loop: the loop to make the calls on.
    """

    __slots__ = ("_calls", "_gathers", "_leaving", "_loop")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._gathers = False
        # Both are bounded by what is in flight: a submission, a withdrawal and an outcome for each run at most.
        self._leaving: list[_Call] = []
        self._calls: deque[_Call] = deque()

    def post(self, call: Callable[[], None], *, lost: Callable[[], None]) -> None:
        """Let the loop make a call soon; at once where this is that loop.

        Args:
            call: must not raise.
            lost: is called here instead if the loop is closed.
        """
        if asyncio.get_running_loop() is self._loop:
            Context().run(call)
        elif self._gathers:
            self._leaving.append(_Call(call, lost))
        else:
            self._gathers = True
            asyncio.get_running_loop().call_soon(self._end_turn)
            self._cross([_Call(call, lost)])

    def _end_turn(self) -> None:
        self._gathers = False
        leaving, self._leaving = self._leaving, []
        if leaving:
            self._cross(leaving)

    def _cross(self, leaving: list[_Call]) -> None:
        try:
            self._loop.call_soon_threadsafe(self._take, leaving, context=Context())
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
