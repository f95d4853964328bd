"""What plugins see of real weaves, and what they can and cannot do to them."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from contextvars import ContextVar
from pathlib import Path

import pytest

from tests.support.distributions import only_site
from wove import weave
from wove.errors import AdapterError, GraphRejectedError, OptionError
from wove.plugins import hookimpl, register, unregister
from wove.plugins.timings import TaskTiming
from wove.plugins.types import ExecutionPlan

Registering = Callable[..., str]


@pytest.fixture
def take(tmp_path: Path) -> Iterator[Registering]:
    """Register a plugin for the length of a test, where no other one is installed."""
    names: list[str] = []

    def register_for_now(plugin: object, name: str | None = None) -> str:
        names.append(register(plugin, name))
        return names[-1]

    with only_site(tmp_path / "site"):
        yield register_for_now
        for name in reversed(names):
            unregister(name)


class Diary:
    """Writes down every hook that is called, with the task."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.weaves: set[str] = set()

    def _write(self, weave: str, line: str) -> None:
        self.weaves.add(weave)
        self.lines.append(line)

    @hookimpl
    def wove_task_options(self, weave: str, task: str) -> None:
        self._write(weave, f"options {task}")

    @hookimpl
    def wove_veto(self, weave: str) -> None:
        self._write(weave, "veto")

    @hookimpl
    def wove_weave_planned(self, weave: str) -> None:
        self._write(weave, "planned")

    @hookimpl
    def wove_task_ready(self, weave: str, task: str) -> None:
        self._write(weave, f"ready {task}")

    @hookimpl
    def wove_task_started(self, weave: str, task: str, attempt: int, environment: str) -> None:
        self._write(weave, f"started {task} {attempt} {environment}")

    @hookimpl
    def wove_task_retried(self, weave: str, task: str, attempt: int, exception: BaseException) -> None:
        self._write(weave, f"retried {task} {attempt} {exception}")

    @hookimpl
    def wove_task_finished(self, weave: str, task: str) -> None:
        self._write(weave, f"finished {task}")

    @hookimpl
    def wove_task_failed(self, weave: str, task: str, exception: BaseException) -> None:
        self._write(weave, f"failed {task} {exception}")

    @hookimpl
    def wove_task_cancelled(self, weave: str, task: str) -> None:
        self._write(weave, f"cancelled {task}")

    @hookimpl
    def wove_weave_finished(self, weave: str) -> None:
        self._write(weave, "weave finished")


def test_the_life_of_a_weave_is_told_in_order_under_one_id(take: Registering) -> None:
    diary = Diary()
    take(diary)
    with weave(base=1) as w:

        @w.do
        def number(base: int) -> int:
            return base + 1

        @w.do
        async def double(number: int) -> int:
            return number * 2

    assert w.result.double == 4
    assert diary.lines == [
        "options number",
        "options double",
        "veto",
        "planned",
        "ready number",
        "started number 1 default",
        "finished number",
        "ready double",
        "started double 1 default",
        "finished double",
        "weave finished",
    ]
    assert len(diary.weaves) == 1


def test_retries_failure_and_cancellation_are_told(take: Registering) -> None:
    diary = Diary()
    take(diary)
    with weave() as w:

        @w.do(retries=1)
        def broken() -> None:
            raise ValueError("boom")

        @w.do
        def dependent(broken: None) -> None: ...

    assert isinstance(w.result.exception, ValueError)
    assert diary.lines[diary.lines.index("ready broken") :] == [
        "ready broken",
        "started broken 1 default",
        "retried broken 1 boom",
        "started broken 2 default",
        "failed broken boom",
        "cancelled dependent",
        "weave finished",
    ]


class Gatekeeper:
    def __init__(self) -> None:
        self.plan: ExecutionPlan | None = None

    @hookimpl
    def wove_veto(self, plan: ExecutionPlan) -> str | None:
        self.plan = plan
        return "no more than one task" if len(plan["tasks"]) > 1 else None


