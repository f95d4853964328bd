"""What is decided before a task runs: its options, its environment, what a remote one gets, and the report."""

import asyncio
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

import wove
from tests.support.distributions import only_site
from tests.support.executors import ScriptedExecutor
from tests.support.waiting import wait_in_loop_until
from wove import weave
from wove.plugins import hookimpl, register, unregister
from wove.plugins.types import ExecutionPlan, PlannedTask
from wove.runtime import RuntimeConfig


class Plans:
    """Writes down the plan of each weave."""

    def __init__(self) -> None:
        self.tasks: Mapping[str, PlannedTask] = {}
        self.options: Mapping[str, object] = {}

    @hookimpl
    def wove_weave_planned(self, plan: ExecutionPlan, options: Mapping[str, object]) -> None:
        self.tasks, self.options = plan["tasks"], options

    def option(self, name: str, task: str = "task") -> object:
        return self.tasks[task]["options"][name]  # type: ignore[literal-required]


@pytest.fixture
def plans(tmp_path: Path) -> Iterator[Plans]:
    seen = Plans()
    with only_site(tmp_path / "site"):
        register(seen, "plans")
        yield seen
        unregister("plans")


@pytest.fixture
def environments(configuration: RuntimeConfig) -> None:
    """Two environments that differ in everything."""
    wove.config(
        environments={
            "default": {"executor": "local", "retries": 1, "timeout": 10.0, "max_workers": 4},
            "other": {"executor": "local", "retries": 2, "timeout": 20.0, "max_workers": 8, "error_mode": "return"},
        },
        retries=5,
        delivery_timeout=50.0,
    )


def run(*, task_options: dict[str, Any] | None = None, **weave_options: Any) -> Any:
    with weave(**weave_options) as w:

        @w.do(**(task_options or {}))
        def task() -> int:
            return 1

    return w


# --- resolution of options ---


@pytest.mark.usefixtures("configuration")
def test_a_plugin_that_observes_cannot_change_options(plans: Plans) -> None:
    run()
    for options in (plans.options, plans.tasks["task"]["options"]):
        with pytest.raises(TypeError, match="does not support item assignment"):
            options["max_workers"] = 0  # type: ignore[index]


@pytest.mark.usefixtures("configuration")
def test_without_a_configuration_every_option_has_its_built_in_default(plans: Plans) -> None:
    run()
    assert plans.tasks["task"]["environment"] == "default"
    assert plans.option("retries") == 0
    assert plans.option("timeout") is None
    assert plans.options["max_workers"] == 256
    assert plans.options["error_mode"] == "raise"


@pytest.mark.usefixtures("environments")
def test_an_option_of_the_task_counts_most(plans: Plans) -> None:
    run(task_options={"retries": 9}, retries=8)
    assert plans.option("retries") == 9


@pytest.mark.usefixtures("environments")
def test_then_that_of_the_weave(plans: Plans) -> None:
    run(retries=8)
    assert plans.option("retries") == 8


@pytest.mark.usefixtures("environments")
def test_then_that_of_the_environment(plans: Plans) -> None:
    run()
    assert plans.option("retries") == 1
    assert plans.option("timeout") == 10.0


@pytest.mark.usefixtures("environments")
def test_then_the_global_default(plans: Plans) -> None:
    run()
    assert plans.option("delivery_timeout") == 50.0
    run(task_options={"environment": "other"})
    assert plans.option("delivery_timeout") == 50.0


@pytest.mark.usefixtures("environments")
def test_none_takes_an_option_of_the_environment_back(plans: Plans) -> None:
    run(task_options={"timeout": None})
    assert plans.option("timeout") is None


@pytest.mark.usefixtures("environments")
def test_the_settings_of_the_selected_environment_hold_for_a_task_that_is_routed_at_task_level(plans: Plans) -> None:
    with weave() as w:

        @w.do(environment="other")
        def task() -> int:
            return 1

        @w.do
        def beside() -> int:
            return 2

        @w.do([1], environment="other", retries=7)
        def item(number: int) -> int:
            return number

    assert list(w.result) == [1, 2, [1]]
    assert plans.tasks["task"]["environment"] == "other"
    assert (plans.option("retries"), plans.option("timeout")) == (2, 20.0)
    assert (plans.option("retries", "beside"), plans.option("timeout", "beside")) == (1, 10.0)
    assert (plans.option("retries", "item"), plans.option("timeout", "item")) == (7, 20.0)


@pytest.mark.usefixtures("environments")
def test_the_environment_of_the_weave_holds_for_tasks_that_name_none(plans: Plans) -> None:
    run(environment="other")
    assert plans.tasks["task"]["environment"] == "other"
    assert plans.option("retries") == 2
    assert plans.options["max_workers"] == 8


@pytest.mark.usefixtures("environments")
def test_the_environment_of_the_task_counts_more_than_that_of_the_weave(plans: Plans) -> None:
    run(environment="other", task_options={"environment": "default"})
    assert plans.tasks["task"]["environment"] == "default"
    assert plans.option("retries") == 1


@pytest.mark.usefixtures("environments")
def test_the_default_environment_holds_where_neither_names_one(plans: Plans) -> None:
    wove.config(default_environment="other")
    run()
    assert plans.tasks["task"]["environment"] == "other"
    assert plans.option("retries") == 2


@pytest.mark.usefixtures("environments")
def test_weave_options_come_from_the_environment_of_the_weave_and_not_of_a_task(plans: Plans) -> None:
    run(task_options={"environment": "other"})
    assert plans.options["max_workers"] == 4
    assert plans.options["error_mode"] == "raise"


@pytest.mark.usefixtures("environments")
def test_weave_options_that_are_given_count_more_than_those_of_the_environment(plans: Plans) -> None:
    run(environment="other", max_workers=3)
    assert plans.options["max_workers"] == 3
    assert plans.options["error_mode"] == "return"


