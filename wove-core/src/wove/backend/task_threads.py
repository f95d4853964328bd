"""The threads of a worker process: one that reads and executes as long as tasks are short, more when they are not.

Handing every task from a reading thread to an executing one would cost more than a short task takes. So the main thread
does both in turn. When a task keeps it away from reading, another thread stands in for it, and helpers take the tasks
that wait.
"""

import threading
import time
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import Generic, NamedTuple, TypeVar

from wove.backend.threads import DaemonThreads

J = TypeVar("J")

# Enough for tasks that wait; work that computes wants processes.
DEFAULT_THREADS = 16

# A job waits that long behind another one before it gets a thread of its own.
_PATIENCE = 0.002
_IDLE = 0.02
# Threads keep their thread-locals (connections, caches) for that long after the last job.
_LINGER = 60.0
# A process that uses this much of a processor has no use for more threads, unless a single job goes on and on.
_WORKING = 0.5


class _Seen(NamedTuple):
    """What had been done at some time: jobs taken, and seconds of processor time."""

    taken: int
    worked: float
    at: float


class TaskThreads(Generic[J]):
    """Executes jobs in the order in which they come, up to `limit` at a time.

    Args:
        execute: does one job; must not raise.
        readable: waits up to some seconds for something to read; tells whether there is anything.
        receive: reads, waiting for as long as it takes, and calls `put` for what is to be executed.
        limit: the most jobs at a time.
    """

    def __init__(
        self,
        *,
        execute: Callable[[J], None],
        readable: Callable[[float], bool],
        receive: Callable[[], None],
        limit: int,
    ) -> None:
        self.limit = limit
        self._execute = execute
        self._readable = readable
        self._receive = receive
        # None wakes the main thread without giving it anything.
        self._jobs: SimpleQueue[J | None] = SimpleQueue()
        self._helpers = DaemonThreads("wove-task", linger=_LINGER)
        self._lock = threading.Lock()
        self._closed = False
        # Held by the thread that reads.
        self._reading = threading.Lock()
        # What the main thread does: how often it has begun to read, whether it is at it, whether it waits for a job.
        self._turns = 0
        self._turns_seen = 0
        self._at_reading = False
        self._waiting = False
        self._helping = 0
        self._taken = 0
        self._seen = _Seen(0, 0.0, 0.0)

    def put(self, job: J) -> None:
        """Add a job. Called by `receive`."""
        self._jobs.put(job)

    def close(self) -> None:
        """Let `work` return after what it is doing."""
        self._closed = True
        self._jobs.put(None)

    def work(self) -> None:
        """Read and execute jobs in this thread until `close`."""
        while not self._closed:
            job = self._next()
            if job is None:
                job = self._read_or_wait()
            if job is not None:
                self._do(job)
            del job  # What it holds must not live until the next one comes.

    def oversee(self) -> None:
        """Find somebody to read if the thread in `work` has not come to it since the last call.

        To be called every few milliseconds while jobs are executed, from one other thread.
        """
        turns, self._turns_seen = self._turns_seen, self._turns
        if turns == self._turns and not self._at_reading and not self._reading.locked():
            self._helpers.submit(self._stand_in)

    def _read_or_wait(self) -> J | None:
        if self._reading.acquire(blocking=False):
            self._turns += 1
            self._at_reading = True
            try:
                self._receive()
            finally:
                self._at_reading = False
                self._reading.release()
            return None
        self._waiting = True
        try:
            return self._jobs.get()
        finally:
            self._waiting = False

    def _stand_in(self) -> None:
        """Read until the main thread has nothing else to do."""
        if not self._reading.acquire(blocking=False):
            return
        self._seen = self._look()
        try:
            while not self._closed:
                readable = self._readable(self._patience())
                if self._waiting and self._jobs.empty():
                    return
                if readable:
                    self._receive()
                else:
                    self._relieve()
        finally:
            self._reading.release()
            self._jobs.put(None)

    def _patience(self) -> float:
        return _PATIENCE if self._helping < self.limit - 1 and not self._jobs.empty() else _IDLE

    def _relieve(self) -> None:
        """Get helpers for the jobs that wait, if that makes them end sooner."""
        before, self._seen = self._seen, self._look()
        worked = self._seen.worked - before.worked
        if self._seen.taken != before.taken and worked > _WORKING * (self._seen.at - before.at):
            return
        with self._lock:
            wanted = max(0, min(self._jobs.qsize(), self.limit - 1 - self._helping))
            self._helping += wanted
        for _ in range(wanted):
            self._helpers.submit(self._help)

    def _look(self) -> _Seen:
        return _Seen(self._taken, time.process_time(), time.monotonic())

    def _help(self) -> None:
        while (job := self._next()) is not None:
            self._do(job)
            del job
        with self._lock:
            self._helping -= 1
        if self._waiting:
            self._jobs.put(None)  # In case that this thread has taken what was to wake the main thread.

    def _next(self) -> J | None:
        try:
            return self._jobs.get_nowait()
        except Empty:
            return None

    def _do(self, job: J) -> None:
        self._taken += 1
        self._execute(job)
