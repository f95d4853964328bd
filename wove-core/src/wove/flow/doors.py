"""The ways into a weave from code that is not asynchronous: here, or in a helper thread where a loop already runs."""

import asyncio
import os
import signal
import threading
from collections.abc import Callable, Coroutine
from contextvars import Context
from functools import cache
from types import FrameType
from typing import TYPE_CHECKING, Any, ClassVar

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
        run_on_new_loop(Cancellable(main), context)


def run_on_new_loop(work: "Cancellable", context: Context) -> None:
    """Run something to its end on a new event loop, in a thread where none runs. Raises what it raises."""
    with asyncio.Runner() as runner, _Termination(work) as termination:
        try:
            runner.run(termination.watch(), context=context)
        except asyncio.CancelledError:
            termination.leave()
            raise


async def run_here(main: Main) -> None:
    """Await a coroutine function in the current asyncio task.

    Raises:
        SystemExit: SIGTERM came; the coroutine has been cancelled and has ended.
        BaseException: what the coroutine raised.
    """
    if threading.current_thread() is not threading.main_thread() or current_engine.get(None) is not None:
        # Signals are the main thread's concern; and an inner weave is stopped by the outer one.
        await main()
        return
    with _Termination(Cancellable(main), among_others=True) as termination:
        try:
            await termination.watch()
        except asyncio.CancelledError:
            termination.leave()
            raise


def _run_inside(outer: "Engine", main: Main, context: Context) -> None:
    work = Cancellable(main)
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
    with _Termination(helper.work) as termination:
        helper.start()
        try:
            _wait_for(helper, termination)
        except BaseException:  # Ctrl-C reaches only the waiting main thread.
            helper.work.cancel()
            helper.wait()
            raise
        if isinstance(helper.failure, asyncio.CancelledError):
            termination.leave()
        if helper.failure is not None:
            raise helper.failure


def _wait_for(helper: "_Helper", termination: "_Termination") -> None:
    if threading.current_thread() is not threading.main_thread():
        helper.wait()
        return
    before = _cancellations()
    if helper.wait(termination.MOMENT_SECONDS):
        return
    termination.install()
    while not helper.wait(_GLANCE_SECONDS):
        # Below `asyncio.run` the first Ctrl-C raises nothing: it cancels a task of the loop that is blocked here.
        if _cancellations() > before:
            raise asyncio.CancelledError


def _cancellations() -> int:
    return sum(task.cancelling() for task in asyncio.all_tasks())


class Cancellable:
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


class WaitedFor(threading.Thread):
    """A thread that can be waited for once more after Ctrl-C has interrupted the waiting.

    Its `join` cannot: CPython 3.11 and 3.12 then take the thread for one that has ended.

    Args:
        target: what it does.
        work: what is cancelled if nobody wants to wait.
        name, daemon: as for every thread.
    """

    def __init__(self, target: Callable[[], object], work: Cancellable, *, name: str, daemon: bool = False) -> None:
        super().__init__(name=name, daemon=daemon)
        self.work = work
        self._do = target
        self._ended = threading.Event()

    def run(self) -> None:
        try:
            self._do()
        finally:
            self._ended.set()

    def wait(self, seconds: float | None = None) -> bool:
        """Wait until it has ended, at most some seconds; return whether it has."""
        if not self._ended.wait(seconds):
            return False
        self.join()
        return True


class _Helper(WaitedFor):
    """Runs a coroutine function on a loop of its own for a thread whose loop is occupied."""

    def __init__(self, main: Main, context: Context) -> None:
        super().__init__(self._run, Cancellable(main), name="wove-helper", daemon=True)
        self.failure: BaseException | None = None
        self._context = context

    def _run(self) -> None:
        try:
            with asyncio.Runner() as runner:
                runner.run(self.work.run(), context=self._context)
        except BaseException as error:
            self.failure = error


class _Termination:
    """Lets SIGTERM cancel a weave that the main thread waits for, where the program has not said what SIGTERM is to do.

    Without it the process would die at once: remote tasks would run on, worker processes and files would stay. A weave
    that is over in a moment is spared the cost: it has nothing of that kind to leave behind.

    Args:
        work: what SIGTERM cancels.
        among_others: other asyncio tasks of its loop may wait for weaves, too.
    """

    MOMENT_SECONDS = 0.02

    # The handler is there as long as one of them waits.
    _waiting: ClassVar["set[_Termination]"] = set()

    def __init__(self, work: "Cancellable", *, among_others: bool = False) -> None:
        self._work = work
        self._among_others = among_others
        self._received = False

    def __enter__(self) -> "_Termination":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self in self._waiting:
            self._waiting.discard(self)
            if not self._waiting and signal.getsignal(signal.SIGTERM) is _on_termination:
                signal.signal(signal.SIGTERM, signal.SIG_DFL)
        if kind is None:  # It may have come when there was nothing left to cancel.
            self.leave()

    async def watch(self) -> None:
        """Run the work."""
        if threading.current_thread() is not threading.main_thread():
            await self._work.run()
            return
        timer = asyncio.get_running_loop().call_later(self.MOMENT_SECONDS, self.install)
        try:
            await self._work.run()
        finally:
            timer.cancel()

    def install(self) -> None:
        """Listen from now on. Called on the main thread."""
        before = signal.getsignal(signal.SIGTERM)
        if before is signal.SIG_DFL:
            _spare_forked_processes()
            signal.signal(signal.SIGTERM, _on_termination)
        elif before is not _on_termination:
            return
        self._waiting.add(self)

    def leave(self) -> None:
        """Raise SystemExit with the shell's exit code for the signal if it came."""
        if not self._received:
            return
        # A loop ends with the first SystemExit: the last of those that share it raises it, the others are cancelled.
        if self._among_others and any(each._among_others for each in self._waiting - {self}):
            return
        raise SystemExit(128 + signal.SIGTERM)

    @classmethod
    def receive(cls) -> None:
        """Cancel what the main thread waits for; a second time, let the signal do what it does without a handler."""
        if any(each._received for each in cls._waiting):
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            os.kill(os.getpid(), signal.SIGTERM)
            return
        for each in cls._waiting:
            each._received = True
            each._work.cancel()


def _on_termination(number: int, frame: FrameType | None) -> None:
    _Termination.receive()


@cache
def _spare_forked_processes() -> None:
    """Let a process that a task forks off die of SIGTERM: there is no weave in it to be cancelled.

    The signal is blocked until the handler is gone there. One that comes earlier would be lost.
    """
    if not hasattr(os, "register_at_fork"):
        return
    blocked = threading.local()

    def before() -> None:
        blocked.before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])

    def in_parent() -> None:
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked.before)

    def in_child() -> None:
        _Termination._waiting.clear()
        if signal.getsignal(signal.SIGTERM) is _on_termination:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked.before)

    os.register_at_fork(before=before, after_in_parent=in_parent, after_in_child=in_child)
