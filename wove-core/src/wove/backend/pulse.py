"""One thread that does what must happen while tasks keep every other thread busy, heartbeats above all."""

import threading
import time
from collections.abc import Callable

from wove.backend.switching import LATE_SECONDS, SwitchInterval

_TICK = 0.003
# So many ticks without a new run, and the ticks become slow; without any run, the thread rests.
_QUIET_TICKS = 30
_SLOW_TICK = 0.05


class Pulse:
    """Sends heartbeats for runs, and calls `tick`: every few milliseconds while runs begin, more slowly later.

    `begin` and `end` may be called from any thread.

    Args:
        beat: sends the heartbeat of a run.
        tick: does what is to be done now and then while something is executed.
        busy: tells whether anything is being executed.
    """

    def __init__(self, *, beat: Callable[[str], None], tick: Callable[[], None], busy: Callable[[], bool]) -> None:
        self._beat = beat
        self._tick = tick
        self._busy = busy
        self._beats: dict[str, tuple[float, float]] = {}
        self._lock = threading.Lock()
        self._begun = False
        self._resting = False
        self._wake = threading.Event()
        self._switch_interval = SwitchInterval()

    def start(self) -> None:
        """Start the thread."""
        threading.Thread(target=self._run, name="wove-pulse", daemon=True).start()

    def begin(self, run_id: str, interval: float | None) -> None:
        """A run has begun. Its heartbeats come every `interval` seconds, none if that is None."""
        if interval is not None:
            with self._lock:
                self._beats[run_id] = (time.monotonic() + interval, interval)
        self._begun = True
        if self._resting:
            self._wake.set()

    def end(self, run_id: str) -> None:
        """A run has ended: no heartbeat comes any more."""
        if self._beats:
            with self._lock:
                self._beats.pop(run_id, None)

    def _run(self) -> None:
        quiet = 0
        while True:
            asleep_since = time.monotonic()
            if quiet < _QUIET_TICKS:
                time.sleep(_TICK)
            elif self._rest():
                asleep_since = time.monotonic()
            if self._busy() and time.monotonic() > asleep_since + _SLOW_TICK + LATE_SECONDS:
                self._switch_interval.shorten()
            quiet = 0 if self._begun else quiet + 1
            self._begun = False
            self._tick()
            self._beat_all()

    def _rest(self) -> bool:
        """Wait until a run begins or a heartbeat is due, not long while anything is being executed.

        Returns:
            Whether a run has begun.
        """
        busy = self._busy()
        if not busy:
            self._switch_interval.restore()
        self._resting = True
        # In this order: a run that began before `_resting` was set has not woken this thread.
        woken = self._begun or self._wake.wait(self._rest_seconds(busy=busy))
        self._resting = False
        self._wake.clear()
        return woken

    def _rest_seconds(self, *, busy: bool) -> float | None:
        with self._lock:
            due = min((due for due, _ in self._beats.values()), default=None)
        longest = _SLOW_TICK if busy else None
        if due is None:
            return longest
        return min(max(0.0, due - time.monotonic()), longest or _SLOW_TICK)

    def _beat_all(self) -> None:
        if not self._beats:
            return
        now = time.monotonic()
        with self._lock:
            due = [(run_id, interval) for run_id, (at, interval) in self._beats.items() if at <= now]
            self._beats.update((run_id, (now + interval, interval)) for run_id, interval in due)
        for run_id, _ in due:
            self._beat(run_id)
