"""Runs weaves for scenarios, each in a thread with a loop of its own: a test can act meanwhile, and never hangs."""

import asyncio
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Any, Self

import wove
from wove.plugins import hookimpl, register, unregister
from wove.runtime import runtime
from wove.testing.board import Board, Visit
from wove.testing.deployment import Deployment
from wove.testing.lateness import measure_lateness

ENVIRONMENT = "conformance"
LOCAL = "here"


class StillRunning(AssertionError):
    """A weave did not end in time: the failure that the whole kit is about."""


class Running:
    """A weave of one remote task that is under way.

    Attributes:
        lateness: how much too late a timer on the weave's loop fired at worst, in seconds; measured if asked for.
    """

    def __init__(
        self,
        task: Callable[..., Any],
        arguments: Mapping[str, Any],
        options: Mapping[str, Any],
        *,
        source: Sequence[Any] | None = None,
        measured: bool = False,
    ) -> None:
        self.name = task.__name__
        self.lateness = 0.0
        self._task = task
        self._arguments = arguments
        self._options = {"environment": ENVIRONMENT, **options}
        self._source = source
        self._measured = measured
        self._ended = threading.Event()
        self._value: Any = None
        self._failure: BaseException | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._weaving: asyncio.Task[None] | None = None
        self._thread = threading.Thread(target=self._run, name=f"weave of {self.name}", daemon=True)
        self._thread.start()

    @property
    def ended(self) -> bool:
        """Whether the weave has ended."""
        return self._ended.is_set()

    def wait(self, seconds: float) -> bool:
        """Wait until the weave has ended, that long at the most, and tell whether it has."""
        return self._ended.wait(seconds)

    def result(self, seconds: float) -> Any:
        """Return the task's value or raise its exception as soon as the weave has ended.

        Raises:
            StillRunning: it has not after that many seconds.
        """
        if not self._ended.wait(seconds):
            raise StillRunning(f"The weave of task {self.name!r} was still waiting after {seconds:g} s.")
        if self._failure is not None:
            raise self._failure
        return self._value

    def failure(self, seconds: float) -> BaseException:
        """Return the exception with which the task failed.

        Raises:
            StillRunning: the weave has not ended after that many seconds.
            AssertionError: the task has a value.
        """
        try:
            value = self.result(seconds)
        except StillRunning:
            raise
        except BaseException as error:
            return error
        raise AssertionError(f"Task {self.name!r} should have failed, but returned {value!r:.200}.")

    def abandon(self) -> None:
        """Cancel the weave, as its caller's cancellation does."""
        if self._loop is not None and self._weaving is not None and not self._ended.is_set():
            try:
                self._loop.call_soon_threadsafe(self._weaving.cancel)
            except RuntimeError:
                pass  # It has ended in this moment.

    def _run(self) -> None:
        try:
            asyncio.run(self._main())
        except BaseException as error:
            self._failure = error
        finally:
            self._ended.set()

    async def _main(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._weaving = asyncio.ensure_future(self._weave())
        measuring = asyncio.ensure_future(measure_lateness(self._note)) if self._measured else None
        try:
            await self._weaving
        finally:
            if measuring is not None:
                measuring.cancel()

    async def _weave(self) -> None:
        async with wove.weave(**self._arguments) as w:
            declare = w.do(**self._options) if self._source is None else w.do(self._source, **self._options)
            declare(self._task)
        self._value = w.result[self.name]

    def _note(self, seconds: float) -> None:
        self.lateness = max(self.lateness, seconds)


class Journal:
    """A plugin that notes which runs were submitted and which events came back."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._started: list[str] = []
        self._submitted: list[tuple[str, str]] = []
        self._events: list[tuple[str, str]] = []

    @hookimpl
    def wove_task_started(self, task: str) -> None:
        """Note that an attempt begins."""
        with self._changed:
            self._started.append(task)
            self._changed.notify_all()

    @hookimpl
    def wove_task_submitted(self, task: str, run_id: str) -> None:
        """Note a submission."""
        with self._changed:
            self._submitted.append((task, run_id))
            self._changed.notify_all()

    @hookimpl
    def wove_event_received(self, run_id: str, event_type: str) -> None:
        """Note an event."""
        with self._changed:
            self._events.append((run_id, event_type))
            self._changed.notify_all()

    def run_ids(self, task: str) -> list[str]:
        """Return the ids of the submitted runs of a task, in order."""
        with self._changed:
            return [run_id for name, run_id in self._submitted if name == task]

    def wait_for_start(self, task: str, *, count: int = 1, seconds: float) -> None:
        """Return as soon as that many attempts at a task have begun, wherever it runs."""
        with self._changed:
            if not self._changed.wait_for(lambda: self._started.count(task) >= count, seconds):
                raise TimeoutError(f"Task {task!r} did not start within {seconds:g} s.")

    def wait_for_submission(self, task: str, *, count: int = 1, seconds: float) -> str:
        """Return the id of the latest run of a task as soon as `count` have been submitted."""
        with self._changed:
            if not self._changed.wait_for(lambda: len(self.run_ids(task)) >= count, seconds):
                raise TimeoutError(f"Task {task!r} was not submitted within {seconds:g} s.")
            return self.run_ids(task)[-1]

    def wait_for_event(self, run_id: str, event_type: str, *, count: int = 1, seconds: float) -> None:
        """Return as soon as that many events of a type have arrived for a run."""
        with self._changed:
            if not self._changed.wait_for(lambda: self.events(run_id).count(event_type) >= count, seconds):
                raise TimeoutError(f"Run {run_id!r} had {self.events(run_id)} after {seconds:g} s.")

    def events(self, run_id: str) -> list[str]:
        """Return the types of the events of a run so far."""
        with self._changed:
            return [kind for name, kind in self._events if name == run_id]


class Stage:
    """Configures Wove for one scenario and runs its weaves; leaves everything as it was.

    Attributes:
        board: where tasks report in.
        journal: what was submitted, and what came back.

    Args:
        deployment: the backend under test.
        seconds: how long any one step may take before it counts as hanging.
    """

    def __init__(self, deployment: Deployment, *, seconds: float) -> None:
        self.board = Board(deployment.host)
        self.journal = Journal()
        self._deployment = deployment
        self._seconds = seconds
        self._running: list[Running] = []
        self._before = runtime.snapshot()

    def __enter__(self) -> Self:
        register(self.journal)
        self.configure()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for running in self._running:
            running.abandon()
        self.board.close()
        for running in self._running:
            running.wait(self._seconds)
        wove.shutdown()
        runtime.restore(self._before)
        unregister(self.journal)

    def configure(self, executor: Any = None, /, **executor_config: Any) -> None:
        """Define the environment of the next weaves.

        Args:
            executor: takes the place of the deployment's executor.
            executor_config: takes precedence over the deployment's.
        """
        definition = self._deployment.environment()
        definition["executor_config"] = {**definition.get("executor_config", {}), **executor_config}
        if executor is not None:
            definition["executor"] = executor
        wove.config(default_environment=LOCAL, environments={LOCAL: {"executor": "local"}, ENVIRONMENT: definition})

    def begin(self, task: Callable[..., Any], options: Mapping[str, Any] | None = None, /, **arguments: Any) -> Running:
        """Start a weave with one remote task and return at once.

        Args:
            task: the task.
            options: its options.
            arguments: its arguments, as initial values of the weave.
        """
        return self._begun(Running(task, arguments, options or {}))

    def begin_measured(self, task: Callable[..., Any], /, **arguments: Any) -> Running:
        """Start a weave like `begin`, and measure on its loop how late timers fire."""
        return self._begun(Running(task, arguments, {}, measured=True))

    def begin_map(
        self,
        task: Callable[..., Any],
        items: Sequence[Any],
        options: Mapping[str, Any] | None = None,
        /,
        **arguments: Any,
    ) -> Running:
        """Start a weave that maps a task over items."""
        return self._begun(Running(task, arguments, options or {}, source=items))

    def call(self, task: Callable[..., Any], options: Mapping[str, Any] | None = None, /, **arguments: Any) -> Any:
        """Run a weave with one remote task and return the task's value."""
        return self.begin(task, options, **arguments).result(self._seconds)

    def wait_until_known(self, task: Callable[..., Any], label: str) -> Visit:
        """Return the first visit under a label, once the weave has heard that its run has started.

        A process that dies before the weave has heard of the start looks like a job that nobody has taken.
        """
        (visit, *_) = self.board.wait_for(label, seconds=self._seconds)
        run_id = self.journal.wait_for_submission(task.__name__, seconds=self._seconds)
        self.journal.wait_for_event(run_id, "task_started", seconds=self._seconds)
        return visit

    def _begun(self, running: Running) -> Running:
        self._running.append(running)
        return running


def poll_until(condition: Callable[[], bool], *, seconds: float, what: str) -> None:
    """Return as soon as a condition holds that nothing announces.

    Raises:
        AssertionError: it did not within that many seconds.
    """
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"Waited {seconds:g} s in vain until {what}.")
        time.sleep(0.02)
