"""Runs synchronous work side by side: in one thread as long as it is short, in more threads when it is not."""

import threading
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import Generic, TypeVar

from wove.backend.threads import DaemonThreads

J = TypeVar("J")

# A job waits that long behind another one before it gets a thread of its own.
PATIENCE = 0.002
# Threads keep their thread-locals (connections, caches) for that long after the last job.
_LINGER = 60.0
# Jobs that are done faster than this many in PATIENCE would lose more than they win in threads of their own.
_FAST = 20


class TaskThreads(Generic[J]):
    """Executes jobs in the order in which they come, up to `limit` at a time.

    The thread that calls `work` is the first of them, and does everything while jobs are short. Others help when
    whoever feeds the jobs calls `relieve`; that is one thread, which also calls `put`.

    Args:
        execute: does one job; must not raise.
        limit: the most jobs at a time.
    """

    def __init__(self, execute: Callable[[J], None], limit: int) -> None:
        self.limit = limit
        self._execute = execute
        self._jobs: SimpleQueue[J | None] = SimpleQueue()
        self._helpers = DaemonThreads("wove-task", linger=_LINGER)
        self._helping = 0
        self._lock = threading.Lock()
        self._taken = 0
        self._taken_before = 0

    def put(self, job: J) -> None:
        """Add a job."""
        self._jobs.put(job)

    def close(self) -> None:
        """Let `work` return after the jobs that were added before."""
        self._jobs.put(None)

    def patience(self) -> float | None:
        """Return the seconds after which `relieve` is to be called, None if it need not be."""
        if self.limit == 1 or self._jobs.empty():
            return None
        # With all helpers busy, one may be about to leave without having seen the last job.
        return PATIENCE if self._helping < self.limit - 1 else 10 * PATIENCE

    def relieve(self) -> None:
        """Get helpers for the jobs that wait, unless they are being done quickly."""
        taken, self._taken_before = self._taken - self._taken_before, self._taken
        if taken >= _FAST:
            return
        with self._lock:
            wanted = min(self._jobs.qsize(), self.limit - 1 - self._helping)
            self._helping += wanted
        for _ in range(wanted):
            self._helpers.submit(self._help)

    def work(self) -> None:
        """Execute jobs in this thread until `close`."""
        while True:
            job = self._jobs.get()
            if job is None:
                return
            self._taken += 1
            self._execute(job)
            del job  # What it holds must not live until the next one comes.

    def _help(self) -> None:
        while (job := self._next()) is not None:
            self._taken += 1
            self._execute(job)
            del job
        with self._lock:
            self._helping -= 1

    def _next(self) -> J | None:
        try:
            job = self._jobs.get_nowait()
        except Empty:
            return None
        if job is None:
            self._jobs.put(None)  # It is meant for whoever is in `work`.
        return job
