"""Which runs this process executes now, so that a job that is delivered twice does not run twice at a time."""

import os
import threading


class ActiveRuns:
    """Runs, as their callback URLs and ids; each can be in it once."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._runs: set[tuple[str, str]] = set()

    def add(self, run: tuple[str, str]) -> bool:
        """Add a run; False if it is there already."""
        with self._lock:
            if run in self._runs:
                return False
            self._runs.add(run)
            return True

    def remove(self, run: tuple[str, str]) -> None:
        """Remove a run."""
        with self._lock:
            self._runs.discard(run)


_runs = ActiveRuns()


def active_runs() -> ActiveRuns:
    """Return the runs of this process."""
    return _runs


def _forget_after_fork() -> None:
    global _runs
    _runs = ActiveRuns()


os.register_at_fork(after_in_child=_forget_after_fork)