@pytest.mark.usefixtures("configuration")
def test_error_mode_of_the_configuration_holds() -> None:
    wove.config(error_mode="return")
    with weave() as w:
        w.do(lambda: 1 / 0)
    assert isinstance(w.result.final, ZeroDivisionError)


@pytest.mark.usefixtures("configuration")
def test_a_change_of_the_configuration_after_the_weave_was_made_does_not_reach_it(plans: Plans) -> None:
    with weave() as w:
        wove.config(retries=3)

        @w.do
        def task() -> None: ...

    assert plans.option("retries") == 0


@pytest.mark.usefixtures("environments")
def test_options_of_maps_may_be_set_for_a_whole_weave_and_mean_nothing_to_its_other_tasks(plans: Plans) -> None:
    with weave(workers=2) as w:

        @w.do
        def task() -> int:
            return 1

        @w.do([1, 2])
        def item(number: int) -> int:
            return number

    assert list(w.result) == [1, [1, 2]]
    assert plans.option("workers", "item") == 2


# --- remote environments ---


@pytest.mark.usefixtures("configuration")
def test_only_the_task_of_a_remote_environment_leaves_with_its_arguments_and_delivery_options() -> None:
    executor = ScriptedExecutor(auto=True)
    wove.config(environments={"remote": {"executor": executor, "delivery_timeout": 30.0}})

    def report(number: int, base: int) -> int:
        return number + base

    with weave(base=1) as w:

        @w.do
        def numbers() -> list[int]:
            return [1, 2]

        w.do("numbers", environment="remote")(report)

        @w.do
        def total(report: list[dict[str, int]]) -> int:
            return sum(answer["number"] for answer in report)

    assert w.result.total == 3
    runs = [command for command in executor.commands if command["type"] == "run_task"]
    assert sorted(command["args"]["number"] for command in runs) == [1, 2]
    assert all(command["args"]["base"] == 1 for command in runs)
    assert all(command["callable"] is report for command in runs)
    assert all(command["delivery"]["delivery_timeout"] == 30.0 for command in runs)
    assert (executor.starts, executor.stops) == (1, 1)


@pytest.mark.usefixtures("configuration")
def test_a_merge_may_use_an_environment_that_no_task_uses() -> None:
    executor = ScriptedExecutor(auto=True)
    wove.config(environments={"remote": {"executor": executor}})
    with weave() as w:

        @w.do
        def in_thread() -> object:
            return wove.merge(len, ["a", "b"], environment="remote")

        @w.do
        async def in_loop() -> object:
            return await asyncio.gather(*(wove.merge(print, environment="remote") for _ in range(5)))

    assert w.result.in_thread == [{"item": "a"}, {"item": "b"}]
    assert w.result.in_loop == [{}] * 5
    assert (executor.starts, executor.stops) == (1, 1)


@pytest.mark.usefixtures("configuration")
def test_giving_up_one_merge_does_not_take_the_environment_from_the_others() -> None:
    executor = ScriptedExecutor(auto=True)
    wove.config(environments={"remote": {"executor": executor}})
    with weave() as w:

        @w.do
        async def task() -> list[object]:
            impatient = asyncio.create_task(wove.merge(print, environment="remote"))
            patient = asyncio.create_task(wove.merge(print, environment="remote"))
            await asyncio.sleep(0)
            impatient.cancel()
            return [*await asyncio.gather(impatient, return_exceptions=True), await patient]

    given_up, answer = w.result.task
    assert isinstance(given_up, asyncio.CancelledError)
    assert answer == {}


@pytest.mark.usefixtures("configuration")
async def test_a_cancelled_weave_cancels_its_remote_tasks_and_stops_their_environment() -> None:
    executor = ScriptedExecutor()
    wove.config(environments={"remote": {"executor": executor}})

    async def caller() -> None:
        async with weave() as w:
            w.do(environment="remote")(lambda: None)

    calling = asyncio.create_task(caller())
    await wait_in_loop_until(lambda: executor.commands, what="the task is submitted")
    calling.cancel()
    with pytest.raises(asyncio.CancelledError):
        await calling
    assert [command["type"] for command in executor.commands][:2] == ["run_task", "cancel_task"]
    assert (executor.starts, executor.stops) == (1, 1)


# --- the report ---


def test_debug_prints_the_plan_before_the_tasks_run(capsys: pytest.CaptureFixture[str]) -> None:
    seen: list[str] = []
    with weave(debug=True, numbers=[1, 2, 3]) as w:

        @w.do
        def account() -> int:
            seen.append(capsys.readouterr().out)
            return 1

        @w.do([1, 2])
        async def rows(number: int, account: int) -> int:
            return number

        @w.do("rows")
        def doubled(row: int) -> int:
            return row

        @w.do("numbers")
        def squared(number: int) -> int:
            return number

    assert w.result.exception is None
    assert capsys.readouterr().out == ""
    lines = seen[0].splitlines()
    assert re.fullmatch(r"Weave \w+: 4 tasks in 3 tiers", lines[0])
    rows_of = {line.split()[1]: line for line in lines[2:]}
    assert re.fullmatch(r" +1 +account +sync +default +- +rows", rows_of["account"])
    assert re.fullmatch(r" +2 +rows +async, 2 items +default +account +doubled", rows_of["rows"])
    assert re.fullmatch(r" +3 +doubled +sync, mapped +default +rows +-", rows_of["doubled"])
    assert re.fullmatch(r" +1 +squared +sync, 3 items +default +- +-", rows_of["squared"])


def test_without_debug_nothing_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    run()
    assert capsys.readouterr() == ("", "")
