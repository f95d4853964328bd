"""Threads for work that must not keep the interpreter from ending: kept for the next job for a second, then gone."""

import os
import threading
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    import asyncio

T = TypeVar("T")

LINGER_SECONDS = 1.0

Job = Callable[[], object]


class DaemonThreads:
    """Runs jobs on daemon threads, as many as there are jobs at a time. A job must not raise.

    Unlike an executor's, these threads do not delay the interpreter's exit, and none is left a second after the last
    job. `submit` may be called from any thread.
    """

    def __init__(self, name: str, *, linger: float = LINGER_SECONDS) -> None:
        self._name = name
        self._linger = linger
        self._ready = threading.Condition()
        self._jobs: deque[Job] = deque()
        self._idle = 0

    @property
    def idle(self) -> int:
        """How many threads wait for a job."""
        return self._idle

    def submit(self, job: Job) -> None:
        """Run a job on an idle thread, or on a new one. The number of threads is the number of jobs: the caller bounds
        it.
        """
        with self._ready:
            self._jobs.append(job)
            if self._idle >= len(self._jobs):
                self._ready.notify()
                return
        threading.Thread(target=self._work, name=self._name, daemon=True).start()

    def _work(self) -> None:
        while True:
            with self._ready:
                if not self._jobs and not self._wait_for_job():
                    return
                job = self._jobs.popleft()
            job()
            del job  # What it holds must not live as long as an idle thread.

    def _wait_for_job(self) -> bool:
        self._idle += 1
        try:
            return self._ready.wait_for(lambda: bool(self._jobs), self._linger)
        finally:
            self._idle -= 1


_threads = DaemonThreads("wove-worker")


def submit(job: Job) -> None:
    """Run a job, which must not raise, on a daemon thread of this process."""
    _threads.submit(job)


async def in_daemon_thread(function: Callable[..., T], *args: Any) -> T:
    """Return what a blocking function returns. Cancelling the caller leaves the function running to its end."""
    import asyncio  # See `wove.backend.late_asyncio`.

    loop = asyncio.get_running_loop()
    done: asyncio.Future[T] = loop.create_future()

    def job() -> None:
        try:
            settle = _resolver(done, function(*args))
        except BaseException as error:  # It belongs to the caller, who awaits it.
            settle = _rejecter(done, error)
        try:
            loop.call_soon_threadsafe(settle)
        except RuntimeError:
            pass  # The caller's loop has been closed; nobody waits any more.

    submit(job)
    return await done


def _resolver(done: "asyncio.Future[T]", value: T) -> Callable[[], None]:
    return lambda: None if done.done() else done.set_result(value)


def _rejecter(done: "asyncio.Future[T]", error: BaseException) -> Callable[[], None]:
    if isinstance(error, StopIteration):
        # A future refuses it: https://docs.python.org/3/library/asyncio-future.html#asyncio.Future.set_exception
        error = RuntimeError(f"StopIteration: {error.value!r}")
    return lambda: None if done.done() else done.set_exception(error)


def _forget_after_fork() -> None:
    # The parent's threads do not exist in the child.
    global _threads
    _threads = DaemonThreads("wove-worker")


os.register_at_fork(after_in_child=_forget_after_fork)
