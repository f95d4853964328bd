"""The executor behind ``asyncio.to_thread`` on the background loop."""

import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import ParamSpec, TypeVar

from wove.backend.threads import DaemonThreads

P = ParamSpec("P")
T = TypeVar("T")

# Adapters wait for networks here; one whose backend hangs must leave threads for the others.
MOST_THREADS = 64


class DaemonThreadExecutor(ThreadPoolExecutor):
    """Runs calls on daemon threads, `MOST_THREADS` at a time.

    The threads of a plain `ThreadPoolExecutor` are waited for when the interpreter exits: a client that hangs in an
    adapter's ``asyncio.to_thread`` would hold up the exit for as long as it hangs. It is a subclass because an event
    loop accepts nothing else as its default executor.
    """

    def __init__(self) -> None:
        super().__init__(max_workers=1)
        self._daemons = DaemonThreads("wove-io-thread")
        self._guard = threading.Lock()
        self._running = 0
        # Bounded by the runs in flight.
        self._queue: deque[Callable[[], None]] = deque()

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> "Future[T]":
        future: Future[T] = Future()

        def call() -> None:
            if future.set_running_or_notify_cancel():
                try:
                    result = fn(*args, **kwargs)
                except BaseException as error:
                    future.set_exception(error)
                else:
                    future.set_result(result)

        with self._guard:
            if self._running >= MOST_THREADS:
                self._queue.append(call)
                return future
            self._running += 1
        self._daemons.submit(lambda: self._work(call))
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Drop what has not started; what runs is left to end by itself."""
        with self._guard:
            self._queue.clear()

    def _work(self, call: Callable[[], None] | None) -> None:
        while call is not None:
            call()
            with self._guard:
                call = self._queue.popleft() if self._queue else None
                if call is None:
                    self._running -= 1
