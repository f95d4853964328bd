"""The ways into a weave from code that is not asynchronous: here, or in a helper thread where a loop already runs."""

import asyncio
import threading
from collections.abc import Callable, Coroutine
from contextvars import Context
from typing import TYPE_CHECKING, Any

from wove.backend import idle_loops
from wove.errors import TaskStopped
from wove.flow.current import current_engine
from wove.flow.termination import Termination

if TYPE_CHECKING:
    from wove.flow.engine import Engine

_GLANCE_SECONDS = 0.1

Main = Callable[[], Coroutine[Any, Any, None]]


def run_blocking(main: Main, context: Context, *, shares_loop: bool) -> None:
    """Run a coroutine function to its end on a loop of its own, whether or not one already runs in this thread.

    Args:
        main: what runs.
        context: what it runs in.
        shares_loop: as for `Cancellable`.

    Raises:
        KeyboardInterrupt, SystemExit: SIGINT or SIGTERM came; the coroutine has been cancelled and has ended.
        TaskStopped: the weave of the task that runs in this thread was stopped, and the coroutine with it.
        BaseException: what the coroutine raised.
    """
    outer = current_engine.get(None)
    work = Cancellable(main, shares_loop=shares_loop)
    if _loop_is_running():
        # In a notebook, or below a coroutine that calls synchronous code, the loop of this thread is blocked meanwhile.
        _run_in_thread(work, context)
    elif outer is not None:
        _run_inside(outer, work, context)
    else:
        run_to_end(work, context)


def run_to_end(work: "Cancellable", context: Context) -> None:
    """Run something on a loop of its own, in a thread where none runs. Raises what it raises."""
    with Termination(work) as termination:
        try:
            _run_on_loop(termination.watch(), context, shared=work.shares_loop)
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
    with Termination(Cancellable(main), among_others=True) as termination:
        try:
            await termination.watch()
        except asyncio.CancelledError:
            termination.leave()
            raise


def _run_inside(outer: "Engine", work: "Cancellable", context: Context) -> None:
    outer.adopt(work.cancel)
    try:
        _run_on_loop(work.run(), context, shared=work.shares_loop)
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


def _run_on_loop(coroutine: Coroutine[Any, Any, None], context: Context, *, shared: bool) -> None:
    runner = idle_loops.take() if shared else idle_loops.new_runner()
    is_kept = False
    try:
        runner.run(coroutine, context=context)
        is_kept = shared and idle_loops.give(runner)
    finally:
        if not is_kept:
            runner.close()


def _run_in_thread(work: "Cancellable", context: Context) -> None:
    helper = _Helper(work, context)
    with Termination(helper.work) as termination:
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


def _wait_for(helper: "_Helper", termination: "Termination") -> None:
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
    """Runs one coroutine function, which can be cancelled from other threads and from signal handlers.

    Args:
        main: the function.
        shares_loop: it has only Wove's own code run on its event loop, and leaves nothing there, so that the loop may
            serve others before and afterwards.
    """

    def __init__(self, main: Main, *, shares_loop: bool = False) -> None:
        self.cancelled = False
        self.shares_loop = shares_loop
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

    def __init__(self, work: Cancellable, context: Context) -> None:
        super().__init__(self._run, work, name="wove-helper", daemon=True)
        self.failure: BaseException | None = None
        self._context = context

    def _run(self) -> None:
        try:
            _run_on_loop(self.work.run(), self._context, shared=self.work.shares_loop)
        except BaseException as error:
            self.failure = error
