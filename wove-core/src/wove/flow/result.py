"""What a weave leaves behind: the values of its tasks, and what went wrong."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from wove.errors import TaskCancelledError, did_you_mean
from wove.flow.runs import TaskRun
from wove.flow.schedule import CANCELLED, DONE, FAILED, RUNNING, WAITING
from wove.options import WEAVE_OPTIONS, ErrorMode, check_options

if TYPE_CHECKING:
    from wove.plugins.timings import TaskTiming

logger = logging.getLogger("wove")


class WoveResult:
    """The results of one weave, by attribute, by key, or in the order of definition.

    ``result.report``, ``result["report"]``, ``first, second = result``. Reading a task that failed raises the task's
    own exception; with ``error_mode="return"`` it returns the exception. Reading a task that was cancelled because
    another one failed raises a `TaskCancelledError` that names the failed task and has its exception as the cause; a
    task that needed the failed one reports the same exception as that.

    A failure that nobody has read is logged by the logger ``wove`` when the result is collected.

    Attributes:
        timings: seconds by task name, as floats; those of a mapped task have ``items``, the seconds of each item.

    Args:
        error_mode: ``"raise"``, ``"return"`` or ``"exit"``; reading raises in the first and the last.

    Raises:
        OptionError: the error mode is none of these.
    """

    def __init__(self, error_mode: ErrorMode = "raise") -> None:
        check_options({"error_mode": error_mode}, where="WoveResult()", known=WEAVE_OPTIONS)
        self.timings: dict[str, TaskTiming] = {}
        self._error_mode = error_mode
        self._runs: Mapping[str, TaskRun] = {}
        self._failures: Sequence[BaseException] = ()
        self._first: BaseException | None = None
        self._unread = False

    def _fill(
        self,
        runs: Mapping[str, TaskRun],
        failures: Sequence[BaseException] = (),
        first: BaseException | None = None,
        *,
        unread: bool = True,
    ) -> None:
        """Take over what a weave has recorded; called by the weave itself.

        Args:
            runs: the tasks by name.
            failures: see `failures`.
            first: the failure of the task that failed first.
            unread: nobody has been told of it yet.
        """
        self._runs = runs
        self._failures = failures
        self._first = first
        self._unread = unread and first is not None

    @property
    def exception(self) -> BaseException | None:
        """The exception of the task that failed first, or None."""
        self._unread = False
        return self._first

    @property
    def failures(self) -> tuple[BaseException, ...]:
        """Every exception of every task and item, in the order in which they happened; their notes say where."""
        self._unread = False
        return tuple(self._failures)

    @property
    def cancelled(self) -> set[str]:
        """The names of the tasks that have no result because they were stopped, or never started."""
        return {name for name, run in self._runs.items() if run.state is CANCELLED}

    @property
    def final(self) -> Any:
        """The result of the task that was defined last, or None if there are no tasks."""
        names = list(self._runs)
        return self[names[-1]] if names else None

    def __getitem__(self, name: str) -> Any:
        run = self._runs.get(name)
        if run is None:
            raise KeyError(_unknown(str(name), self._runs))
        if run.state is DONE:
            return run.value
        if run.state in (WAITING, RUNNING):
            # Raised in every error mode: it says something of the reader, not of the task.
            raise RuntimeError(f"Task {name!r} has no result yet: its weave has not ended.")
        self._unread = False
        failure = _failure_of(run)
        if self._error_mode == "return":
            return failure
        raise failure

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        if name not in self.__dict__.get("_runs", {}):
            raise AttributeError(_unknown(name, self.__dict__.get("_runs", {})))
        return self[name]

    def __iter__(self) -> Iterator[Any]:
        return (self[name] for name in list(self._runs))

    def __len__(self) -> int:
        return len(self._runs)

    def __contains__(self, name: object) -> bool:
        return name in self._runs

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *self._runs})

    def __repr__(self) -> str:
        return f"<WoveResult {', '.join(map(_shown, self._runs.values())) or 'of no tasks'}>"

    def __del__(self) -> None:
        # A result of which __init__ failed, or that dies with the interpreter, has nothing to say.
        if self.__dict__.get("_unread") and logger is not None:
            logger.error("A weave failed and nobody has read its result: %r", self, exc_info=self._first)


# Names that can be no task's, because they mean something else on a result.
RESERVED = frozenset(dir(WoveResult())) | {"data"}


def _unknown(name: str, runs: Mapping[str, TaskRun]) -> str:
    if runs:
        return f"No task named {name!r}.{did_you_mean(name, runs)}"
    return (
        f"No task named {name!r} has run here. Tasks run when the block of their weave ends, and those of fork=True in "
        "another process, where on_done gets their results."
    )


def _failure_of(run: TaskRun) -> BaseException:
    if run.exception is not None:
        return run.exception
    if run.blamed is None:
        return TaskCancelledError(run.name)
    cancelled = TaskCancelledError(run.name, failed_task=run.blamed.name)
    cancelled.__cause__ = run.blamed.exception
    return cancelled


def _shown(run: TaskRun) -> str:
    state = run.state.name.lower()
    if run.state is FAILED:
        return f"{run.name}: {state} ({type(run.exception).__name__})"
    if run.state is CANCELLED and run.blamed is not None:
        return f"{run.name}: {state} (because of {run.blamed.name})"
    return f"{run.name}: {state}"
