"""What runs the calls of one weave: its event loop, its threads and its remote environments."""

import asyncio
import concurrent.futures
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from contextvars import Context
from typing import TYPE_CHECKING, Any

from wove.errors import TaskCancelledError
from wove.flow.mapping import pull_chunk
from wove.flow.runs import Outcome, TaskRun
from wove.flow.threads import ThreadPool

if TYPE_CHECKING:
    from wove.environment.routing import ExecutorRuntime
    from wove.flow.planning import Defaults
    from wove.plugins.hooks import ActiveHooks


class Engine:
    """Runs calls for the tasks, items and merges of one weave, where their environments say.

    Lives as long as the weave runs, on the event loop that `open` is called on. Threads come and go through `submit`
    and `call_soon`; a task that blocks in `merge` enters through `wait_for`.

    Attributes:
        weave: the id that the weave's hooks share.
        hooks: the plugins that listen.
        defaults: the options that every task starts from.
        failures: every exception of a task or item, in the order in which they happened.
        environments: the definitions of the remote environments by name; a merge may add one.
        max_workers: the most threads.
        max_pending: the most items of a map, or None.
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
        self._run_config = run_config
        self._pool: ThreadPool | None = None
        self._runtime: asyncio.Task[ExecutorRuntime] | None = None
        self._merges: set[concurrent.futures.Future[Any]] = set()
        self._ended = False

    async def open(self) -> None:
        """Bind to the running loop, and start the remote environments that are known by now.

        Raises:
            Exception: one of them cannot be started; the others have been stopped.
        """
        self.loop = asyncio.get_running_loop()
        if self.environments:
            await self._started_runtime()

    async def close(self) -> None:
        """Let the threads go, without waiting for busy ones, and stop the remote environments."""
        self._ended = True
        self.stop_merges()
        if self._pool is not None:
            self._pool.close()
        if self._runtime is not None:
            await asyncio.wait([self._runtime])
            if not self._runtime.cancelled() and self._runtime.exception() is None:
                await self._runtime.result().stop()

    # --- threads ---

    @property
    def threads(self) -> ThreadPool:
        if self._pool is None:
            self._pool = ThreadPool(self.max_workers)
        return self._pool

    def call_soon(self, callback: Callable[[], object]) -> None:
        """Call something on the loop, from any thread. A thread that outlives the weave is not listened to any more."""
        try:
            self.loop.call_soon_threadsafe(callback)
        except RuntimeError:
            if not self.loop.is_closed():
                raise

    async def in_thread(self, context: Context, function: Callable[..., Any], arguments: dict[str, Any]) -> Outcome:
        """Call a function on one of the threads. When cancelled, it is waited for no longer and its thread replaced."""
        call = _ThreadCall(self, context, function, arguments)
        self.threads.submit(call)
        try:
            return await call.ended
        except asyncio.CancelledError:
            call.abandon()
            raise

    async def pull(self, source: Any, context: Context) -> AsyncIterator[Any]:
        """Iterate over a source whose iteration may block, only as far as items are asked for."""
        if hasattr(type(source), "__aiter__"):
            async for item in source:
                yield item
            return
        iterator, failure = await self.in_thread(context.copy(), lambda: iter(source), {})
        while failure is None:
            chunk, failure = await self.in_thread(context.copy(), pull_chunk, {"iterator": iterator})
            if failure is None and not chunk:
                return
            for item in chunk or ():
                yield item
        raise failure

    # --- merges ---

    def wait_for(self, coroutine: Coroutine[Any, Any, Any], what: str) -> Any:
        """Block the calling thread until a coroutine has run on the loop, and return its value.

        Raises:
            TaskCancelledError: the weave stopped before it had.
        """
        if self._ended:
            coroutine.close()
            raise TaskCancelledError(what, reason="because its weave is over")
        waiting = asyncio.run_coroutine_threadsafe(coroutine, self.loop)
        self._merges.add(waiting)
        # The blocked thread does nothing: another one may do what it waits for.
        self.threads.lend()
        try:
            return waiting.result()
        except concurrent.futures.CancelledError:
            raise TaskCancelledError(what, reason="because its weave stopped") from None
        finally:
            self._merges.discard(waiting)
            self.threads.reclaim()

    def stop_merges(self) -> None:
        """Cancel what blocked threads wait for."""
        for waiting in list(self._merges):
            waiting.cancel()

    # --- remote environments ---

    async def remotely(
        self, run: TaskRun, function: Callable[..., Any], arguments: dict[str, Any], *, attempt: int, item: int | None
    ) -> Any:
        """Run one attempt in the run's environment and return its value, or raise what it raised there."""
        runtime = await self._started_runtime()
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

    async def _started_runtime(self) -> "ExecutorRuntime":
        if self._runtime is None:
            self._runtime = self.loop.create_task(self._start_runtime())
        try:
            return await asyncio.shield(self._runtime)
        except asyncio.CancelledError:
            if self._runtime.cancelled():
                raise
            self._runtime.cancel()
            raise

    async def _start_runtime(self) -> "ExecutorRuntime":
        from wove.environment.routing import ExecutorRuntime

        definitions = {name: dict(definition) for name, definition in self.environments.items()}
        runtime = ExecutorRuntime(definitions, dict(self._run_config))
        await runtime.start()
        return runtime


class _ThreadCall:
    """One call on a thread, and the future on the loop that waits for its outcome."""

    __slots__ = ("_abandoned", "_arguments", "_context", "_engine", "_function", "_running", "ended")

    def __init__(
        self, engine: Engine, context: Context, function: Callable[..., Any], arguments: dict[str, Any]
    ) -> None:
        self.ended: asyncio.Future[Outcome] = engine.loop.create_future()
        self._engine = engine
        self._context = context
        self._function = function
        self._arguments = arguments
        self._running = False
        self._abandoned = False

    def __call__(self) -> None:
        if self._abandoned:
            return
        self._running = True
        try:
            outcome: Outcome = self._context.run(self._function, **self._arguments), None
        except BaseException as error:
            outcome = None, error
        self._engine.call_soon(lambda: self._report(outcome))

    def abandon(self) -> None:
        self._abandoned = True
        if self._running:
            self._engine.threads.lend()

    def _report(self, outcome: Outcome) -> None:
        if self._abandoned:
            self._engine.threads.reclaim()
        elif not self.ended.done():
            self.ended.set_result(outcome)
