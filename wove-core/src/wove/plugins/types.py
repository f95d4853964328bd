"""What hooks are given: the plan of a weave, and the records of a finished one."""

from collections.abc import Iterable, Mapping, MutableMapping, Sequence
from typing import TYPE_CHECKING, Protocol, TypedDict

from wove.options import TaskOptions

if TYPE_CHECKING:
    from wove.plugins.timings import TaskTiming


class PlannedTask(TypedDict):
    """One task of a plan.

    Keys:
        sync: whether it is a synchronous callable, for a thread.
        mapped: whether it runs once per item.
        size: how many items, or None where that is known only when the task before has run, or for an unmapped task.
        environment: the name of the environment that runs it.
        options: its effective options, complete and read-only.
    """

    sync: bool
    mapped: bool
    size: int | None
    environment: str
    options: TaskOptions


class ExecutionPlan(TypedDict):
    """The graph of a weave before it runs.

    Keys:
        dependencies, dependents: the names that each task needs, and those that need it.
        tiers: names by distance from the start; a task does not wait for its tier, only for its dependencies.
        sorted_tasks: every name, after its dependencies.
        tasks: a `PlannedTask` for each name.
    """

    dependencies: Mapping[str, set[str]]
    dependents: Mapping[str, set[str]]
    tiers: Sequence[Sequence[str]]
    sorted_tasks: Sequence[str]
    tasks: Mapping[str, PlannedTask]


class FinishedRun(Protocol):
    """What is recorded of one task. Times are `time.perf_counter` seconds; None: it never came so far."""

    @property
    def started(self) -> float | None: ...

    @property
    def finished(self) -> float | None: ...

    @property
    def items(self) -> Iterable[tuple[float | None, float | None] | None] | None:
        """For a mapped task, the two times of each item in order; None for an unmapped one."""


class FinishedResult(Protocol):
    """The part of a `WoveResult` that plugins read, or fill in."""

    @property
    def timings(self) -> "MutableMapping[str, TaskTiming]": ...

    @property
    def cancelled(self) -> set[str]: ...

    @property
    def exception(self) -> BaseException | None: ...
