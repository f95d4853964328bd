"""Threads for synchronous tasks: daemons, started when work waits, gone when the weave ends."""

import threading
from collections.abc import Callable
from queue import SimpleQueue

Job = Callable[[], None]


class ThreadPool:
    """Runs jobs on at most `limit` threads, first come, first served.

    Lives as long as one weave. A thread is started only when a job finds no idle one. Daemon threads, because Python
    cannot stop a thread: one that is stuck in a timed-out task must keep neither the weave nor the interpreter's exit
    waiting. The queue is unbounded; what feeds it is bounded by the number of tasks and, for a map, by its workers.

    `submit` may be called from any thread.
    """

    __slots__ = ("_closed", "_idle", "_jobs", "_limit", "_lock", "_threads")

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._jobs: SimpleQueue[Job | None] = SimpleQueue()
        self._lock = threading.Lock()
        self._threads = 0
        # Idle threads less waiting jobs.
        self._idle = 0
        self._closed = False

    def submit(self, job: Job) -> None:
        """Queue a job. It must not raise. After `close` it is dropped."""
        with self._lock:
            if self._closed:
                return
            self._jobs.put(job)
            self._idle -= 1
            if self._idle < 0:
                self._grow()

    def lend(self) -> None:
        """Let one more thread start, because a running job waits for other jobs or will never end."""
        with self._lock:
            self._limit += 1
            if self._idle < 0 and not self._closed:
                self._grow()

    def reclaim(self) -> None:
        """Take back what `lend` gave; a surplus thread ends when it is idle."""
        with self._lock:
            self._limit -= 1
            if self._threads > self._limit and not self._closed:
                self._jobs.put(None)

    def close(self) -> None:
        """Drop waiting jobs and let idle threads end, without waiting for busy ones."""
        with self._lock:
            self._closed = True
            while not self._jobs.empty():
                self._jobs.get_nowait()
            for _ in range(self._threads):
                self._jobs.put(None)

    def _grow(self) -> None:
        if self._threads < self._limit:
            self._threads += 1
            self._idle += 1
            threading.Thread(target=self._work, name=f"wove-task-{self._threads}", daemon=True).start()

    def _work(self) -> None:
        while True:
            job = self._jobs.get()
            if job is None:
                if self._leave():
                    return
                continue
            job()
            # Nothing of the job may stay alive while the thread is idle.
            del job
            with self._lock:
                self._idle += 1

    def _leave(self) -> bool:
        """Count the calling, idle thread out, unless it is needed after all."""
        with self._lock:
            if self._threads <= self._limit and not self._closed:
                return False
            self._threads -= 1
            self._idle -= 1
            return True
