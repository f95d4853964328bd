"""SIGTERM and SIGINT while a worker's main thread executes a task: the weave is told before the process ends."""

import os
import signal
import threading
from collections.abc import Callable
from types import FrameType, TracebackType

from wove.backend.handlers import Handler, handler_of, set_handler

_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Termination:
    """Stands in front of the process's own handlers for SIGTERM and SIGINT while its block runs.

    A handler that the backend has installed goes on deciding what the signal means; where it raises (`SystemExit`,
    `KeyboardInterrupt`) the exception is kept in `raised`, because the task may turn it into something else. Without a
    handler the process is about to die: `last_words` is called, and then the default action follows. Does nothing
    outside of the main thread. A child that the task forks gets the process's own handlers back.

    Args:
        last_words: tells the weave, in a few seconds. Returns False to put the end of the process off until the block
            is left.
        interrupted: hears of SIGINT first. Returns False to let it have no effect.
    """

    def __init__(self, last_words: Callable[[], bool], interrupted: Callable[[], bool]) -> None:
        self.raised: BaseException | None = None
        self._last_words = last_words
        self._interrupted = interrupted
        self._previous: dict[int, Handler] = {}
        self._put_off: int | None = None

    def __enter__(self) -> "Termination":
        if threading.current_thread() is threading.main_thread():
            for number in _SIGNALS:
                self._stand_in_front(number)
            _standing.append(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self in _standing:
            _standing.remove(self)
        self.step_aside()
        if self._put_off is not None:
            _die_of(self._put_off)

    @property
    def is_put_off(self) -> bool:
        """Whether the process ends when the block is left."""
        return self._put_off is not None

    def step_aside(self) -> None:
        """Give the signals back to the process's own handlers. Somebody else's that came later stay."""
        for number, previous in self._previous.items():
            if handler_of(number) == self._on_signal:
                set_handler(number, previous)

    def _stand_in_front(self, number: int) -> None:
        previous = handler_of(number)
        # None: C code handles it. Neither that nor an ignored signal ends the process.
        if previous is None or previous == signal.SIG_IGN:
            return
        try:
            set_handler(number, self._on_signal)
        except ValueError:
            return  # A subinterpreter's main thread may not handle signals.
        self._previous[number] = previous

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        previous = self._previous[number]
        if number == signal.SIGINT and not self._interrupted():
            return
        if callable(previous):
            try:
                previous(number, frame)
            except BaseException as error:  # It is raised again; what the task makes of it does not matter then.
                self.raised = error
                raise
        elif self._last_words():
            _die_of(number)
        else:
            self._put_off = number


def _die_of(number: int) -> None:
    """End this process as the signal does by default."""
    set_handler(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)
    if os.getpid() == 1:
        # The kernel spares the first process of a container: https://man7.org/linux/man-pages/man7/pid_namespaces.7.html
        os._exit(128 + number)


# The handlers that stand now; more than one only where a task runs another payload.
_standing: list[Termination] = []
# What the thread that forks had blocked before.
_masks: list[set[signal.Signals]] = []


def _hold_signals() -> None:
    # CPython forgets signals that reach a child before it knows that it is one; while they are blocked, they wait.
    if _standing:
        _masks.append(set(signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)))  # type: ignore[arg-type]


def _release_signals() -> None:
    if _masks:
        signal.pthread_sigmask(signal.SIG_SETMASK, _masks.pop())


def _step_aside_in_child() -> None:
    while _standing:
        _standing.pop().step_aside()
    _release_signals()
    _masks.clear()  # Of other threads that were about to fork.


os.register_at_fork(before=_hold_signals, after_in_parent=_release_signals, after_in_child=_step_aside_in_child)
