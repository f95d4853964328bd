"""Which tasks some node of a cluster can run."""

from typing import Any

import pytest

from wove_ray.resources import demand_of, misfit


def node(address: str = "10.0.0.1", *, alive: bool = True, labels: Any = None, **resources: float) -> dict[str, Any]:
    return {"NodeManagerAddress": address, "Alive": alive, "Labels": labels, "Resources": resources}


NODES = [
    node("10.0.0.1", CPU=4.0, memory=8.0 * 1024**3, labels={"zone": "a"}),
    node("10.0.0.2", CPU=2.0, GPU=1.0, memory=2.0 * 1024**3, labels={"zone": "b"}),
    node("10.0.0.3", CPU=64.0, GPU=8.0, alive=False, labels={"zone": "c"}),
]


def test_a_task_takes_a_processor_unless_it_says_otherwise() -> None:
    assert demand_of({}) == {"CPU": 1.0}
    assert demand_of({"num_cpus": 0}) == {}
    options = {"num_gpus": 0.5, "memory": 1024, "resources": {"licence": 2}, "accelerator_type": "A100"}
    assert demand_of(options) == {
        "CPU": 1.0,
        "GPU": 0.5,
        "memory": 1024.0,
        "licence": 2.0,
        "accelerator_type:A100": 0.001,
    }


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"num_cpus": 4},
        {"num_cpus": 2, "num_gpus": 1},
        {"label_selector": {"zone": "b"}, "num_gpus": 1},
        {"label_selector": {"zone": "!a"}},
        {"label_selector": {"zone": "in(b, c)"}},
        {"label_selector": {"zone": "!in(a,c)"}},
        {"label_selector": {"zone": "d"}, "fallback_strategy": [{"label_selector": {"zone": "a"}}]},
        {"label_selector": {"absent": "!x"}},
    ],
)
def test_a_task_that_one_node_can_run_is_fine(options: dict[str, Any]) -> None:
    assert misfit(options, NODES) is None


@pytest.mark.parametrize(
    ("options", "missing"),
    [
        ({"num_cpus": 5}, "a task needs CPU 5, and no node has that"),
        ({"num_cpus": 4, "num_gpus": 1}, "10.0.0.1 has CPU 4, GPU 0; 10.0.0.2 has CPU 2, GPU 1"),
        ({"num_gpus": 8}, "GPU 8"),
        ({"memory": 16 * 1024**3}, "memory 16.0 GiB"),
        ({"resources": {"licence": 1}}, "licence 1"),
        ({"accelerator_type": "A100"}, "accelerator_type:A100"),
        ({"label_selector": {"zone": "c"}}, "with labels {'zone': 'c'}"),
        ({"label_selector": {"zone": "!in(a,b)"}}, "with labels"),
    ],
)
def test_what_no_living_node_has_is_named(options: dict[str, Any], missing: str) -> None:
    assert missing in (misfit(options, NODES) or "")


def test_a_cluster_without_nodes_is_called_so() -> None:
    assert misfit({}, []) == "a task needs CPU 1, and no node has that. Nodes: none"


def test_only_a_few_nodes_are_listed() -> None:
    assert "; and 15 more" in (misfit({"num_gpus": 1}, [node(CPU=1.0)] * 20) or "")


def test_a_placement_group_is_left_to_ray() -> None:
    class Strategy:
        placement_group = object()

    assert misfit({"num_gpus": 100, "scheduling_strategy": Strategy()}, NODES) is None
