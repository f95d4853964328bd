"""The background event loop that carries all traffic which leaves the process.

One thread per process, shared by every weave. It starts on first use; `shutdown` and interpreter exit close what lives
on it and then the loop itself. A forked child starts a new one of its own.
"""

import asyncio
import atexit
import logging
import os
import threading
from collections.abc import Awaitable, Callable, Coroutine
from concurrent.futures import Future
from contextvars import Context
from typing import Any, TypeVar

from wove.backend import idle_loops
from wove.backend.background_run import BackgroundRun
from wove.backend.thread_executor import DaemonThreadExecutor
from wove.errors import DeliveryOrphanedError

T = TypeVar("T")

_CLOSE_SECONDS = 5.0
_END_SECONDS = 0.5


class IOLoop:
    """An event loop in a daemon thread. `call`, `spawn` and `begin` may be used from any thread or loop."""

    def __init__(self) -> None:
        # A loop keeps the context that it is made in.
        self.loop = Context().run(asyncio.new_event_loop)
        self.loop.set_default_executor(DaemonThreadExecutor())
        self._closers: list[Callable[[], Awaitable[None]]] = []
        self._first_closers: list[Callable[[], Awaitable[None]]] = []
        self._runs: dict[BackgroundRun, asyncio.Task[None] | None] = {}
        self._thread = threading.Thread(target=self._run, name="wove-io", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        asyncio.set_event_loop(self.loop)
        try:
            self.loop.run_forever()
        finally:
            self.loop.close()
            for run in list(self._runs):
                run.end(_shut_down())

    def spawn(self, coroutine: Coroutine[Any, Any, T]) -> "Future[T]":
        """Start a coroutine on the background loop and return its future; cancelling the future cancels the
        coroutine.

        It runs in an empty context: what outlives the caller must not keep the values of the caller's variables.
        """
        return Context().run(asyncio.run_coroutine_threadsafe, coroutine, self.loop)

    def begin(self, run: BackgroundRun) -> None:
        """Begin a run, which comes to an end even if the loop is closed at once."""
        self._runs[run] = None
        try:
            self.loop.call_soon_threadsafe(self._begin, run)
        except RuntimeError:
            del self._runs[run]
            run.end(_shut_down())

    def _begin(self, run: BackgroundRun) -> None:
        self._runs[run] = task = run.begin(self.loop)
        task.add_done_callback(lambda _: self._runs.pop(run))

    def on_close(self, closer: Callable[[], Awaitable[None]], *, first: bool = False) -> None:
        """Register what `shutdown` awaits, in reverse order of registration. Called on the background loop.

        Args:
            closer: closes something.
            first: it needs what the others close, and comes before all that are not marked so.
        """
        (self._first_closers if first else self._closers).append(closer)

    def close(self) -> None:
        """Close everything that lives on the loop, then end the thread. Takes a few seconds at the most; idempotent."""
        if self.loop.is_closed() or not self._thread.is_alive():
            return
        closing = self.spawn(self._close_all())
        try:
            closing.result(_CLOSE_SECONDS)
        except TimeoutError:
            closing.cancel()
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(1.0)

    async def _close_all(self) -> None:
        for closer in [*reversed(self._first_closers), *reversed(self._closers)]:
            try:
                await closer()
            except Exception:  # One closer must not keep the others from running.
                logging.getLogger("wove").exception("Closing a background resource failed.")
        running = [task for task in self._runs.values() if task is not None]
        if running:
            # What they wait for has just ended.
            await asyncio.wait(running, timeout=_END_SECONDS)
        pending = asyncio.all_tasks() - {asyncio.current_task()}
        for task in pending:
            task.cancel()
        await asyncio.gather(*pending, return_exceptions=True)
        await self.loop.shutdown_asyncgens()
        try:
            await self.loop.shutdown_default_executor()
        except RuntimeError:
            # At the interpreter's exit some versions (seen with Python 3.12.1) start no thread any more, not even the
            # one that waits for the others. By then concurrent.futures has ended those by itself.
            pass


def _shut_down() -> Exception:
    return DeliveryOrphanedError("Wove was shut down while the weave ran.")


_lock = threading.Lock()
_current: IOLoop | None = None


def io_loop() -> IOLoop:
    """Return the process's background loop, started if need be."""
    global _current
    with _lock:
        if _current is None or _current.loop.is_closed():
            _current = IOLoop()
        return _current


def is_io_loop(loop: asyncio.AbstractEventLoop) -> bool:
    """Whether a loop is the process's background loop; does not start it."""
    return _current is not None and _current.loop is loop


async def on_io_loop(coroutine: Coroutine[Any, Any, T]) -> T:
    """Await a coroutine that runs on the background loop, as by `IOLoop.spawn`. Cancelling the caller cancels it."""
    background = io_loop()
    if asyncio.get_running_loop() is background.loop:
        return await asyncio.Task(coroutine, context=Context())
    return await asyncio.wrap_future(background.spawn(coroutine))


def shutdown() -> None:
    """Close everything that Wove keeps for the next weave: callback receivers, adapter clients, connections, worker
    processes.

    Blocks for a few seconds at the most. A later weave starts again from nothing. Interpreter exit does the same by
    itself.
    """
    global _current
    with _lock:
        closing, _current = _current, None
    if closing is not None:
        closing.close()
    idle_loops.close_all()


def _forget_after_fork() -> None:
    # The parent's thread does not exist in the child, and its sockets belong to the parent.
    global _lock, _current
    _lock = threading.Lock()
    _current = None


atexit.register(shutdown)
os.register_at_fork(after_in_child=_forget_after_fork)
