"""Which task may start and what ends because of what, with neither clock nor executor."""

import heapq
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wove.flow.schedule import Schedule, TaskState

Dependencies = list[list[int]]

FINAL = {TaskState.DONE, TaskState.FAILED, TaskState.CANCELLED}


def dependents_of(dependencies: Dependencies) -> Dependencies:
    dependents: Dependencies = [[] for _ in dependencies]
    for task, needed in enumerate(dependencies):
        for each in needed:
            dependents[each].append(task)
    return dependents


def schedule_of(*dependencies: Sequence[int]) -> Schedule:
    needed = [list(each) for each in dependencies]
    return Schedule(needed, dependents_of(needed))


# --- one step at a time ---


def test_tasks_without_dependencies_start_first() -> None:
    assert schedule_of([], [0], []).begin() == [0, 2]


def test_a_task_starts_with_the_end_of_its_last_dependency() -> None:
    schedule = schedule_of([], [], [0, 1])
    schedule.begin()
    assert schedule.finish(1) == []
    assert schedule.finish(0) == [2]


def test_a_dependent_starts_while_an_unrelated_task_still_runs() -> None:
    schedule = schedule_of([], [], [0])
    schedule.begin()
    assert schedule.finish(0) == [2]
    assert schedule.states[1] is TaskState.RUNNING


def test_one_end_may_start_several_tasks_in_their_order() -> None:
    schedule = schedule_of([], [0], [0], [0])
    schedule.begin()
    assert schedule.finish(0) == [1, 2, 3]


def test_it_is_over_when_nothing_runs_and_nothing_will() -> None:
    schedule = schedule_of([], [0])
    schedule.begin()
    assert not schedule.over
    schedule.finish(0)
    assert not schedule.over
    schedule.finish(1)
    assert schedule.over


def test_no_tasks_are_over_at_once() -> None:
    schedule = schedule_of()
    assert schedule.begin() == []
    assert schedule.over


def test_a_failure_stops_what_runs_and_what_waits() -> None:
    schedule = schedule_of([], [], [0], [1])
    schedule.begin()
    assert schedule.fail(0) == [1]
    assert schedule.failures == [0]
    assert schedule.states[2] is TaskState.CANCELLED
    assert schedule.states[3] is TaskState.CANCELLED
    assert schedule.states[1] is TaskState.RUNNING
    assert not schedule.over


def test_what_is_stopped_may_still_finish_but_starts_nothing() -> None:
    schedule = schedule_of([], [], [1])
    schedule.begin()
    schedule.fail(0)
    assert schedule.finish(1) == []
    assert schedule.states == [TaskState.FAILED, TaskState.DONE, TaskState.CANCELLED]
    assert schedule.over


def test_a_second_failure_is_kept_and_stops_nothing_twice() -> None:
    schedule = schedule_of([], [], [])
    schedule.begin()
    assert schedule.fail(1) == [0, 2]
    assert schedule.fail(2) == []
    assert schedule.cancelled(0) == []
    assert schedule.failures == [1, 2]
    assert schedule.over


def test_a_task_that_is_cancelled_by_itself_stops_the_others() -> None:
    schedule = schedule_of([], [], [0])
    schedule.begin()
    assert schedule.cancelled(0) == [1]
    assert schedule.states[2] is TaskState.CANCELLED


def test_stopping_before_the_beginning_leaves_nothing_to_run() -> None:
    schedule = schedule_of([], [0])
    assert schedule.stop() == []
    assert schedule.states == [TaskState.CANCELLED, TaskState.CANCELLED]
    assert schedule.over


@pytest.mark.parametrize("end", ["finish", "fail", "cancelled"])
def test_a_task_ends_only_once_and_only_if_it_runs(end: str) -> None:
    schedule = schedule_of([], [0])
    schedule.begin()
    with pytest.raises(ValueError, match="Task 1 is WAITING, not running"):
        getattr(schedule, end)(1)
    schedule.finish(0)
    with pytest.raises(ValueError, match="Task 0 is DONE, not running"):
        getattr(schedule, end)(0)


# --- whole runs ---


@st.composite
def graphs(draw: st.DrawFn, *, most: int = 12) -> Dependencies:
    size = draw(st.integers(0, most))
    return [sorted(draw(st.sets(st.integers(0, task - 1), max_size=4))) if task else [] for task in range(size)]


@st.composite
def timed_graphs(draw: st.DrawFn) -> tuple[Dependencies, list[int]]:
    """A graph, and durations of which no two sums are equal: no two tasks end at the same time by accident."""
    dependencies = draw(graphs())
    size = len(dependencies)
    lengths = draw(st.lists(st.integers(0, 9), min_size=size, max_size=size))
    return dependencies, [(length << size) + (1 << task) for task, length in enumerate(lengths)]


