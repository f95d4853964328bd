"""How long tasks took, as the timings plugin notes it."""

import pickle
from collections.abc import Iterable
from dataclasses import dataclass, field

import pytest

from tests.unit.plugins.conftest import Registering
from wove.plugins import active_hooks, hookimpl
from wove.plugins.timings import TaskTiming
from wove.plugins.types import FinishedResult


@dataclass
class Run:
    started: float | None = None
    finished: float | None = None
    items: Iterable[tuple[float | None, float | None] | None] | None = None


@dataclass
class Result:
    timings: dict[str, TaskTiming] = field(default_factory=dict)
    cancelled: set[str] = field(default_factory=set)
    exception: BaseException | None = None


def _finish(**runs: Run) -> dict[str, TaskTiming]:
    finished = active_hooks().wove_weave_finished
    assert finished is not None
    result = Result()
    finished(weave="w1", result=result, runs=runs)
    return result.timings


@pytest.mark.usefixtures("site")
def test_a_task_that_ran_has_its_seconds() -> None:
    assert _finish(report=Run(10.0, 12.5)) == {"report": 2.5}


@pytest.mark.usefixtures("site")
@pytest.mark.parametrize("run", [Run(), Run(started=1.0)], ids=["never started", "never ended"])
def test_a_task_that_did_not_run_to_an_end_has_no_timing(run: Run) -> None:
    assert _finish(report=run) == {}


@pytest.mark.usefixtures("site")
def test_a_mapped_task_has_the_seconds_of_each_item_in_order() -> None:
    timing = _finish(squares=Run(10.0, 14.0, [(10.0, 11.0), None, (11.0, 14.0), (12.0, None)]))["squares"]
    assert isinstance(timing, TaskTiming)
    assert timing == 4.0
    assert timing.items == (1.0, 0.0, 3.0, 0.0)


def test_another_plugin_finds_the_timings_filled_in(take: Registering) -> None:
    seen = []

    class Reader:
        @hookimpl(tryfirst=False)
        def wove_weave_finished(self, result: FinishedResult) -> None:
            seen.append(dict(result.timings))

    take(Reader())
    _finish(report=Run(1.0, 3.0))
    assert seen == [{"report": 2.0}]


def test_a_timing_is_a_float_that_survives_pickling_with_its_items() -> None:
    timing = pickle.loads(pickle.dumps(TaskTiming(2.0, [0.5, 1.5])))
    assert isinstance(timing, TaskTiming)
    assert (timing, timing.items, f"{timing:.1f}") == (2.0, (0.5, 1.5), "2.0")
    assert TaskTiming(1.0).items == ()
