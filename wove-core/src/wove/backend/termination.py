"""SIGTERM and SIGINT while a worker's main thread executes a task: the weave is told before the process ends."""

import os
import signal
import threading
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any

Handler = Callable[[int, FrameType | None], Any] | int | signal.Handlers | None

_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Termination:
    """Stands in front of the process's own handlers for SIGTERM and SIGINT while its block runs.

    A handler that the backend has installed goes on deciding what the signal means; where it raises (`SystemExit`,
    `KeyboardInterrupt`) the exception is kept in `raised`, because the task may turn it into something else. Without a
    handler the process is about to die: `last_words` is called, and then the default action follows. Does nothing
    outside of the main thread.

    Args:
        last_words: tells the weave, in a few seconds. Returns False to put the end of the process off until the block
            is left.
    """

    def __init__(self, last_words: Callable[[], bool]) -> None:
        self.raised: BaseException | None = None
        self._last_words = last_words
        self._previous: dict[int, Handler] = {}
        self._put_off: int | None = None

    def __enter__(self) -> "Termination":
        if threading.current_thread() is threading.main_thread():
            for number in _SIGNALS:
                self._stand_in_front(number)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, previous in self._previous.items():
            # Somebody else's handler that came later stays.
            if signal.getsignal(number) == self._on_signal:
                signal.signal(number, previous)
        if self._put_off is not None:
            os.kill(os.getpid(), self._put_off)

    def _stand_in_front(self, number: int) -> None:
        previous = signal.getsignal(number)
        # None: C code handles it. Neither that nor an ignored signal ends the process.
        if previous is None or previous == signal.SIG_IGN:
            return
        try:
            signal.signal(number, self._on_signal)
        except ValueError:
            return  # A subinterpreter's main thread may not handle signals.
        self._previous[number] = previous

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        previous = self._previous[number]
        if callable(previous):
            try:
                previous(number, frame)
            except BaseException as error:  # It is raised again; what the task makes of it does not matter then.
                self.raised = error
                raise
        elif self._last_words():
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        else:
            self._put_off = number
