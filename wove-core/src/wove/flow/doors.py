"""The ways into a weave from code that is not asynchronous: here, or in a helper thread where a loop already runs."""

import asyncio
import os
import signal
import threading
from collections.abc import Callable, Coroutine
from contextvars import Context
from types import FrameType
from typing import TYPE_CHECKING, Any

from wove.errors import TaskStopped
from wove.flow.current import current_engine

if TYPE_CHECKING:
    from wove.flow.engine import Engine

_GLANCE_SECONDS = 0.1

Main = Callable[[], Coroutine[Any, Any, None]]


def run_blocking(main: Main, context: Context) -> None:
    """Run a coroutine function to its end on a new event loop, whether or not one already runs in this thread.

    Raises:
        KeyboardInterrupt, SystemExit: SIGINT or SIGTERM came; the coroutine has been cancelled and has ended.
        TaskStopped: the weave of the task that runs in this thread was stopped, and the coroutine with it.
        BaseException: what the coroutine raised.
    """
    outer = current_engine.get(None)
    if _loop_is_running():
        # In a notebook, or below a coroutine that calls synchronous code, the loop of this thread is blocked meanwhile.
        _run_in_thread(main, context)
    elif outer is not None:
        _run_inside(outer, main, context)
    else:
        run_on_new_loop(main, context)


def run_on_new_loop(main: Main, context: Context) -> None:
    """Run a coroutine function to its end on a new event loop, in a thread where none runs. Raises what it raises."""
    work = _Cancellable(main)
    with asyncio.Runner() as runner, _Termination(work) as termination:
        try:
            runner.run(termination.watch(), context=context)
        except asyncio.CancelledError:
            termination.leave()
            raise


def _run_inside(outer: "Engine", main: Main, context: Context) -> None:
    work = _Cancellable(main)
    outer.adopt(work.cancel)
    try:
        with asyncio.Runner() as runner:
            runner.run(work.run(), context=context)
    except asyncio.CancelledError:
        if work.cancelled:
            raise TaskStopped("A weave was stopped together with that of the task that it runs in.") from None
        raise
    finally:
        outer.release(work.cancel)


def _loop_is_running() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def _run_in_thread(main: Main, context: Context) -> None:
    helper = _Helper(main, context)
    helper.start()
    try:
        _wait_for(helper)
    except BaseException:  # Ctrl-C reaches only the waiting main thread.
        helper.work.cancel()
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


class _Cancellable:
    """Runs one coroutine function, which can be cancelled from other threads and from signal handlers."""

    def __init__(self, main: Main) -> None:
        self.cancelled = False
        self._main = main
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[None] | None = None

    async def run(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._task = asyncio.current_task()
        if self.cancelled:
            raise asyncio.CancelledError
        await self._main()

    def cancel(self) -> None:
        self.cancelled = True
        if self._loop is None or self._task is None:
            return
        try:
            self._loop.call_soon_threadsafe(self._task.cancel)
        except RuntimeError:
            pass  # It has just ended.


class _Helper(threading.Thread):
    """Runs a coroutine function on a loop of its own for a thread whose loop is occupied."""

    def __init__(self, main: Main, context: Context) -> None:
        super().__init__(name="wove-helper", daemon=True)
        self.work = _Cancellable(main)
        self.failure: BaseException | None = None
        self._context = context

    def run(self) -> None:
        try:
            with asyncio.Runner() as runner:
                runner.run(self.work.run(), context=self._context)
        except BaseException as error:
            self.failure = error


class _Termination:
    """Lets SIGTERM cancel a weave that the main thread waits for, where the program has not said what SIGTERM is to do.

    Without it the process would die at once: remote tasks would run on, worker processes and files would stay. A weave
    that is over in a moment is spared the cost: it has nothing of that kind to leave behind.
    """

    _MOMENT_SECONDS = 0.02

    def __init__(self, work: _Cancellable) -> None:
        self._work = work
        self._received = False
        self._installed = False

    def __enter__(self) -> "_Termination":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self._installed:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
        if kind is None:  # It may have come when there was nothing left to cancel.
            self.leave()

    async def watch(self) -> None:
        """Run the work."""
        if threading.current_thread() is not threading.main_thread():
            await self._work.run()
            return
        timer = asyncio.get_running_loop().call_later(self._MOMENT_SECONDS, self._install)
        try:
            await self._work.run()
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
        if self._received:
            # The second one means it.
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            os.kill(os.getpid(), signal.SIGTERM)
            return
        self._received = True
        self._work.cancel()
