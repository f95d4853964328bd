"""Stops synchronous code from another thread."""

import signal
import threading
import time
from types import FrameType

from wove.backend.handlers import Handler, handler_of, set_handler
from wove.backend.threads import submit
from wove.errors import TaskStopped

# Ignored by default and used by nobody: Celery and RQ have their own uses for SIGUSR1, SIGUSR2 and SIGALRM.
_SIGNAL: int | None = getattr(signal, "SIGURG", None)
_MOST_WAITS = 50
_PAUSES = (0.002, 0.01, 0.05, 0.2, 1.0)


class Interruption:
    """Raises `TaskStopped` in the thread that called `begin`, until that thread calls `end`.

    In the main thread a signal does it, so that sleeping, waiting for a lock or for a socket end at once. In any other
    thread the exception appears when Python code runs again: a call that blocks in C is not interrupted. Nowhere can
    code be stopped that holds the interpreter, or that catches `BaseException` and goes on.

    `begin` and `end` belong to the thread that executes the task, `interrupt` to any other.
    """

    __slots__ = ("_active", "_lock", "_previous", "_signalled", "_spared", "_thread", "_wanted")

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._thread = 0
        self._active = False
        self._wanted = False
        self._signalled = False
        self._spared = False
        self._previous: Handler = None

    def begin(self) -> None:
        """Let `interrupt` raise in this thread from now on."""
        self._thread = threading.get_ident()
        if _SIGNAL is not None and threading.current_thread() is threading.main_thread():
            self._take_signal(_SIGNAL)
        self._active = True

    def end(self) -> None:
        """Let `interrupt` do nothing any more. A `TaskStopped` that was on its way is dropped. Idempotent."""
        while True:
            try:
                with self._lock:
                    self._active = False
                    if self._wanted and not self._signalled:
                        _raise_in_thread(self._thread, None)
                self._await_signal()
                self._give_signal_back()
                return
            except TaskStopped:
                continue  # It arrived in these very lines.

    def interrupt(self) -> None:
        """Raise `TaskStopped` in the thread between `begin` and `end`; otherwise do nothing. Never waits."""
        with self._lock:
            if not self._active or self._spared:
                return
            self._wanted = True
            if not self._signalled:
                _raise_in_thread(self._thread, TaskStopped)
                return
            self._signal()
        submit(self._insist)

    def spare(self) -> None:
        """Let `interrupt` raise nothing from now on, not even what is on its way. For signal handlers, too."""
        # Without the lock, which the interrupted thread itself may hold.
        self._spared = True

    def _insist(self) -> None:
        # A signal that arrives just before the thread begins to sleep or to wait does not end that.
        for pause in _PAUSES:
            time.sleep(pause)
            with self._lock:
                if not self._active or not self._wanted:
                    return
                self._signal()

    def _signal(self) -> None:
        if _SIGNAL is not None:
            signal.pthread_kill(self._thread, _SIGNAL)

    def _take_signal(self, number: int) -> None:
        self._previous = handler_of(number)
        if self._previous is None:
            return  # Someone's C code handles it; it could not be given back.
        try:
            set_handler(number, self._on_signal)
        except ValueError:
            return  # A subinterpreter's main thread may not handle signals.
        self._signalled = True

    def _await_signal(self) -> None:
        # A signal that has been sent but not handled yet would meet the handler that comes next.
        for _ in range(_MOST_WAITS):
            if not (self._signalled and self._wanted):
                return
            time.sleep(0.001)

    def _give_signal_back(self) -> None:
        if self._signalled and _SIGNAL is not None:
            set_handler(_SIGNAL, self._previous)
            self._signalled = False

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if self._wanted:
            self._wanted = False
            if self._active and not self._spared:
                raise TaskStopped
        elif callable(self._previous):
            self._previous(number, frame)


def _raise_in_thread(thread: int, exception: type[BaseException] | None) -> None:
    # Costs milliseconds to import, and only stopping needs it.
    import ctypes

    # https://docs.python.org/3/c-api/init.html#c.PyThreadState_SetAsyncExc: NULL takes back a pending one.
    value = ctypes.py_object(exception) if exception is not None else None
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), value)
