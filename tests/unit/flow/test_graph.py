"""The graph that parameter names make."""

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wove.errors import CircularDependencyError, UnresolvedSignatureError
from wove.flow.graph import Graph
from wove.flow.tasks import UNMAPPED, TaskSpec


def task(name: str, parameters: str = "", source: object = UNMAPPED) -> TaskSpec:
    function: Callable[..., Any] = eval(f"lambda {parameters}: None")
    return TaskSpec(name, function, source=source)


def graph(*specs: TaskSpec, values: Sequence[str] = ()) -> Graph:
    return Graph(specs, values)


def test_a_parameter_of_the_name_of_a_task_is_a_dependency() -> None:
    plan = graph(task("a"), task("b", "a"), task("c", "a, b")).plan()
    assert plan["dependencies"] == {"a": set(), "b": {"a"}, "c": {"a", "b"}}
    assert plan["dependents"] == {"a": {"b", "c"}, "b": {"c"}, "c": set()}


def test_tasks_may_be_declared_before_what_they_need() -> None:
    plan = graph(task("c", "b"), task("b", "a"), task("a")).plan()
    assert plan["sorted_tasks"] == ["a", "b", "c"]


def test_a_task_stands_in_the_tier_after_the_last_of_its_dependencies() -> None:
    plan = graph(task("a"), task("b", "a"), task("c"), task("d", "b, c")).plan()
    assert plan["tiers"] == [["a", "c"], ["b"], ["d"]]


def test_no_tasks_have_no_tiers() -> None:
    plan = graph().plan()
    assert plan == {"dependencies": {}, "dependents": {}, "tiers": [], "sorted_tasks": []}


def test_a_parameter_with_a_default_that_nothing_provides_keeps_its_default() -> None:
    node = graph(task("a", "b=1")).nodes[0]
    assert node.task_arguments == []
    assert node.value_arguments == []


def test_a_parameter_with_a_default_is_a_dependency_where_there_is_such_a_task() -> None:
    assert graph(task("a", "b=1"), task("b")).plan()["dependencies"] == {"a": {"b"}, "b": set()}


def test_an_initial_value_is_no_dependency() -> None:
    node = graph(task("a", "base"), values=["base"]).nodes[0]
    assert node.dependencies == []
    assert node.value_arguments == ["base"]


def test_the_parameter_data_takes_all_initial_values() -> None:
    assert graph(task("a", "data")).nodes[0].wants_data


def test_keyword_only_parameters_are_dependencies_too() -> None:
    assert graph(task("a"), task("b", "*, a")).plan()["dependencies"]["b"] == {"a"}  # type: ignore[index]


def test_collecting_parameters_are_left_out() -> None:
    assert graph(task("args"), task("b", "*args, **kwargs")).plan()["dependencies"]["b"] == set()  # type: ignore[index]


# --- maps ---


def test_the_item_is_the_parameter_that_nothing_provides() -> None:
    node = graph(task("a"), task("b", "a, number", source=[1])).nodes[1]
    assert node.item_parameter == "number"
    assert node.task_arguments == [("a", 0)]


def test_a_map_over_a_task_depends_on_it() -> None:
    node = graph(task("numbers"), task("square", "number", source="numbers")).nodes[1]
    assert node.source_task == 0
    assert node.dependencies == [0]


def test_a_map_may_take_its_whole_source_as_well() -> None:
    node = graph(task("numbers"), task("share", "numbers, number", source="numbers")).nodes[1]
    assert node.item_parameter == "number"
    assert node.dependencies == [0]


def test_a_map_over_an_initial_value_depends_on_nothing() -> None:
    node = graph(task("square", "number", source="numbers"), values=["numbers"]).nodes[0]
    assert node.dependencies == []
    assert node.source_task is None


def test_the_item_is_the_parameter_without_a_default_if_there_are_others() -> None:
    assert graph(task("a", "number, factor=2", source=[1])).nodes[0].item_parameter == "number"


def test_the_item_may_have_a_default_if_it_is_the_only_one() -> None:
    assert graph(task("a", "number=0", source=[1])).nodes[0].item_parameter == "number"


@pytest.mark.parametrize(
    ("parameters", "has"),
    [
        ("", r"none\. Add one\."),
        ("base", r"none\. Add one\."),
        ("x, y", r"2 \(x, y\)\. Give the others defaults, or provide them"),
        ("x=1, y=2", r"2 \(x, y\)\. Give the others defaults"),
        ("x, bsae", r"2 \(x, bsae\)\. Did you mean 'base' by 'bsae'\? Give the others defaults"),
    ],
)
def test_a_map_without_exactly_one_item_parameter_is_refused(parameters: str, has: str) -> None:
    with pytest.raises(UnresolvedSignatureError, match=f"'a' must have exactly one parameter .* it has {has}"):
        graph(task("a", parameters, source=[1]), values=["base"])


