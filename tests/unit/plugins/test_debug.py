"""The plan, as the debug plugin prints it."""

from textwrap import dedent

import pytest

from wove.options import TASK_DEFAULTS
from wove.plugins import active_hooks
from wove.plugins.debug import render_plan
from wove.plugins.types import ExecutionPlan, PlannedTask


def _task(*, sync: bool = True, size: int | None = None, mapped: bool = False, place: str = "default") -> PlannedTask:
    return {"sync": sync, "mapped": mapped, "size": size, "environment": place, "options": TASK_DEFAULTS}


PLAN: ExecutionPlan = {
    "dependencies": {"numbers": set(), "square": {"numbers"}, "cube": set(), "total": {"square", "cube"}},
    "dependents": {"numbers": {"square"}, "square": {"total"}, "cube": {"total"}, "total": set()},
    "tiers": [["numbers", "cube"], ["square"], ["total"]],
    "sorted_tasks": ["numbers", "cube", "square", "total"],
    "tasks": {
        "numbers": _task(),
        "cube": _task(sync=False, mapped=True, size=10),
        "square": _task(mapped=True, place="workers"),
        "total": _task(sync=False),
    },
}


def test_the_plan_is_a_table_of_what_each_task_is_and_waits_for() -> None:
    assert render_plan(PLAN, weave="w1") == dedent(
        """\
        Weave w1: 4 tasks in 3 tiers
          tier  task     runs as          environment  needs         needed by
          1     numbers  sync             default      -             square
          1     cube     async, 10 items  default      -             total
          2     square   sync, mapped     workers      numbers       total
          3     total    async            default      cube, square  -"""
    )


def test_a_plan_without_tasks_is_one_line() -> None:
    empty: ExecutionPlan = {"dependencies": {}, "dependents": {}, "tiers": [], "sorted_tasks": [], "tasks": {}}
    assert render_plan(empty, weave="w1") == "Weave w1: 0 tasks in 0 tiers"


@pytest.mark.usefixtures("site")
@pytest.mark.parametrize("debug", [True, False])
def test_the_plan_is_printed_for_a_weave_with_the_debug_option_only(
    capsys: pytest.CaptureFixture[str], debug: bool
) -> None:
    planned = active_hooks(debug=True).wove_weave_planned
    assert planned is not None
    planned(weave="w1", plan=PLAN, options={"debug": debug})
    assert capsys.readouterr().out.startswith("Weave w1: 4 tasks") is debug
