"""Measures whether an event loop is blocked, by how late its timers fire."""

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import CancelledError
from types import TracebackType
from typing import Self

from wove.backend.loop import IOLoop, io_loop

_STEP_SECONDS = 0.005


async def measure_lateness(note: Callable[[float], object]) -> None:
    """Report again and again by how many seconds a timer of the running loop was late, until cancelled."""
    while True:
        due = time.monotonic() + _STEP_SECONDS
        await asyncio.sleep(_STEP_SECONDS)
        note(time.monotonic() - due)


class LatenessOfTheBackground:
    """Measures Wove's background loop, and beside it an idle loop: what is late there is the machine's doing.

    Used as a context manager. Attributes hold the worst lateness in seconds.

    Attributes:
        background: of Wove's background loop.
        idle: of a loop that has nothing to do.
    """

    def __init__(self) -> None:
        self.background = 0.0
        self.idle = 0.0

    def __enter__(self) -> Self:
        self._idle_loop = IOLoop()
        self._measurements = [
            io_loop().spawn(measure_lateness(self._note_background)),
            self._idle_loop.spawn(measure_lateness(self._note_idle)),
        ]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for measurement in self._measurements:
            measurement.cancel()
            try:
                measurement.result(5.0)
            except CancelledError:
                pass
        self._idle_loop.close()

    def _note_background(self, seconds: float) -> None:
        self.background = max(self.background, seconds)

    def _note_idle(self, seconds: float) -> None:
        self.idle = max(self.idle, seconds)
