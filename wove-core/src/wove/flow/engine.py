"""What runs the calls of one weave: its event loop, its threads and its remote environments."""

import asyncio
import concurrent.futures
from collections.abc import Callable, Coroutine, Mapping
from contextvars import Context
from functools import partial
from threading import get_ident
from typing import TYPE_CHECKING, Any, TypeVar

from wove.errors import TaskCancelledError, TaskStopped
from wove.flow.runs import Outcome, TaskRun, all_ended
from wove.flow.thread_calls import ThreadCall
from wove.flow.threads import ThreadPool

if TYPE_CHECKING:
    from wove.environment.routing import ExecutorRuntime
    from wove.flow.planning import Defaults
    from wove.plugins.hooks import ActiveHooks

T = TypeVar("T")


class Engine:
    """Runs calls for the tasks, items and merges of one weave, where their environments say.

    Lives as long as the weave runs, on the event loop that `open` is called on. Threads come and go through `threads`
    and `call_soon`; a task that blocks in `merge` enters through `wait_for`.

    Attributes:
        weave: the id that the weave's hooks share.
        hooks: the plugins that listen.
        defaults: the options that every task starts from.
        failures: every exception of a task or item, in the order in which they happened.
        environments: the definitions of the remote environments by name; a merge may add one.
        max_workers: the most threads.
        max_pending: the most items of a map, or None.
        threads: the threads of synchronous calls.
        stopping: nothing new is to be started, neither tasks nor attempts.
    """

    # Threads cannot be stopped: once the weave has failed, what they are doing gets this many seconds to end, so that a
    # failure that happens at the same time is not lost.
    SETTLE_SECONDS = 0.1

    def __init__(
        self,
        weave: str,
        *,
        hooks: "ActiveHooks",
        defaults: "Defaults",
        environments: dict[str, Mapping[str, Any]],
        max_workers: int,
        max_pending: int | None,
        run_config: Mapping[str, Any],
    ) -> None:
        self.weave = weave
        self.hooks = hooks
        self.defaults = defaults
        self.environments = environments
        self.max_workers = max_workers
        self.max_pending = max_pending
        self.failures: list[BaseException] = []
        # Whether nobody listens to single attempts, so that a call without options needs no more than the call.
        self.unobserved = hooks.wove_task_started is None and hooks.wove_around_task is None
        self.threads = ThreadPool(max_workers)
        self.stopping = False
        self._run_config = run_config
        self._runtime: ExecutorRuntime | None = None
        self._starting: asyncio.Task[ExecutorRuntime] | None = None
        self._merges: set[asyncio.Task[Outcome]] = set()
        self._inner: set[Callable[[], object]] = set()
        # How many merges the loops of synchronous tasks wait for, by their threads.
        self._lending: dict[int, int] = {}
        self._ended = False

    async def open(self) -> None:
        """Bind to the running loop, and start the remote environments that are known by now.

        Raises:
            Exception: one of them cannot be started; the others have been stopped.
        """
        self.loop = asyncio.get_running_loop()
        if self.environments:
            await self._start_runtime()

    async def close(self) -> None:
        """End the merges, let the threads go, without waiting for busy ones, and stop the remote environments."""
        self._ended = True
        try:
            self.stop_merges()
            await all_ended(self._merges)
        finally:
            try:
                await self._leave_environments()
            finally:
                self.threads.close()

    def start(self, coroutine: Coroutine[Any, Any, T], context: Context | None = None) -> "asyncio.Task[T]":
        """Start a coroutine on the loop, at the earliest in its next round.

        Not by `create_task`: a loop may be told to run new tasks at once (`asyncio.eager_task_factory`), inside of
        whoever starts them, who is not prepared for what they may bring about.
        """
        return asyncio.Task(coroutine, loop=self.loop, context=context)

    # --- threads ---

    def call_soon(self, callback: Callable[[], object]) -> None:
        """Call something on the loop, from any thread. A thread that outlives the weave is not listened to any more."""
        try:
            self.loop.call_soon_threadsafe(callback)
        except RuntimeError:
            if not self.loop.is_closed():
                raise

    async def in_thread(
        self,
        context: Context,
        function: Callable[..., Any],
        arguments: dict[str, Any],
        *,
        urgent: bool = False,
        clock: "asyncio.Timeout | None" = None,
    ) -> Outcome:
        """Call a function on one of the threads. When cancelled, it is waited for no longer and its thread replaced.

        Args:
            context: what it runs in.
            function, arguments: what is called, with keywords.
            urgent: another thread waits for it.
            clock: stands while the call waits for a thread.
        """
        return await ThreadCall(self, context, function, arguments).outcome(urgent=urgent, clock=clock)

    # --- merges ---

    def wait_for(self, merged: Coroutine[Any, Any, Outcome], what: str) -> Outcome:
        """Block the calling thread until a merge has run on the loop, and return its outcome.

        Raises:
            TaskStopped: the weave stopped before it had.
            TaskCancelledError: the weave is over.
        """
        waiting = self._begin_merge(merged, what)
        # The blocked thread does nothing: another one may do what it waits for.
        self._lend(waiting)
        try:
            return waiting.result()
        finally:
            self._reclaim()

    async def wait_elsewhere(self, merged: Coroutine[Any, Any, Outcome], what: str) -> Outcome:
        """Await a merge on another loop than the weave's, such as that of ``asyncio.run`` in a synchronous task.

        Raises:
            TaskStopped, TaskCancelledError: as in `wait_for`.
        """
        waiting = self._begin_merge(merged, what)
        self._lend(waiting)
        try:
            return await asyncio.wrap_future(waiting)
        finally:
            self._reclaim()

    def adopt(self, stop: Callable[[], object]) -> None:
        """Take on a weave that runs inside of a synchronous task: `stop` is called when the task is stopped."""
        self._inner.add(stop)
        if self.stopping or self._ended:
            stop()

    def release(self, stop: Callable[[], object]) -> None:
        """Forget what was adopted."""
        self._inner.discard(stop)

    def stop_merges(self) -> None:
        """Cancel what threads wait for: merges and inner weaves."""
        for merge in self._merges:
            merge.cancel()
        for stop in list(self._inner):
            stop()

    def refuse_if_over(self, what: str) -> None:
        """Raise TaskCancelledError if the weave has ended."""
        if self._ended:
            raise TaskCancelledError(what, reason="because its weave is over")

    def _begin_merge(self, merged: Coroutine[Any, Any, Outcome], what: str) -> "concurrent.futures.Future[Outcome]":
        waiting: concurrent.futures.Future[Outcome] = concurrent.futures.Future()
        try:
            self.loop.call_soon_threadsafe(self._run_merge, merged, waiting, what)
        except RuntimeError:
            merged.close()
            raise TaskCancelledError(what, reason="because its weave is over") from None
        return waiting

    def _run_merge(
        self, merged: Coroutine[Any, Any, Outcome], waiting: "concurrent.futures.Future[Outcome]", what: str
    ) -> None:
        if self._ended:
            merged.close()
            waiting.set_exception(TaskCancelledError(what, reason="because its weave is over"))
            return
        task = self.start(merged)
        self._merges.add(task)
        task.add_done_callback(partial(self._merge_ended, waiting, what))
        # Whoever waits on another loop may lose patience.
        waiting.add_done_callback(lambda _: self.call_soon(task.cancel) if waiting.cancelled() else None)

    def _merge_ended(
        self, waiting: "concurrent.futures.Future[Outcome]", what: str, task: "asyncio.Task[Outcome]"
    ) -> None:
        self._merges.discard(task)
        if not waiting.set_running_or_notify_cancel():
            return
        if task.cancelled():
            waiting.set_exception(TaskStopped(f"{what} was stopped together with its weave."))
        elif (error := task.exception()) is not None:
            waiting.set_exception(error)
        else:
            waiting.set_result(task.result())

    def _lend(self, waiting: "concurrent.futures.Future[Outcome]") -> None:
        thread = get_ident()
        if thread not in self._lending:
            try:
                self.threads.lend()
            except RuntimeError:
                waiting.cancel()
                raise
        self._lending[thread] = self._lending.get(thread, 0) + 1

    def _reclaim(self) -> None:
        thread = get_ident()
        self._lending[thread] -= 1
        if not self._lending[thread]:
            del self._lending[thread]
            self.threads.reclaim()

    # --- remote environments ---

    async def remotely(
        self, run: TaskRun, function: Callable[..., Any], arguments: dict[str, Any], *, attempt: int, item: int | None
    ) -> Any:
        """Run one attempt in the run's environment and return its value, or raise what it raised there."""
        runtime = self._runtime or await self._runtime_of_merges()
        if not runtime.is_started(run.environment):
            await runtime.ensure_environment(run.environment, dict(self.environments[run.environment]))
        trace = self.hooks.wove_trace_context
        info = {
            **run.options,
            "environment": run.environment,
            "attempt": attempt,
            "item": item,
            "weave": self.weave,
            "trace": trace(weave=self.weave, task=run.name) if trace is not None else {},
        }
        return await runtime.run_task(task_name=run.name, task_func=function, task_args=arguments, task_info=info)

    async def _runtime_of_merges(self) -> "ExecutorRuntime":
        """Return the runtime of a weave that had no remote task when it began."""
        if self._starting is None or _has_failed(self._starting):
            self._starting = self.start(self._start_runtime())
        # Others may be waiting for it too, so giving up leaves it alone; `close` ends it in any case.
        return await asyncio.shield(self._starting)

    async def _start_runtime(self) -> "ExecutorRuntime":
        from wove.environment.routing import ExecutorRuntime

        definitions = {name: dict(definition) for name, definition in self.environments.items()}
        runtime = ExecutorRuntime(definitions, dict(self._run_config))
        await runtime.start()
        self._runtime = runtime
        return runtime

    async def _leave_environments(self) -> None:
        if self._starting is not None and self._starting.cancel():
            await all_ended([self._starting])
        if self._runtime is not None and not self._runtime.pass_on():
            await all_ended([self.start(self._runtime.stop())])


def _has_failed(task: "asyncio.Task[Any]") -> bool:
    return task.done() and (task.cancelled() or task.exception() is not None)
