"""When the tasks of a graph run: each as soon as its own dependencies are done."""

import asyncio
import threading
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.tasks import sleeping, task_named
from tests.support.virtual_time import VirtualTimeLoop, in_virtual_time, now
from tests.support.waiting import SECONDS
from wove import weave

pytestmark = pytest.mark.usefixtures("nothing_is_left")


@in_virtual_time
async def test_a_dependent_starts_before_an_unrelated_slow_task_ends() -> None:
    times: dict[str, float] = {}
    async with weave() as w:

        @w.do
        async def slow() -> None:
            await asyncio.sleep(100)
            times["slow"] = now()

        @w.do
        async def quick() -> None:
            await asyncio.sleep(1)

        @w.do
        async def dependent(quick: None) -> None:
            times["dependent"] = now()

    assert times["dependent"] == pytest.approx(1)
    assert times["slow"] == pytest.approx(100)


@in_virtual_time
async def test_the_run_time_of_lanes_of_sleeps_is_the_longest_lane() -> None:
    async with weave() as w:
        for lane in range(10):
            for step in range(5):
                parameters = f"t{lane}_{step - 1}" if step else ""
                w.do(task_named(f"t{lane}_{step}", parameters, sleeping((lane + step) % 7)))
    longest = max(sum((lane + step) % 7 for step in range(5)) for lane in range(10))
    assert now() == pytest.approx(longest)


def test_a_synchronous_dependent_starts_before_an_unrelated_blocked_task_ends() -> None:
    dependent_ran = threading.Event()
    with weave() as w:

        @w.do
        def blocked() -> bool:
            return dependent_ran.wait(SECONDS)

        @w.do
        def quick() -> None: ...

        @w.do
        def dependent(quick: None) -> None:
            dependent_ran.set()

    assert w.result.blocked


def test_tasks_run_at_the_same_time_synchronous_and_asynchronous_ones() -> None:
    meeting = threading.Barrier(3)
    with weave() as w:

        @w.do
        def one() -> None:
            meeting.wait(SECONDS)

        @w.do
        def two() -> None:
            meeting.wait(SECONDS)

        @w.do
        async def three() -> None:
            await asyncio.to_thread(meeting.wait, SECONDS)

    assert w.result.exception is None


@dataclass(frozen=True)
class RandomGraph:
    """Tasks that sleep, and fail or not; each needs some of those before it."""

    needed: tuple[tuple[int, ...], ...]
    seconds: tuple[int, ...]
    failing: frozenset[int]

    def critical_path(self) -> list[int]:
        ends: list[int] = []
        for needed, seconds in zip(self.needed, self.seconds, strict=True):
            ends.append(max((ends[each] for each in needed), default=0) + seconds)
        return ends


@st.composite
def random_graphs(draw: st.DrawFn, *, can_fail: bool) -> RandomGraph:
    size = draw(st.integers(0, 10))
    needed = tuple(
        tuple(sorted(draw(st.sets(st.integers(0, task - 1), max_size=3)))) if task else () for task in range(size)
    )
    seconds = tuple(draw(st.lists(st.integers(0, 5), min_size=size, max_size=size)))
    failing = draw(st.frozensets(st.integers(0, size))) if can_fail else frozenset()
    return RandomGraph(needed, seconds, failing)


class Broken(Exception):
    """What the tasks of random graphs raise."""


async def run_random(graph: RandomGraph) -> tuple[Any, dict[str, float], dict[str, float]]:
    began: dict[str, float] = {}
    ended: dict[str, float] = {}

    def work(task: int) -> Callable[[], Awaitable[int]]:
        async def run() -> int:
            began[f"t{task}"] = now()
            await asyncio.sleep(graph.seconds[task])
            ended[f"t{task}"] = now()
            if task in graph.failing:
                raise Broken(task)
            return task

        return run

    async with weave(error_mode="return") as w:
        for task, needed in enumerate(graph.needed):
            w.do(task_named(f"t{task}", ", ".join(f"t{each}" for each in needed), work(task)))
    return w.result, began, ended


@settings(deadline=None)
@given(random_graphs(can_fail=False))
def test_in_any_graph_each_task_starts_when_its_last_dependency_ends(graph: RandomGraph) -> None:
    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        result, _, ended = runner.run(run_random(graph))
    assert list(result) == list(range(len(graph.needed)))
    for task, end in enumerate(graph.critical_path()):
        assert ended[f"t{task}"] == pytest.approx(end, abs=1e-3)


@settings(deadline=None)
@given(random_graphs(can_fail=True))
def test_in_any_graph_with_failures_each_task_ends_in_one_state_and_none_starts_too_early_or_too_late(
    graph: RandomGraph,
) -> None:
    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        result, began, ended = runner.run(run_random(graph))
    names = [f"t{task}" for task in range(len(graph.needed))]
    values = dict(zip(names, result, strict=True))
    failed = {name for name, value in values.items() if isinstance(value, Broken) and name not in result.cancelled}
    done = {name for name in names if values[name] == int(name[1:])}
    assert done | failed | result.cancelled == set(names)
    assert len(done) + len(failed) + len(result.cancelled) == len(names)
    assert bool(failed) == (result.exception is not None)
    for name in began:
        assert all(f"t{each}" in done for each in graph.needed[int(name[1:])])
    if failed:
        first = f"t{result.exception.args[0]}"
        assert all(began[name] <= ended[first] + 1e-3 for name in began)
        assert result.failures[0] is result.exception
        assert {id(failure) for failure in result.failures} == {id(values[name]) for name in failed}


async def test_a_loop_that_starts_tasks_eagerly_changes_nothing() -> None:
    factory = getattr(asyncio, "eager_task_factory", None)
    if factory is None:
        pytest.skip("eager tasks are new in Python 3.12")
    ran: list[str] = []
    loop = asyncio.get_running_loop()
    loop.set_task_factory(factory)
    try:
        async with weave() as w:

            @w.do
            async def fails() -> None:
                raise LookupError

            @w.do
            async def other() -> None:
                ran.append("other")
                await asyncio.sleep(SECONDS)

        async with weave() as chain:
            for number in range(500):
                needs = f"t{number - 1}" if number else ""
                chain.do(task_named(f"t{number}", needs, sleeping(0)))
    finally:
        loop.set_task_factory(None)
    assert isinstance(w.result.exception, LookupError)
    assert w.result.cancelled == {"other"}
    assert chain.result.exception is None
