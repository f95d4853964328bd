"""Runs a graph: starts what the schedule tells it to start, and reports to the schedule what ends."""

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextvars import copy_context
from functools import partial
from time import perf_counter
from typing import Any, cast

from wove.errors import TaskStopped
from wove.flow.attempts import Call
from wove.flow.engine import Engine
from wove.flow.graph import Graph
from wove.flow.mapping import map_over
from wove.flow.runs import Outcome, TaskRun, all_ended, cancelled_inside, discard, note_where
from wove.flow.schedule import CANCELLED, DONE, FAILED, RUNNING, Schedule, TaskState


class Runner:
    """One execution of one graph, on the loop that `run` is awaited on.

    A task without options takes the shortest way: a coroutine becomes one asyncio task, a synchronous callable one job
    of a thread. Everything else goes through `Call` or a map.

    Args:
        engine: runs the calls.
        graph: the tasks and their dependencies.
        runs: a record for each task of the graph, in its order.
        values: the initial values.
    """

    def __init__(self, engine: Engine, graph: Graph, runs: Sequence[TaskRun], values: Mapping[str, Any]) -> None:
        self._engine = engine
        self._hooks = engine.hooks
        self._graph = graph
        self._runs = list(runs)
        self._values = values
        self._schedule = Schedule([node.dependencies for node in graph.nodes], graph.dependents)
        self._handles: dict[int, asyncio.Task[None]] = {}
        # Tasks whose synchronous callable has returned an awaitable.
        self._on_loop_again: set[int] = set()
        self._ended: deque[tuple[TaskRun, Outcome]] = deque()
        self._collecting = False
        self._closed = False
        self._interrupt: KeyboardInterrupt | None = None

    async def run(self) -> None:
        """Run every task. Failures of tasks are recorded, not raised.

        Raises:
            asyncio.CancelledError: the caller was cancelled; everything has been stopped.
            KeyboardInterrupt: it hit a task; everything has been stopped.
            Exception: an environment could not be started; no task has run.
        """
        try:
            await self._engine.open()
            self._loop = self._engine.loop
            self._over: asyncio.Future[None] = self._loop.create_future()
            self._start(self._schedule.begin())
            if not self._schedule.over:
                await self._over
        except BaseException:
            await self._stop_and_settle()
            raise
        finally:
            self._blame()
            try:
                await self._engine.close()
            finally:
                self._closed = True
                self._discard_late()
        if self._interrupt is not None:
            raise self._interrupt

    @property
    def first_failure(self) -> BaseException | None:
        """The exception of the task that failed first."""
        failures = self._schedule.failures
        return self._runs[failures[0]].exception if failures else None

    # --- starting ---

    def _start(self, ready: list[int]) -> None:
        for index in ready:
            run = self._runs[index]
            self._note_start(run)
            arguments = run.arguments(self._runs, self._values)
            spec = run.node.spec
            if spec.mapped:
                self._spawn(run, self._mapped(run, arguments))
            elif not (run.plain and self._engine.unobserved):
                self._spawn(run, self._single(run, arguments))
            elif spec.is_async:
                self._spawn(run, self._called(run, spec.function, arguments))
            else:
                self._submit(run, spec.function, arguments)

    def _note_start(self, run: TaskRun) -> None:
        run.state = RUNNING
        run.started = perf_counter()
        if self._hooks.wove_task_ready is not None:
            self._hooks.wove_task_ready(weave=self._engine.weave, task=run.name)

    def _spawn(self, run: TaskRun, coroutine: Coroutine[Any, Any, None]) -> None:
        self._handles[run.index] = self._engine.start(coroutine, run.context.copy())

    def _submit(self, run: TaskRun, function: Callable[..., Any], arguments: dict[str, Any]) -> None:
        context = run.context.copy()

        def job() -> None:
            if self._engine.stopping:
                return
            run.started = perf_counter()
            try:
                outcome: Outcome = context.run(function, **arguments), None
            except BaseException as error:
                # The loop learns of it in a moment; this thread may take the next job at once.
                self._engine.stopping = True
                outcome = None, error
            self._hand_over(run, outcome)

        try:
            self._engine.threads.submit(job)
        except RuntimeError as error:
            self._hand_over(run, (None, error))

    def _hand_over(self, run: TaskRun, outcome: Outcome) -> None:
        self._ended.append((run, outcome))
        if self._closed:
            self._discard_late()
            return
        # One wake-up of the loop serves all that ends until it is awake.
        if not self._collecting:
            self._collecting = True
            self._engine.call_soon(self._collect)

    def _collect(self) -> None:
        self._collecting = False
        while self._ended:
            run, (value, failure) = self._ended.popleft()
            if run.state is not RUNNING:
                discard(value)
            elif failure is None and hasattr(type(value), "__await__"):
                self._await_value(run, value)
            else:
                self._report(run, (value, failure))

    def _discard_late(self) -> None:
        """Forget what threads hand over after the end; called from them, too."""
        while True:
            try:
                _, (value, _) = self._ended.popleft()
            except IndexError:
                return
            discard(value)

    def _await_value(self, run: TaskRun, value: Any) -> None:
        self._spawn(run, self._called(run, lambda: value, {}))
        self._on_loop_again.add(run.index)
        # It may be cancelled before it has begun to await.
        self._handles[run.index].add_done_callback(lambda _: discard(value))

    async def _called(self, run: TaskRun, function: Callable[..., Any], arguments: dict[str, Any]) -> None:
        following: TaskRun | None = run
        while following is not None:
            run = following
            try:
                value = await function(**arguments)
            except BaseException as error:
                self._failed(run, self._failure(error, run))
                return
            following = self._finished(run, value, handle=self._handles.get(run.index))
            if following is not None:
                function, arguments = following.node.spec.function, following.arguments(self._runs, self._values)

    def _goes_on_here(self, run: TaskRun, handle: "asyncio.Task[None]") -> bool:
        """Whether a ready task can run in the asyncio task of the one that it waited for, as if in one of its own.

        In a chain that saves a task and a round of the loop for each link. It must not be told apart: the context
        variables are still the weave's, and nobody has cancelled the asyncio task.
        """
        spec = run.node.spec
        return (
            spec.is_async
            and not spec.mapped
            and run.plain
            and self._engine.unobserved
            and not handle.cancelling()
            and copy_context() == run.context
        )

    async def _single(self, run: TaskRun, arguments: dict[str, Any]) -> None:
        await self._reported(run, Call(self._engine, run).outcome(arguments))

    async def _mapped(self, run: TaskRun, arguments: dict[str, Any]) -> None:
        source = run.source(self._runs, self._values)
        await self._reported(run, map_over(self._engine, run, source, arguments))

    async def _reported(self, run: TaskRun, awaited: Coroutine[Any, Any, Outcome]) -> None:
        try:
            outcome = await awaited
        except BaseException as error:
            outcome = None, self._failure(error, run)
        self._report(run, outcome)

    def _failure(self, error: BaseException, run: TaskRun) -> BaseException:
        if not isinstance(error, asyncio.CancelledError):
            return error
        if self._engine.stopping:
            raise error
        return cancelled_inside(error, run.name)

    # --- ending ---

    def _report(self, run: TaskRun, outcome: Outcome) -> None:
        value, failure = outcome
        if failure is None:
            self._finished(run, value)
        elif isinstance(failure, TaskStopped) and self._schedule.stopping:
            # It was blocked in a merge that was stopped.
            self._cancelled(run)
        else:
            self._failed(run, failure)

    def _finished(self, run: TaskRun, value: Any, *, handle: "asyncio.Task[None] | None" = None) -> TaskRun | None:
        """Note a result and start what is ready; a ready task that goes on in the given asyncio task is returned."""
        run.value = value
        self._end(run, DONE)
        if self._hooks.wove_task_finished is not None:
            seconds = cast(float, run.finished) - cast(float, run.started)
            self._hooks.wove_task_finished(weave=self._engine.weave, task=run.name, seconds=seconds)
        ready = self._schedule.finish(run.index)
        following = self._runs[ready[0]] if handle is not None and ready else None
        if following is None or handle is None or not self._goes_on_here(following, handle):
            self._start(ready)
            self._end_if_over()
            return None
        self._start(ready[1:])
        self._note_start(following)
        self._handles[following.index] = handle
        return following

    def _failed(self, run: TaskRun, failure: BaseException) -> None:
        run.exception = failure
        self._end(run, FAILED)
        if not any(known is failure for known in self._engine.failures):
            self._engine.failures.append(failure)
        if isinstance(failure, KeyboardInterrupt) and self._interrupt is None:
            self._interrupt = failure
        else:
            note_where(failure, task=run.name, environment=run.environment)
        if self._hooks.wove_task_failed is not None:
            self._hooks.wove_task_failed(weave=self._engine.weave, task=run.name, exception=failure)
        self._stop(self._schedule.fail(run.index))
        self._end_if_over()

    def _cancelled(self, run: TaskRun) -> None:
        if run.state is RUNNING:
            self._end(run, CANCELLED)
            self._stop(self._schedule.cancelled(run.index))
            self._end_if_over()

    def _end(self, run: TaskRun, state: TaskState) -> None:
        run.finished = perf_counter()
        run.state = state
        self._handles.pop(run.index, None)

    def _end_if_over(self) -> None:
        if self._schedule.over and not self._over.done():
            self._over.set_result(None)

    def _stop(self, running: list[int]) -> None:
        self._engine.stopping = True
        if not running:
            return
        self._engine.stop_merges()
        on_threads: list[TaskRun] = []
        for run in (self._runs[index] for index in running):
            handle = self._handles.get(run.index)
            if handle is not None:
                handle.add_done_callback(partial(self._handle_ended, run))
            if run.on_threads and run.index not in self._on_loop_again:
                on_threads.append(run)
            elif handle is not None:
                handle.cancel()
        if on_threads:
            self._loop.call_later(self._engine.SETTLE_SECONDS, self._abandon, on_threads)

    def _handle_ended(self, run: TaskRun, handle: "asyncio.Task[None]") -> None:
        self._cancelled(run)

    def _abandon(self, on_threads: list[TaskRun]) -> None:
        for run in on_threads:
            handle = self._handles.get(run.index)
            if handle is not None:
                handle.cancel()
            else:
                self._cancelled(run)

    async def _stop_and_settle(self) -> None:
        """Stop everything and wait until it has ended, also if the caller is cancelled once more."""
        self._stop(self._schedule.stop())
        if self._schedule.over:
            return
        self._over = self._loop.create_future()
        try:
            await all_ended([self._over])
        except asyncio.CancelledError:
            pass  # The caller raises what it was cancelled by at first.

    def _blame(self) -> None:
        """Say of each task without a result whose failure is the reason."""
        if not self._schedule.stopping:
            return
        failed = [self._runs[index] for index in self._schedule.failures]
        for run in reversed(failed):
            for index in self._graph.descendants(run.index):
                self._runs[index].blamed = run
        for run in self._runs:
            if run.state in (DONE, FAILED):
                continue
            run.state = CANCELLED
            if run.blamed is not None:
                # What needs a failed task has no other reason to be without a result.
                run.exception = run.blamed.exception
            elif failed:
                run.blamed = failed[0]
            if self._hooks.wove_task_cancelled is not None:
                self._hooks.wove_task_cancelled(weave=self._engine.weave, task=run.name)