def test_a_veto_stops_the_weave_before_any_task_runs(take: Registering) -> None:
    gatekeeper = Gatekeeper()
    take(gatekeeper, "limits")
    ran: list[str] = []

    def run_two_tasks() -> None:
        with weave() as w:

            @w.do
            def one() -> None:
                ran.append("one")

            @w.do([1, 2, 3])
            async def two(item: int, one: None) -> None:
                ran.append("two")

    with pytest.raises(GraphRejectedError, match=r"'limits' rejected the weave .* no more than one task"):
        run_two_tasks()
    assert ran == []
    assert gatekeeper.plan is not None
    assert gatekeeper.plan["dependencies"]["two"] == {"one"}
    planned = gatekeeper.plan["tasks"]["two"]
    assert (planned["sync"], planned["mapped"], planned["size"], planned["environment"]) == (False, True, 3, "default")


def test_a_policy_changes_how_a_task_runs(take: Registering) -> None:
    class Retries:
        @hookimpl
        def wove_task_options(self, task: str) -> Mapping[str, object] | None:
            return {"retries": 2} if task == "flaky" else None

    take(Retries())
    attempts = []
    with weave() as w:

        @w.do
        def flaky() -> int:
            attempts.append(1)
            if len(attempts) < 3:
                raise OSError
            return len(attempts)

    assert w.result.flaky == 3


@pytest.mark.parametrize(
    ("answer", "error"), [({"retires": 1}, OptionError), ({"workers": 1}, OptionError), (7, OptionError)]
)
def test_a_policy_with_a_wrong_answer_stops_the_weave_and_is_named(
    take: Registering, answer: object, error: type[Exception]
) -> None:
    class Wrong:
        @hookimpl
        def wove_task_options(self) -> object:
            return answer

    take(Wrong(), "limits")
    ran = []
    with pytest.raises(error, match="'limits'"), weave() as w:

        @w.do
        def one() -> None:
            ran.append(1)

    assert ran == []


class Saboteur:
    """Raises in every hook that observes."""

    @hookimpl
    def wove_weave_planned(self) -> None:
        raise RuntimeError("sabotage")

    @hookimpl
    def wove_task_ready(self) -> None:
        raise RuntimeError("sabotage")

    @hookimpl
    def wove_task_started(self) -> None:
        raise RuntimeError("sabotage")

    @hookimpl
    def wove_task_retried(self) -> None:
        raise RuntimeError("sabotage")

    @hookimpl
    def wove_task_finished(self) -> None:
        raise RuntimeError("sabotage")

    @hookimpl
    def wove_task_failed(self) -> None:
        raise RuntimeError("sabotage")

    @hookimpl
    def wove_task_cancelled(self) -> None:
        raise RuntimeError("sabotage")

    @hookimpl
    def wove_weave_finished(self) -> None:
        raise RuntimeError("sabotage")

    @hookimpl
    @asynccontextmanager
    async def wove_around_task(self) -> AsyncIterator[None]:
        try:
            yield
        finally:
            raise RuntimeError("sabotage")


async def test_observers_that_raise_everywhere_change_nothing(
    take: Registering, caplog: pytest.LogCaptureFixture
) -> None:
    take(Saboteur(), "saboteur")
    failures = []
    async with weave() as w:

        @w.do
        def numbers() -> list[int]:
            return [1, 2, 3]

        @w.do("numbers")
        async def squares(number: int) -> int:
            return number * number

        @w.do(retries=1)
        def broken(squares: list[int]) -> None:
            failures.append(squares)
            raise ValueError("the task's own")

        @w.do
        def dependent(broken: None) -> None: ...

    assert w.result.squares == [1, 4, 9]
    assert failures == [[1, 4, 9], [1, 4, 9]]
    assert w.result.cancelled == {"dependent"}
    with pytest.raises(ValueError, match="the task's own"):
        _ = w.result.broken
    hooks = {record.getMessage().split(": ")[1].split()[0] for record in caplog.records}
    assert hooks == {name for name in vars(Saboteur) if name.startswith("wove_")}
    assert all("'saboteur'" in record.getMessage() for record in caplog.records)
    assert {(record.name, record.levelno) for record in caplog.records} == {("wove.plugins", logging.ERROR)}


