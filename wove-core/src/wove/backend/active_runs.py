"""Which runs this process executes now, so that a job that is delivered twice does not run twice at a time."""

import os
import threading


class ActiveRuns:
    """Names of runs; each can be in it once."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._names: set[str] = set()

    def add(self, name: str) -> bool:
        """Add a run; False if it is there already."""
        with self._lock:
            if name in self._names:
                return False
            self._names.add(name)
            return True

    def remove(self, name: str) -> None:
        """Remove a run."""
        with self._lock:
            self._names.discard(name)


_runs = ActiveRuns()


def active_runs() -> ActiveRuns:
    """Return the runs of this process."""
    return _runs


def _forget_after_fork() -> None:
    global _runs
    _runs = ActiveRuns()


os.register_at_fork(after_in_child=_forget_after_fork)
