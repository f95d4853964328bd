"""Threads for synchronous tasks: daemons, started when work waits, gone when the weave ends."""

import threading
from collections import deque
from collections.abc import Callable

Job = Callable[[], None]


class ThreadPool:
    """Runs jobs on at most `limit` threads, first come, first served.

    Lives as long as one weave. A thread is started only when a job finds no idle one. Daemon threads, because Python
    cannot stop a thread: one that is stuck in a timed-out task must keep neither the weave nor the interpreter's exit
    waiting. The queues are unbounded; what feeds them is bounded by the number of tasks and, for a map, by its workers.

    A thread whose job waits for other jobs lends its place to them: to urgent ones, which are what somebody waits for,
    and never to ordinary ones. So no chain of waiting ends in a deadlock, and the number of threads grows with the
    depth of the waiting and not with its breadth.

    Every method may be called from any thread.
    """

    # All threads are idle or run a job; those of `_running` jobs that wait for others leave a place each.
    __slots__ = (
        "_closed",
        "_idle",
        "_limit",
        "_lock",
        "_ordinary",
        "_ordinary_running",
        "_running",
        "_threads",
        "_urgent",
        "_waiting",
    )

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._lock = threading.Lock()
        self._ordinary: deque[Job] = deque()
        self._urgent: deque[Job] = deque()
        self._idle: list[_Worker] = []
        self._threads = 0
        self._running = 0
        self._ordinary_running = 0
        # How many of the running jobs wait for others.
        self._waiting = 0
        self._closed = False

    @property
    def crowded(self) -> bool:
        """Whether a job waits for a place."""
        return bool(self._ordinary or self._urgent)

    def submit(self, job: Job, *, urgent: bool = False) -> bool:
        """Run a job as soon as there is a place for it. After `close` it is dropped.

        Args:
            job: must not raise.
            urgent: another job waits for it.

        Returns:
            Whether it starts at once.

        Raises:
            RuntimeError: the system gives no more threads, and there is none that could ever take the job.
        """
        with self._lock:
            if self._closed:
                return False
            waiting = self._urgent if urgent else self._ordinary
            waiting.append(job)
            try:
                self._start_waiting()
            except RuntimeError:
                waiting.remove(job)
                raise
            return not waiting

    def lend(self) -> None:
        """Lend the place of a job that waits for others, until `reclaim`.

        Raises:
            RuntimeError: the system gives no more threads, and this was the last one that did anything.
        """
        with self._lock:
            self._waiting += 1
            try:
                self._start_waiting()
            except RuntimeError:
                self._waiting -= 1
                raise

    def reclaim(self) -> None:
        """Take a lent place back."""
        with self._lock:
            self._waiting -= 1

    def replace(self) -> None:
        """Make a place for another thread, because one is stuck; until `restore`."""
        with self._lock:
            self._limit += 1
            self._start_waiting(can_fail=False)

    def restore(self) -> None:
        """Note that a thread that was replaced has come back."""
        with self._lock:
            self._limit -= 1

    def close(self) -> None:
        """Drop waiting jobs and let idle threads end, without waiting for busy ones."""
        with self._lock:
            self._closed = True
            self._ordinary.clear()
            self._urgent.clear()
            self._threads -= len(self._idle)
            for worker in self._idle:
                worker.wake.release()
            self._idle.clear()

    def _start_waiting(self, *, can_fail: bool = True) -> None:
        """Hand waiting jobs to idle threads and new ones, as far as there are places."""
        while (waiting := self._next_queue()) is not None:
            worker = self._idle.pop() if self._idle else self._started_worker(can_fail=can_fail)
            if worker is None:
                return
            self._give(worker, waiting)
            worker.wake.release()

    def _next_queue(self) -> "deque[Job] | None":
        """The queue whose first job may start now."""
        if self._closed or self._running - self._waiting >= self._limit:
            return None
        if self._urgent:
            return self._urgent
        if self._ordinary and self._ordinary_running < self._limit:
            return self._ordinary
        return None

    def _give(self, worker: "_Worker", waiting: "deque[Job]") -> None:
        worker.job = waiting.popleft()
        worker.ordinary = waiting is self._ordinary
        self._running += 1
        self._ordinary_running += worker.ordinary

    def _started_worker(self, *, can_fail: bool) -> "_Worker | None":
        worker = _Worker()
        name = f"wove-task-{self._threads + 1}"
        try:
            threading.Thread(target=self._work, args=(worker,), name=name, daemon=True).start()
        except RuntimeError:
            # The system has no more threads to give. Those that are there must do, unless each of them waits itself.
            if can_fail and self._running <= self._waiting:
                raise
            return None
        self._threads += 1
        return worker

    def _work(self, worker: "_Worker") -> None:
        worker.wake.acquire()
        while worker.job is not None:
            worker.job()
            # Nothing of the job may stay alive while the thread is idle.
            worker.job = None
            with self._lock:
                self._running -= 1
                self._ordinary_running -= worker.ordinary
                waiting = self._next_queue()
                if waiting is not None:
                    self._give(worker, waiting)
                    continue
                if self._closed or self._threads > self._limit + self._waiting:
                    self._threads -= 1
                    return
                self._idle.append(worker)
            worker.wake.acquire()


class _Worker:
    """A thread, and the job that it was given; `wake` is held while it has none."""

    __slots__ = ("job", "ordinary", "wake")

    def __init__(self) -> None:
        self.wake = threading.Lock()
        self.wake.acquire()
        self.job: Job | None = None
        self.ordinary = False
