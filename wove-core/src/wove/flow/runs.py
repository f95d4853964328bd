"""What is known about each task of a weave while it runs and afterwards."""

import asyncio
from collections.abc import Iterable, Mapping
from contextvars import Context
from types import CoroutineType
from typing import Any

from wove.errors import TaskCancelledError
from wove.flow.graph import Node
from wove.flow.schedule import WAITING, TaskState
from wove.options import TaskOptions

Outcome = tuple[Any, BaseException | None]
"""A value, or the exception that took its place.

Returned instead of raised, because a coroutine cannot raise StopIteration.
"""


class TaskRun:
    """One task in one weave.

    Attributes:
        context: the contextvars of whoever asked for the task; it runs in a copy.
        options: the effective options, complete.
        plain: whether one call in this process is all that the options ask for.
        environment: the name of the environment that runs it.
        is_local: whether that environment is this process.
        started, finished: `time.perf_counter` seconds, or None.
        items: for a mapped task, the same pair for each item.
        blamed: the failed run because of which this one has no result.
    """

    __slots__ = (
        "blamed",
        "context",
        "environment",
        "exception",
        "finished",
        "index",
        "is_local",
        "items",
        "name",
        "node",
        "options",
        "plain",
        "started",
        "state",
        "value",
    )

    def __init__(self, node: Node, options: TaskOptions, *, environment: str, is_local: bool, context: Context) -> None:
        self.node = node
        self.context = context
        self.index = node.index
        self.name = node.spec.name
        self.options = options
        self.environment = environment
        self.is_local = is_local
        self.plain = is_local and not options["retries"] and options["timeout"] is None
        self.state: TaskState = WAITING
        self.value: Any = None
        self.exception: BaseException | None = None
        self.blamed: TaskRun | None = None
        self.started: float | None = None
        self.finished: float | None = None
        self.items: list[tuple[float, float] | None] | None = None

    @property
    def is_merge(self) -> bool:
        """Whether it is no task of the graph: somebody waits for it in the middle of another call."""
        return self.index < 0

    @property
    def on_threads(self) -> bool:
        """Whether its callable runs on threads of this process."""
        return self.is_local and not self.node.spec.is_async

    def arguments(self, runs: "list[TaskRun]", values: Mapping[str, Any]) -> dict[str, Any]:
        """Return the keyword arguments that the finished dependencies and the initial values provide."""
        node = self.node
        arguments = {name: runs[index].value for name, index in node.task_arguments}
        for name in node.value_arguments:
            arguments[name] = values[name]
        if node.wants_data:
            arguments["data"] = dict(values)
        return arguments

    def source(self, runs: "list[TaskRun]", values: Mapping[str, Any]) -> Any:
        """Return what a mapped task is mapped over."""
        node = self.node
        if node.source_task is not None:
            return runs[node.source_task].value
        if node.spec.source_name is not None:
            return dict(values) if node.spec.source_name not in values else values[node.spec.source_name]
        return node.spec.source


def note_where(exception: BaseException, *, task: str, environment: str, item: int | None = None) -> None:
    """Add a note that says which task, item and environment an exception comes from; the first, most exact one
    stays.
    """
    start = f"Raised in task {task!r}"
    place = "" if item is None else f", item {item}"
    try:
        if not any(note.startswith(start) for note in getattr(exception, "__notes__", ())):
            exception.add_note(f"{start}{place}, environment {environment!r}.")
    except Exception:  # An exception class may refuse attributes, as a frozen dataclass does: it goes without.
        pass


def own_failure(error: BaseException, task: str) -> BaseException:
    """Return the exception that a task failed with; raise it if it is a cancellation of the current asyncio task."""
    if isinstance(error, asyncio.CancelledError):
        current = asyncio.current_task()
        if current is not None and current.cancelling():
            raise error
        return cancelled_inside(error, task)
    return error


def cancelled_inside(error: asyncio.CancelledError, task: str) -> BaseException:
    """Return the failure of a task that was cancelled though nobody gave it up: by itself, or by what it awaited."""
    cancelled = TaskCancelledError(task, reason="from inside: it cancelled itself or awaited something cancelled")
    cancelled.__cause__ = error
    return cancelled


def discard(value: object) -> None:
    """Close a coroutine that nobody is going to await, so that it does not complain of that."""
    if isinstance(value, CoroutineType):
        value.close()


async def all_ended(futures: Iterable["asyncio.Future[Any]"]) -> None:
    """Wait until all of some futures have ended, whatever their outcomes.

    Raises:
        asyncio.CancelledError: the caller was cancelled meanwhile; nevertheless they have all ended.
    """
    pending = {future for future in futures if not future.done()}
    cancellation: asyncio.CancelledError | None = None
    while pending:
        try:
            _, pending = await asyncio.wait(pending)
        except asyncio.CancelledError as error:
            cancellation = error
            pending = {future for future in pending if not future.done()}
    if cancellation is not None:
        raise cancellation
