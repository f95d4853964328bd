"""Initial values: how tasks get them, and which names they and tasks may have."""

from typing import Any

import pytest

from tests.support.tasks import seven
from wove import weave
from wove.errors import ReservedNameError

# --- values ---


def test_initial_values_are_parameters_and_data_is_a_dict_of_all_of_them() -> None:
    with weave(first=1, second="two") as w:

        @w.do
        def a(first: int, data: dict[str, Any]) -> tuple[int, dict[str, Any]]:
            return first, data

    assert w.result.a == (1, {"first": 1, "second": "two"})


def test_data_is_empty_without_initial_values() -> None:
    with weave() as w:

        @w.do
        def a(data: dict[str, Any]) -> dict[str, Any]:
            return data

    assert w.result.a == {}


def test_a_method_may_hand_over_its_object() -> None:
    with weave(self="the object") as w:
        w.do(lambda self: self)
    assert w.result.final == "the object"


def test_each_task_has_a_data_dict_of_its_own() -> None:
    with weave(x=1) as w:

        @w.do
        def a(data: dict[str, Any]) -> None:
            data.clear()

        @w.do
        def b(a: None, data: dict[str, Any]) -> dict[str, Any]:
            return data

    assert w.result.b == {"x": 1}


def test_data_can_be_mapped_over() -> None:
    with weave(x=1, y=2) as w:

        @w.do("data")
        def a(name: str, data: dict[str, int]) -> int:
            return data[name] * 10

    assert w.result.a == [10, 20]


def test_initial_values_are_handed_over_as_they_are() -> None:
    value = object()
    with weave(value=value) as w:

        @w.do
        def a(value: object) -> object:
            return value

    assert w.result.a is value


# --- names ---


@pytest.mark.parametrize("name", ["final", "exception", "cancelled", "timings", "failures", "data"])
def test_an_initial_value_of_the_name_of_a_result_attribute_is_a_name_error_at_once(name: str) -> None:
    with pytest.raises(NameError, match=rf"weave\({name}=...\): the name '{name}' is .*[Cc]hoose another name"):
        weave(**{name: 1})  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["final", "exception", "cancelled", "timings", "data"])
def test_a_task_of_the_name_of_a_result_attribute_is_a_name_error_at_once(name: str) -> None:
    def function() -> None: ...

    function.__name__ = name
    w = weave()
    with pytest.raises(ReservedNameError, match=f"Task '{name}': the name '{name}' is "):
        w.do(function)


@pytest.mark.parametrize("name", ["fill", "item", "items", "keys", "read", "state", "tasks", "results", "error"])
def test_ordinary_words_are_names_of_tasks(name: str) -> None:
    def function() -> str:
        return name

    function.__name__ = name
    with weave() as w:
        w.do(function)
    assert getattr(w.result, name) == name


def test_a_task_and_an_initial_value_of_one_name_are_a_name_error() -> None:
    w = weave(seven=7)
    with pytest.raises(NameError, match="Task 'seven': the weave has an initial value of that name"):
        w.do(seven)


def test_two_tasks_of_one_name_are_a_name_error() -> None:
    w = weave()
    w.do(seven)
    with pytest.raises(NameError, match="Task 'seven' is already declared in this weave"):
        w.do(seven)
