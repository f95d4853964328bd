"""Runs coroutines on an event loop whose clock jumps to the next timer as soon as nothing else is left to do."""

import asyncio
import selectors
from collections.abc import Callable, Coroutine
from functools import wraps
from typing import Any, ParamSpec

P = ParamSpec("P")


class _JumpingSelector(selectors.DefaultSelector):
    """Moves a loop's clock forward instead of waiting."""

    now = 0.0

    def select(self, timeout: float | None = None) -> Any:
        ready = super().select(0)
        if ready or timeout == 0:
            return ready
        if timeout is None:
            raise RuntimeError("Deadlock: the test waits for something, and no timer is left that could bring it.")
        # The resolution of the loop's clock, so that a timer that is due at this time counts as due.
        self.now += timeout + 1e-9
        return ready


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """An event loop without threads and sockets, in which time passes only while everybody waits."""

    def __init__(self) -> None:
        self._jumping = _JumpingSelector()
        super().__init__(self._jumping)

    def time(self) -> float:
        return self._jumping.now


def in_virtual_time(test: Callable[P, Coroutine[Any, Any, None]]) -> Callable[P, None]:
    """Make a synchronous test of a coroutine function: it runs in virtual time."""

    @wraps(test)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
            runner.run(test(*args, **kwargs))

    return run


def now() -> float:
    """The time of the loop that runs this."""
    return asyncio.get_running_loop().time()