def test_a_decision_that_raises_stops_the_weave(take: Registering) -> None:
    class Undecided:
        @hookimpl
        def wove_veto(self) -> None:
            raise ConnectionError("no policy server")

    take(Undecided(), "limits")
    ran = []
    with pytest.raises(AdapterError, match="'limits': wove_veto raised ConnectionError"), weave() as w:

        @w.do
        def one() -> None:
            ran.append(1)

    assert ran == []


span: ContextVar[str] = ContextVar("span", default="none")


class Spans:
    """Opens a span around each attempt, as a tracing plugin does."""

    def __init__(self) -> None:
        self.closed: list[tuple[str, int | None, int, BaseException | None]] = []

    @hookimpl
    @asynccontextmanager
    async def wove_around_task(self, task: str, item: int | None, attempt: int) -> AsyncIterator[None]:
        token = span.set(f"{task}/{item}/{attempt}")
        failure: BaseException | None = None
        try:
            yield
        except BaseException as error:
            failure = error
            raise
        finally:
            self.closed.append((task, item, attempt, failure))
            span.reset(token)


def test_a_span_surrounds_each_attempt_in_threads_and_coroutines_alike(take: Registering) -> None:
    spans = Spans()
    take(spans)
    with weave() as w:

        @w.do
        def in_thread() -> str:
            return span.get()

        @w.do
        async def in_loop() -> str:
            await asyncio.sleep(0)
            return span.get()

        @w.do([10, 20])
        def mapped(number: int) -> str:
            return span.get()

    assert w.result.in_thread == "in_thread/None/1"
    assert w.result.in_loop == "in_loop/None/1"
    assert w.result.mapped == ["mapped/0/1", "mapped/1/1"]
    assert len(spans.closed) == 4


def test_a_span_sees_each_failed_attempt_and_a_timeout(take: Registering) -> None:
    spans = Spans()
    take(spans)
    error = ValueError("boom")
    with weave() as w:

        @w.do(retries=1)
        def broken() -> None:
            raise error

    assert w.result.exception is error
    assert spans.closed == [("broken", None, 1, error), ("broken", None, 2, error)]

    with weave() as w:

        @w.do(timeout=0.01)
        async def endless() -> None:
            await asyncio.Event().wait()

    assert isinstance(w.result.exception, TimeoutError)
    assert isinstance(spans.closed[-1][3], asyncio.CancelledError)


def test_timings_hold_seconds_per_task_and_per_item() -> None:
    with weave() as w:

        @w.do
        def numbers() -> list[int]:
            return [1, 2, 3]

        @w.do("numbers")
        def squares(number: int) -> int:
            return number * number

    assert w.result.timings.keys() == {"numbers", "squares"}
    timing = w.result.timings["squares"]
    assert isinstance(timing, TaskTiming)
    assert len(timing.items) == 3
    assert 0 < max(timing.items) <= timing


@pytest.mark.parametrize("debug", [True, False])
def test_debug_prints_the_plan_before_the_weave_runs(capsys: pytest.CaptureFixture[str], debug: bool) -> None:
    with weave(debug=debug) as w:

        @w.do
        def numbers() -> list[int]:
            print("numbers runs")
            return [1]

        @w.do("numbers")
        async def squares(number: int) -> int:
            return number * number

    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == "numbers runs"
    assert len(lines) == (5 if debug else 1)
    if debug:
        assert [line.split()[1] for line in lines[2:4]] == ["numbers", "squares"]
