"""Lets the threads that keep runs alive have the interpreter although a task hardly ever leaves it to them."""

import os
import sys

# A thread that wakes up this many seconds late has been kept from the interpreter.
LATE_SECONDS = 0.1

_SHORT_INTERVAL = 0.0001


class SwitchInterval:
    """The time for which a thread may keep the interpreter while others wait: shorter for as long as one is starved.

    A thread asks for the interpreter only when nobody has let go of it for a whole interval, 5 ms by default, see
    https://docs.python.org/3/library/sys.html#sys.setswitchinterval. A task that computes for a millisecond, looks at a
    file and computes again lets go of it for microseconds, too short for the others to take it: they were measured to
    wait 5 s on average and up to 19 s, and a heartbeat needs it several times. A short interval costs tasks that share
    the interpreter a fifth of their time, so it is changed only where there is need.
    """

    def __init__(self) -> None:
        self._usual: float | None = None
        self._short = 0.0

    def shorten(self) -> None:
        """Make threads give the interpreter up after a tenth of a millisecond, throughout this process."""
        if self._usual is None and sys.getswitchinterval() > _SHORT_INTERVAL:
            self._usual = sys.getswitchinterval()
            sys.setswitchinterval(_SHORT_INTERVAL)
            self._short = sys.getswitchinterval()
            _shortened.add(self)

    def restore(self) -> None:
        """Undo `shorten`, unless the process has set another interval since then."""
        if self._usual is None:
            return
        if sys.getswitchinterval() == self._short:
            sys.setswitchinterval(self._usual)
        self._usual = None
        _shortened.discard(self)


_shortened: set[SwitchInterval] = set()


def _restore_after_fork() -> None:
    # The parent's threads do not exist in the child.
    for interval in list(_shortened):
        interval.restore()


os.register_at_fork(after_in_child=_restore_after_fork)