def test_a_map_over_an_unknown_name_is_refused_with_the_nearest_one() -> None:
    with pytest.raises(
        UnresolvedSignatureError,
        match=r"'a' is mapped over 'numbrs', which is neither a task nor .* Did you mean 'numbers'\? Declare a task",
    ) as caught:
        graph(task("numbers"), task("a", "x", source="numbrs"))
    assert (caught.value.task, caught.value.parameter) == ("a", "numbrs")


# --- what makes no graph ---


def test_a_parameter_that_nothing_provides_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(UnresolvedSignatureError, match=r"Task 'b': nothing provides its parameter 'acount'.") as caught:
        graph(task("account"), task("b", "acount"))
    assert "Did you mean 'account'?" in str(caught.value)
    assert "weave(acount=...)" in str(caught.value)
    assert (caught.value.task, caught.value.parameter) == ("b", "acount")


def test_a_misspelled_initial_value_is_suggested_too() -> None:
    with pytest.raises(UnresolvedSignatureError, match=r"Did you mean 'base'\?"):
        graph(task("a", "bases"), values=["base"])


def test_an_unresolved_signature_is_a_name_error() -> None:
    with pytest.raises(NameError):
        graph(task("a", "nothing"))


def test_tasks_that_need_each_other_are_refused_with_the_cycle() -> None:
    with pytest.raises(CircularDependencyError) as caught:
        graph(task("a", "c"), task("b", "a"), task("c", "b"), task("d", "a"))
    cycle = caught.value.cycle
    assert cycle[0] == cycle[-1]
    assert set(cycle) == {"a", "b", "c"}
    assert " -> ".join(cycle) in str(caught.value)


def test_a_task_that_needs_itself_is_a_cycle() -> None:
    with pytest.raises(CircularDependencyError, match=r"a -> a \(the task needs its own result\)\. Rename the task"):
        graph(task("a", "a"))


def test_a_map_over_itself_is_a_cycle() -> None:
    with pytest.raises(CircularDependencyError, match="a -> a"):
        graph(task("a", "x", source="a"))


@pytest.mark.parametrize("parameters", ["a, /", "a=1, /"])
def test_a_dependency_that_is_positional_only_is_refused(parameters: str) -> None:
    with pytest.raises(UnresolvedSignatureError, match="its parameter 'a' is positional-only"):
        graph(task("a"), task("b", parameters))


def test_an_item_may_be_positional_only() -> None:
    assert graph(task("a", "x, /", source=[1])).nodes[0].item_parameter == "x"


# --- questions ---


def test_descendants_are_all_tasks_that_need_one_through_others_too() -> None:
    made = graph(task("a"), task("b", "a"), task("c", "b"), task("d"), task("e", "c, d"))
    assert made.descendants(0) == {1, 2, 4}
    assert made.descendants(4) == set()


def test_values_that_no_task_takes_are_unused() -> None:
    made = graph(task("a", "x"), task("b", "i", source="y"), values=["x", "y", "z"])
    assert made.unused_values() == {"z"}


@pytest.mark.parametrize("taker", [task("a", "data"), task("a", "i", source="data")])
def test_data_uses_every_value(taker: TaskSpec) -> None:
    assert graph(taker, values=["x", "y"]).unused_values() == frozenset()


@given(st.lists(st.sets(st.integers(0, 9)), max_size=10))
def test_any_graph_is_either_ordered_or_refused_with_a_true_cycle(needed: list[set[int]]) -> None:
    names = [f"t{index}" for index in range(len(needed))]
    wanted = {name: {f"t{i}" for i in each if i < len(needed)} for name, each in zip(names, needed, strict=True)}
    specs = [task(name, ", ".join(sorted(wanted[name]))) for name in names]
    cycle: Sequence[str] = ()
    order: Any = names
    try:
        order = Graph(specs).plan()["sorted_tasks"]
    except CircularDependencyError as error:
        cycle = error.cycle
    if cycle:
        assert all(needs in wanted[name] for name, needs in pairwise(cycle))
    else:
        assert sorted(order) == sorted(names)
        assert all(order.index(each) < order.index(name) for name in names for each in wanted[name])
