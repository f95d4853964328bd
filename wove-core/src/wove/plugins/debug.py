"""The built-in plugin that prints the plan of a weave whose `debug` option is set."""

from collections.abc import Iterable, Mapping, Sequence

from wove.plugins.hookspecs import hookimpl
from wove.plugins.types import ExecutionPlan, PlannedTask

_HEADINGS = ("tier", "task", "runs as", "environment", "needs", "needed by")


@hookimpl
def wove_weave_planned(weave: str, plan: ExecutionPlan, options: Mapping[str, object]) -> None:
    """Print the plan to standard output."""
    if options.get("debug"):
        print(render_plan(plan, weave=weave), flush=True)


def render_plan(plan: ExecutionPlan, *, weave: str) -> str:
    """Return a plan as a table: a line for each task, in tiers."""
    tiers = plan["tiers"]
    rows = [_row(plan, number, name) for number, names in enumerate(tiers, start=1) for name in names]
    title = f"Weave {weave}: {_count(len(rows), 'task')} in {_count(len(tiers), 'tier')}"
    return "\n".join([title, *_aligned([_HEADINGS, *rows])]) if rows else title


def _row(plan: ExecutionPlan, tier: int, name: str) -> tuple[str, ...]:
    task = plan["tasks"][name]
    return (
        str(tier),
        name,
        _kind(task),
        task["environment"],
        _listed(plan["dependencies"].get(name, ())),
        _listed(plan["dependents"].get(name, ())),
    )


def _kind(task: PlannedTask) -> str:
    kind = "sync" if task["sync"] else "async"
    if not task["mapped"]:
        return kind
    size = task["size"]
    return f"{kind}, mapped" if size is None else f"{kind}, {_count(size, 'item')}"


def _listed(names: Iterable[str]) -> str:
    return ", ".join(sorted(names)) or "-"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    ]
