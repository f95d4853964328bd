"""Calls things at their time on other threads: what keeps the heartbeats of a process going, whatever its tasks do."""

import logging
import math
import os
import threading
import time
from collections.abc import Callable

from wove.backend.switching import LATE_SECONDS, SwitchInterval
from wove.backend.threads import LINGER_SECONDS, Job, submit

_AFTER_FAILURE_SECONDS = 1.0

log = logging.getLogger("wove")


class Pacemaker:
    """Times any number of beats. A beat is called on a thread of its own, never twice at once, so a slow one delays no
    other; it returns the time of its next call, on the clock.

    Starting a thread costs a no-op task more than posting an event, so one timing thread serves every run and looks
    once a second whether it is still needed, and whether the tasks let it wake up in time.

    Args:
        clock: seconds of a monotonic clock.
        run: runs a job on another thread.
    """

    def __init__(self, *, clock: Callable[[], float] = time.monotonic, run: Callable[[Job], None] = submit) -> None:
        self._clock = clock
        self._run = run
        self._changed = threading.Condition()
        self._due: dict[Callable[[], float], float] = {}
        self._again: set[Callable[[], float]] = set()
        self._waiting_until: float | None = None
        self._asked_for = math.inf
        self._switch_interval = SwitchInterval()

    def add(self, beat: Callable[[], float], due: float) -> None:
        """Call `beat` at the time `due` for the first time. One that raises is logged, and called a second later."""
        with self._changed:
            self._due[beat] = due
            self._wake_before(due)

    def remove(self, beat: Callable[[], float]) -> None:
        """Call `beat` no more; a call that is running goes on."""
        with self._changed:
            self._due.pop(beat, None)
            self._again.discard(beat)
            if not self._due:
                self._switch_interval.restore()

    def hasten(self, beat: Callable[[], float]) -> None:
        """Call `beat` now, or again at once where a call is running. Nothing happens if it has been removed."""
        with self._changed:
            due = self._due.get(beat)
            if due == math.inf:
                self._again.add(beat)
            elif due is not None:
                self._due[beat] = -math.inf
                self._wake_before(-math.inf)

    def _wake_before(self, due: float) -> None:
        if self._waiting_until is None:
            self._waiting_until, self._asked_for = -math.inf, due
            self._run(self._keep_time)
        elif due < self._waiting_until:
            self._waiting_until = self._asked_for = due
            self._changed.notify()

    def _keep_time(self) -> None:
        idle_since = self._clock()
        while True:
            with self._changed:
                if self._is_late():
                    self._switch_interval.shorten()
                for beat in self._take_due():
                    self._run(_Call(self, beat))
                now = self._clock()
                soonest, asked_for = min(self._due.values(), default=math.inf), self._asked_for
                if self._due or asked_for != math.inf:
                    idle_since = now
                elif now >= idle_since + LINGER_SECONDS:
                    self._waiting_until = None
                    return
                self._asked_for = math.inf
                # A new run that is due later than this need not wake the thread. Most runs are over before the thread
                # is awake; it waits for the time it has been woken for all the same, and the next ones do not wake it.
                if asked_for > now:
                    soonest = min(soonest, asked_for)
                self._waiting_until = min(soonest, idle_since + LINGER_SECONDS)
                self._changed.wait(max(self._waiting_until - now, 0.0))

    def _is_late(self) -> bool:
        """Tell whether there are runs, and this thread should have been awake before."""
        expected = (due for due in (self._waiting_until, *self._due.values()) if due is not None and due > -math.inf)
        return bool(self._due) and self._clock() > min(expected, default=math.inf) + LATE_SECONDS

    def _take_due(self) -> list[Callable[[], float]]:
        now = self._clock()
        due = [beat for beat, time in self._due.items() if time <= now]
        for beat in due:
            self._due[beat] = math.inf
        return due

    def called(self, beat: Callable[[], float], due: float) -> None:
        """Note that a call has returned, and when the next one is due."""
        with self._changed:
            if beat in self._again:
                self._again.discard(beat)
                due = -math.inf
            if beat in self._due:
                self._due[beat] = due
                self._wake_before(due)


class _Call:
    __slots__ = ("_beat", "_pacemaker")

    def __init__(self, pacemaker: Pacemaker, beat: Callable[[], float]) -> None:
        self._pacemaker = pacemaker
        self._beat = beat

    def __call__(self) -> None:
        try:
            due = self._beat()
        except Exception:  # One failed beat must not be the run's last one.
            log.exception("A heartbeat failed.")
            due = time.monotonic() + _AFTER_FAILURE_SECONDS
        self._pacemaker.called(self._beat, due)


_pacemaker = Pacemaker()


def pacemaker() -> Pacemaker:
    """Return the pacemaker of this process."""
    return _pacemaker


def _forget_after_fork() -> None:
    # The parent's timing thread does not exist in the child.
    global _pacemaker
    _pacemaker = Pacemaker()


os.register_at_fork(after_in_child=_forget_after_fork)
