"""Whether any node of a cluster can ever run a task: Ray lets one that no node can run wait for ever, and says nothing.

https://docs.ray.io/en/latest/ray-core/scheduling/resources.html
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

_NODES_SHOWN = 5
_GIB = 1024**3
_CONDITION = re.compile(r"(?P<no>!?)(?:(?P<one>[^!()]*)|in\((?P<many>.*)\))")

# https://docs.ray.io/en/latest/ray-core/scheduling/accelerators.html: a sliver of it marks the node's type.
_SLIVER = 0.001


def demand_of(options: Mapping[str, Any]) -> dict[str, float]:
    """Return what a task with these arguments of ``ray.remote`` takes from its node, by resource."""
    demand = {
        "CPU": options.get("num_cpus", 1),
        "GPU": options.get("num_gpus", 0),
        "memory": options.get("memory", 0),
        **options.get("resources", {}),
    }
    if options.get("accelerator_type"):
        demand[f"accelerator_type:{options['accelerator_type']}"] = _SLIVER
    return {name: float(amount) for name, amount in demand.items() if amount}


def misfit(options: Mapping[str, Any], nodes: Sequence[Mapping[str, Any]]) -> str | None:
    """Return a sentence that says why no node can ever run a task, or None if one can.

    Args:
        options: arguments of ``ray.remote``.
        nodes: what ``ray.nodes()`` says.
    """
    if hasattr(options.get("scheduling_strategy"), "placement_group"):
        return None  # It has its resources already, or waits for them; Ray answers for it.
    demand = demand_of(options)
    alive = [node for node in nodes if node.get("Alive")]
    wanted = list(_selectors(options))
    if any(_has(node, demand) and _is_selected(node, selector) for node in alive for selector in wanted):
        return None
    labels = f" with labels {options['label_selector']}" if options.get("label_selector") else ""
    shown = "; ".join(_described(node, demand) for node in alive[:_NODES_SHOWN])
    more = f"; and {len(alive) - _NODES_SHOWN} more" if len(alive) > _NODES_SHOWN else ""
    return f"a task needs {_amounts(demand)}{labels}, and no node has that. Nodes: {shown or 'none'}{more}"


def _selectors(options: Mapping[str, Any]) -> Iterator[Mapping[str, str]]:
    yield options.get("label_selector") or {}
    for fallback in options.get("fallback_strategy") or []:
        yield fallback.get("label_selector") or {}


def _has(node: Mapping[str, Any], demand: Mapping[str, float]) -> bool:
    there = node.get("Resources", {})
    return all(there.get(name, 0.0) >= amount for name, amount in demand.items())


def _is_selected(node: Mapping[str, Any], selector: Mapping[str, str]) -> bool:
    labels = node.get("Labels") or {}
    return all(_holds(condition, labels.get(name)) for name, condition in selector.items())


def _holds(condition: str, label: str | None) -> bool:
    match = _CONDITION.fullmatch(condition.strip())
    if match is None:
        return True  # Ray will say what it thinks of it.
    if match["many"] is None:
        found = label == match["one"]
    else:
        found = label in [each.strip() for each in match["many"].split(",")]
    return found != bool(match["no"])


def _described(node: Mapping[str, Any], demand: Mapping[str, float]) -> str:
    there = node.get("Resources", {})
    return f"{node.get('NodeManagerAddress')} has {_amounts({name: there.get(name, 0.0) for name in demand})}"


def _amounts(amounts: Mapping[str, float]) -> str:
    return ", ".join(_amount(name, amount) for name, amount in amounts.items()) or "nothing"


def _amount(name: str, amount: float) -> str:
    return f"{name} {amount / _GIB:.1f} GiB" if name == "memory" else f"{name} {amount:g}"