@dataclass
class Run:
    """Drives a schedule in virtual time, with a number of places that waiting tasks take first come, first served."""

    dependencies: Dependencies
    durations: list[int]
    places: int | None = None
    failing: set[int] = field(default_factory=set)
    now: int = 0
    started: dict[int, int] = field(default_factory=dict)
    ended: dict[int, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.schedule = Schedule(self.dependencies, dependents_of(self.dependencies))
        self._queue: deque[int] = deque()
        self._running: list[tuple[int, int]] = []

    def to_the_end(self) -> "Run":
        self._take_in(self.schedule.begin())
        while self._running:
            self.now, task = heapq.heappop(self._running)
            self._end(task)
        return self

    def _take_in(self, ready: list[int]) -> None:
        self._queue.extend(ready)
        while self._queue and (self.places is None or len(self._running) < self.places):
            task = self._queue.popleft()
            self.started[task] = self.now
            heapq.heappush(self._running, (self.now + self.durations[task], task))

    def _end(self, task: int) -> None:
        self.ended[task] = self.now
        if task in self.failing:
            self._stop(self.schedule.fail(task))
        else:
            self._take_in(self.schedule.finish(task))

    def _stop(self, stopped: list[int]) -> None:
        for task in stopped:
            self.ended[task] = self.now
            assert self.schedule.cancelled(task) == []
        self._queue.clear()
        self._running.clear()


def critical_path(dependencies: Dependencies, durations: list[int]) -> int:
    ends: list[int] = []
    for task, needed in enumerate(dependencies):
        ends.append(max((ends[each] for each in needed), default=0) + durations[task])
    return max(ends, default=0)


def list_scheduling(dependencies: Dependencies, durations: list[int], places: int) -> int:
    """The textbook's greedy schedule: whenever a place is free, the task that became ready first takes it."""
    ends: dict[int, int] = {}
    now = 0
    while len(ends) < len(dependencies) or any(end > now for end in ends.values()):
        free = places - sum(end > now for end in ends.values())
        ready = sorted(
            (max((ends[each] for each in needed), default=0), task)
            for task, needed in enumerate(dependencies)
            if task not in ends and all(ends.get(each, now + 1) <= now for each in needed)
        )
        for _, task in ready[:free]:
            ends[task] = now + durations[task]
        now = min((end for end in ends.values() if end > now), default=now)
    return now


@given(timed_graphs())
def test_the_run_time_is_the_critical_path(graph: tuple[Dependencies, list[int]]) -> None:
    dependencies, durations = graph
    assert Run(dependencies, durations).to_the_end().now == critical_path(dependencies, durations)


@given(timed_graphs(), st.integers(1, 4))
def test_with_few_places_the_run_time_is_that_of_list_scheduling(
    graph: tuple[Dependencies, list[int]], places: int
) -> None:
    dependencies, durations = graph
    run = Run(dependencies, durations, places=places).to_the_end()
    assert run.now == list_scheduling(dependencies, durations, places)


@given(timed_graphs(), st.data())
def test_nothing_starts_before_its_dependencies_have_ended(
    graph: tuple[Dependencies, list[int]], data: st.DataObject
) -> None:
    dependencies, durations = graph
    failing = data.draw(st.sets(st.integers(0, max(len(dependencies) - 1, 0))))
    run = Run(dependencies, durations, places=data.draw(st.none() | st.integers(1, 3)), failing=failing).to_the_end()
    for task, began in run.started.items():
        assert all(run.ended[needed] <= began for needed in dependencies[task])
        assert all(run.schedule.states[needed] is TaskState.DONE for needed in dependencies[task])


@given(timed_graphs(), st.data())
def test_every_task_ends_in_exactly_one_state(graph: tuple[Dependencies, list[int]], data: st.DataObject) -> None:
    dependencies, durations = graph
    failing = data.draw(st.sets(st.integers(0, max(len(dependencies) - 1, 0))))
    run = Run(dependencies, durations, failing=failing).to_the_end()
    assert run.schedule.over
    assert all(state in FINAL for state in run.schedule.states)
    done = {task for task, state in enumerate(run.schedule.states) if state is TaskState.DONE}
    assert done == set(run.started) & (set(run.ended) - {*run.schedule.failures, *stopped(run)})
    if not run.schedule.failures:
        assert done == set(range(len(dependencies)))


def stopped(run: Run) -> set[int]:
    return {task for task, state in enumerate(run.schedule.states) if state is TaskState.CANCELLED}


@given(timed_graphs(), st.data())
def test_nothing_starts_after_a_failure(graph: tuple[Dependencies, list[int]], data: st.DataObject) -> None:
    dependencies, durations = graph
    failing = data.draw(st.sets(st.integers(0, max(len(dependencies) - 1, 0)), min_size=1))
    run = Run(dependencies, durations, failing=failing).to_the_end()
    if run.schedule.failures:
        (failed,) = run.schedule.failures
        assert all(began < run.ended[failed] for began in run.started.values())
