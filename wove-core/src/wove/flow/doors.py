"""The ways into a weave from code that is not asynchronous: here, or in a helper thread where a loop already runs."""

import asyncio
import os
import signal
import threading
from collections.abc import Callable, Coroutine
from contextvars import Context
from types import FrameType
from typing import Any

_GLANCE_SECONDS = 0.1

Main = Callable[[], Coroutine[Any, Any, None]]


def run_blocking(main: Main, context: Context) -> None:
    """Run a coroutine function to its end on a new event loop, whether or not one already runs in this thread.

    Raises:
        KeyboardInterrupt, SystemExit: SIGINT or SIGTERM came; the coroutine has been cancelled and has ended.
        BaseException: what the coroutine raised.
    """
    # In a notebook, or below a coroutine that calls synchronous code, the loop of this thread is blocked meanwhile.
    run = _run_in_thread if _loop_is_running() else _run_here
    run(main, context)


def _loop_is_running() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def _run_here(main: Main, context: Context) -> None:
    with asyncio.Runner() as runner, _Termination() as termination:
        try:
            runner.run(termination.watch(main()), context=context)
        except asyncio.CancelledError:
            termination.leave()
            raise


def _run_in_thread(main: Main, context: Context) -> None:
    helper = _Helper(main, context)
    helper.start()
    try:
        _wait_for(helper)
    except BaseException:  # Ctrl-C reaches only the waiting main thread.
        helper.cancel()
        helper.join()
        raise
    if helper.failure is not None:
        raise helper.failure


def _wait_for(helper: threading.Thread) -> None:
    if threading.current_thread() is not threading.main_thread():
        helper.join()
        return
    before = _cancellations()
    while helper.is_alive():
        helper.join(_GLANCE_SECONDS)
        # Below `asyncio.run` the first Ctrl-C raises nothing: it cancels a task of the loop that is blocked here.
        if _cancellations() > before:
            raise asyncio.CancelledError


def _cancellations() -> int:
    return sum(task.cancelling() for task in asyncio.all_tasks())


class _Helper(threading.Thread):
    """Runs one coroutine on a loop of its own for a thread whose loop is occupied."""

    def __init__(self, main: Main, context: Context) -> None:
        super().__init__(name="wove-helper", daemon=True)
        self._main = main
        self._context = context
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[None] | None = None
        self._cancelled = False
        self.failure: BaseException | None = None

    def run(self) -> None:
        try:
            with asyncio.Runner() as runner:
                self._loop = runner.get_loop()
                runner.run(self._cancellable(), context=self._context)
        except BaseException as error:
            self.failure = error

    def cancel(self) -> None:
        """Cancel the coroutine, from another thread."""
        self._cancelled = True
        if self._loop is None or self._task is None:
            return
        try:
            self._loop.call_soon_threadsafe(self._task.cancel)
        except RuntimeError:
            pass  # It has just ended.

    async def _cancellable(self) -> None:
        self._task = asyncio.current_task()
        if not self._cancelled:
            await self._main()


class _Termination:
    """Lets SIGTERM cancel a weave that the main thread waits for, where the program has not said what SIGTERM is to do.

    Without it the process would die at once: remote tasks would run on, worker processes and files would stay. A weave
    that is over in a moment is spared the cost: it has nothing of that kind to leave behind.
    """

    _MOMENT_SECONDS = 0.02

    def __init__(self) -> None:
        self._received = False
        self._installed = False
        self._task: asyncio.Task[None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    def __enter__(self) -> "_Termination":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self._installed:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
        if kind is None:  # It may have come when there was nothing left to cancel.
            self.leave()

    async def watch(self, coroutine: Coroutine[Any, Any, None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._task = asyncio.current_task()
        if threading.current_thread() is not threading.main_thread():
            await coroutine
            return
        timer = self._loop.call_later(self._MOMENT_SECONDS, self._install)
        try:
            await coroutine
        finally:
            timer.cancel()

    def _install(self) -> None:
        if signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
            signal.signal(signal.SIGTERM, self._on_signal)
            self._installed = True

    def leave(self) -> None:
        """Raise SystemExit with the shell's exit code for the signal if it came."""
        if self._received:
            raise SystemExit(128 + signal.SIGTERM)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if self._received or self._task is None or self._loop is None:
            # The second one means it.
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            os.kill(os.getpid(), signal.SIGTERM)
            return
        self._received = True
        self._loop.call_soon_threadsafe(self._task.cancel)
