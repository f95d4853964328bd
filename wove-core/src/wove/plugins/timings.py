"""The built-in plugin that fills ``result.timings``."""

from collections.abc import Iterable, Mapping
from typing import Self

from wove.plugins.hookspecs import hookimpl
from wove.plugins.types import FinishedResult, FinishedRun

NAME = "timings"


class TaskTiming(float):
    """The seconds that a task took: a float.

    Attributes:
        items: for a mapped task, the seconds of each item in order, 0.0 for one that never ran to an end; else empty.
    """

    __slots__ = ("items",)

    items: tuple[float, ...]

    def __new__(cls, seconds: float, items: Iterable[float] = ()) -> Self:
        timing = super().__new__(cls, seconds)
        timing.items = tuple(items)
        return timing


# First, so that the result which other plugins see is complete.
@hookimpl(tryfirst=True)
def wove_weave_finished(result: FinishedResult, runs: Mapping[str, FinishedRun]) -> None:
    """Note how long each task took that has started and ended."""
    timings = {}
    for name, run in runs.items():
        if run.started is not None and run.finished is not None:
            timings[name] = TaskTiming(run.finished - run.started, map(_seconds, run.items or ()))
    result.timings.update(timings)


def _seconds(times: tuple[float | None, float | None] | None) -> float:
    if times is None:
        return 0.0
    started, finished = times
    return 0.0 if started is None or finished is None else finished - started
