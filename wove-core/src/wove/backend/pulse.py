"""One thread that does what must happen while tasks keep every other thread busy: heartbeats, and posts that wait."""

import threading
import time
from collections.abc import Callable

_TICK = 0.003
# So many ticks without anything to do, and the thread rests until something comes.
_QUIET_TICKS = 100


class Pulse:
    """Sends heartbeats for runs, and calls `tick` every few milliseconds while there is anything to do.

    Args:
        beat: sends the heartbeat of a run.
        tick: does what is to be done; tells whether there was anything.
        waiting: tells whether there is anything to do.
    """

    def __init__(self, *, beat: Callable[[str], None], tick: Callable[[], bool], waiting: Callable[[], bool]) -> None:
        self._beat = beat
        self._tick = tick
        self._waiting = waiting
        self._beats: dict[str, tuple[float, float]] = {}
        self._lock = threading.Lock()
        self._resting = False
        self._wake = threading.Event()

    def start(self) -> None:
        """Start the thread."""
        threading.Thread(target=self._run, name="wove-pulse", daemon=True).start()

    def begin(self, run_id: str, interval: float | None) -> None:
        """A run has begun. Its heartbeats come every `interval` seconds, none if that is None."""
        if interval is not None:
            with self._lock:
                self._beats[run_id] = (time.monotonic() + interval, interval)
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
            if quiet < _QUIET_TICKS:
                time.sleep(_TICK)
            elif self._rest():
                quiet = 0
            self._beat_all()
            quiet = 0 if self._tick() else quiet + 1

    def _rest(self) -> bool:
        """Wait for the next heartbeat that is due; tell whether something else came before."""
        self._resting = True
        # In this order: what came before `_resting` was set did not wake this thread.
        woken = self._waiting() or self._wake.wait(self._seconds_to_beat())
        self._resting = False
        self._wake.clear()
        return woken

    def _seconds_to_beat(self) -> float | None:
        with self._lock:
            due = min((due for due, _ in self._beats.values()), default=None)
        return None if due is None else max(0.0, due - time.monotonic())

    def _beat_all(self) -> None:
        if not self._beats:
            return
        now = time.monotonic()
        with self._lock:
            due = [(run_id, interval) for run_id, (at, interval) in self._beats.items() if at <= now]
            self._beats.update((run_id, (now + interval, interval)) for run_id, interval in due)
        for run_id, _ in due:
            self._beat(run_id)
