"""The ways into a weave from code that is not asynchronous: here, in a helper thread where a loop already runs, or on
Wove's background loop.
"""

import asyncio
import threading
from collections.abc import Callable, Coroutine
from contextvars import Context
from typing import TYPE_CHECKING, Any, Literal

from wove.backend import idle_loops
from wove.backend.background_run import BackgroundRun
from wove.errors import TaskStopped
from wove.flow.current import current_engine
from wove.flow.termination import Termination

if TYPE_CHECKING:
    from wove.flow.engine import Engine

_GLANCE_SECONDS = 0.1

Main = Callable[[], Coroutine[Any, Any, None]]

LoopKind = Literal["new", "any", "background"]
"""The event loop of a weave: one made for it; one that may have served other weaves, and may serve more; or Wove's
background loop itself.
"""


def run_blocking(main: Main, context: Context, *, loop: LoopKind) -> None:
    """Run a coroutine function to its end, whether or not a loop runs in this thread, and wait for it.

    Args:
        main: what runs.
        context: what it runs in.
        loop: as for `Cancellable`.

    Raises:
        KeyboardInterrupt, SystemExit: SIGINT or SIGTERM came; the coroutine has been cancelled and has ended.
        TaskStopped: the weave of the task that runs in this thread was stopped, and the coroutine with it.
        BaseException: what the coroutine raised.
    """
    outer = current_engine.get(None)
    work = Cancellable(main, loop=loop)
    if _loop_is_running():
        # In a notebook, or below a coroutine that calls synchronous code, the loop of this thread is blocked meanwhile.
        _run_elsewhere(work, context)
    elif outer is not None:
        _run_inside(outer, work, context)
    else:
        run_to_end(work, context)


def run_to_end(work: "Cancellable", context: Context) -> None:
    """Run something to its end, in a thread where no loop runs. Raises what it raises."""
    if work.loop == "background":
        _run_elsewhere(work, context)
        return
    with Termination(work) as termination:
        try:
            _run_on_loop(work, termination.watch(), context)
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
        if work.loop == "background":
            _run_elsewhere(work, context)
        else:
            _run_on_loop(work, work.run(), context)
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


def _run_on_loop(work: "Cancellable", coroutine: Coroutine[Any, Any, None], context: Context) -> None:
    runner = idle_loops.new_runner() if work.loop == "new" else idle_loops.take()
    is_kept = False
    try:
        runner.run(coroutine, context=context)
        is_kept = work.loop != "new" and idle_loops.give(runner)
    finally:
        if not is_kept:
            runner.close()


def _run_elsewhere(work: "Cancellable", context: Context) -> None:
    helper: BackgroundRun | _Helper
    with Termination(work) as termination:
        if work.loop == "background":
            from wove.backend.loop import io_loop

            helper = BackgroundRun(work.run, context)
            io_loop().begin(helper)
        else:
            helper = _Helper(work, context)
            helper.start()
        try:
            _wait_for(helper, termination)
        except BaseException:  # Ctrl-C reaches only the waiting main thread.
            work.cancel()
            helper.wait()
            raise
        if isinstance(helper.failure, asyncio.CancelledError):
            termination.leave()
        if helper.failure is not None:
            raise helper.failure


def _wait_for(helper: "BackgroundRun | _Helper", termination: Termination) -> None:
    if threading.current_thread() is not threading.main_thread():
        helper.wait()
        return
    blocks_loop = _loop_is_running()
    before = _cancellations() if blocks_loop else 0
    if helper.wait(termination.MOMENT_SECONDS):
        return
    termination.install()
    if not blocks_loop:
        helper.wait()
        return
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
        loop: where it runs.
    """

    def __init__(self, main: Main, *, loop: LoopKind = "new") -> None:
        self.cancelled = False
        self.loop = loop
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
            _run_on_loop(self.work, self.work.run(), self._context)
        except BaseException as error:
            self.failure = error
