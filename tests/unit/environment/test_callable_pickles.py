"""Pickling a function once for many runs, but never an old state of it."""

import json
import math
import pickle
from collections.abc import Callable
from functools import partial
from types import FunctionType
from typing import Any

import cloudpickle
import pytest

from wove.environment.callable_pickles import CallablePickles, PickledCallable
from wove.errors import SerializationError

LIMIT = 3
NAMES: list[str] = []


def importable(number: int) -> int:
    return number + LIMIT


def in_main(function: Callable[..., Any]) -> Callable[..., Any]:
    """Make a function look as if it had been written in the program's own file, from where it is sent by value."""
    assert isinstance(function, FunctionType)
    function.__module__ = "__main__"
    return function


def get(pickles: CallablePickles, function: Callable[..., Any]) -> PickledCallable:
    return pickles.get(function, what="the callable of task 'test'")


def call(pickled: PickledCallable, *args: object) -> object:
    return pickle.loads(pickled.pickle)(*args)


def test_an_importable_function_is_pickled_once() -> None:
    pickles = CallablePickles()
    first = get(pickles, importable)
    assert get(pickles, importable) is first
    assert first.reusable
    assert call(first, 4) == 7


def test_a_function_over_constants_is_pickled_once() -> None:
    factor, label = 3, "times"
    helper = partial  # A class that can be imported.

    @in_main
    def multiply(number: int, plus: int = 2) -> object:
        return helper, math.floor(number * factor), label, plus, LIMIT, json.dumps

    pickles = CallablePickles()
    first = get(pickles, multiply)
    assert get(pickles, multiply) is first
    assert first.reusable


def test_a_helper_function_that_is_sent_along_counts_too() -> None:
    offset = 1

    @in_main
    def helper(number: int) -> int:
        return number + offset

    @in_main
    def outer(number: int) -> object:
        return helper(number)

    pickles = CallablePickles()
    before = get(pickles, outer)
    assert get(pickles, outer) is before
    offset = 10
    assert call(get(pickles, outer), 1) == 11


def test_a_function_that_calls_itself_can_be_kept() -> None:
    @in_main
    def count_down(number: int) -> int:
        return 0 if number == 0 else count_down(number - 1)

    pickles = CallablePickles()
    assert get(pickles, count_down) is get(pickles, count_down)


def test_a_closure_variable_that_is_assigned_anew_is_noticed() -> None:
    turn = 1

    @in_main
    def current() -> int:
        return turn

    pickles = CallablePickles()
    assert call(get(pickles, current)) == 1
    turn = 2
    assert call(get(pickles, current)) == 2


def test_a_global_variable_that_is_assigned_anew_is_noticed() -> None:
    variables: dict[str, Any] = {"__name__": "__main__"}
    exec("level = 1\ndef current():\n    return [level for _ in range(1)]", variables)
    pickles = CallablePickles()
    assert call(get(pickles, variables["current"])) == [1]
    variables["level"] = 2
    assert call(get(pickles, variables["current"])) == [2]


def test_a_global_variable_that_is_new_is_noticed() -> None:
    variables: dict[str, Any] = {"__name__": "__main__"}
    exec("def current():\n    return max(2, 3)", variables)
    pickles = CallablePickles()
    assert call(get(pickles, variables["current"])) == 3
    variables["max"] = min
    assert call(get(pickles, variables["current"])) == 2


@pytest.mark.parametrize("captured", [[], {}, {1}, bytearray(), ([],), CallablePickles(), (1, (2, [3]))])
def test_what_may_change_inside_is_pickled_anew_each_time(captured: object) -> None:
    @in_main
    def use() -> object:
        return captured

    pickles = CallablePickles()
    pickled = get(pickles, use)
    assert not pickled.reusable
    assert get(pickles, use) is not pickled


def test_a_list_that_grows_between_two_runs_arrives_as_it_is_then() -> None:
    names: list[str] = []

    @in_main
    def current() -> list[str]:
        return names

    pickles = CallablePickles()
    assert call(get(pickles, current)) == []
    names.append("Ada")
    assert call(get(pickles, current)) == ["Ada"]


def test_a_default_that_may_change_is_pickled_anew() -> None:
    @in_main
    def collect(into: list[int] = []) -> list[int]:  # noqa: B006
        return into

    assert not get(CallablePickles(), collect).reusable


def test_a_function_with_attributes_is_pickled_anew() -> None:
    @in_main
    def tagged() -> None: ...

    tagged.tag = []  # type: ignore[attr-defined]
    assert not get(CallablePickles(), tagged).reusable


def test_new_code_in_the_same_function_is_noticed() -> None:
    @in_main
    def current() -> int:
        return 1

    @in_main
    def other() -> int:
        return 2

    pickles = CallablePickles()
    assert call(get(pickles, current)) == 1
    assert isinstance(current, FunctionType)
    assert isinstance(other, FunctionType)
    current.__code__ = other.__code__
    assert call(get(pickles, current)) == 2


def test_an_importable_function_that_was_replaced_is_sent_by_value(monkeypatch: pytest.MonkeyPatch) -> None:
    pickles = CallablePickles()
    original = importable
    by_name = get(pickles, original)
    monkeypatch.setitem(globals(), "importable", lambda number: 0)
    assert get(pickles, original).pickle != by_name.pickle
    assert call(get(pickles, original), 4) == 7


def test_a_module_that_the_program_wants_by_value_is_never_kept() -> None:
    import tests.unit.environment.test_callable_pickles as here

    pickles = CallablePickles()
    get(pickles, here.importable)
    cloudpickle.register_pickle_by_value(here)
    try:
        assert not get(pickles, here.importable).reusable
    finally:
        cloudpickle.unregister_pickle_by_value(here)


class Adder:
    def __init__(self, amount: int) -> None:
        self.amount = amount

    def __call__(self, number: int) -> int:
        return number + self.amount


@pytest.mark.parametrize("function", [Adder(2), partial(importable), Adder(2).__call__])
def test_callable_objects_are_pickled_anew(function: Callable[..., Any]) -> None:
    pickled = get(CallablePickles(), function)
    assert not pickled.reusable
    assert call(pickled, 1) in (3, 4)


def test_a_large_function_is_not_kept() -> None:
    table = b"x" * 200_000

    @in_main
    def use() -> int:
        return len(table)

    assert not get(CallablePickles(), use).reusable


def test_the_number_of_kept_functions_is_bounded() -> None:
    pickles = CallablePickles()

    def make(number: int) -> Callable[..., Any]:
        return in_main(lambda: number)

    functions = [make(number) for number in range(200)]
    for number, function in enumerate(functions):
        assert call(get(pickles, function)) == number
    assert get(pickles, functions[-1]) is get(pickles, functions[-1])
    assert [call(get(pickles, function)) for function in functions] == list(range(200))


def test_what_cannot_be_pickled_is_named() -> None:
    import threading

    lock = threading.Lock()

    @in_main
    def use() -> object:
        return lock

    with pytest.raises(SerializationError, match=r"the callable of task 'test'.*lock"):
        get(CallablePickles(), use)


async def coroutine_function() -> None: ...


def test_coroutine_functions_are_told_apart() -> None:
    pickles = CallablePickles()
    for _ in range(2):
        assert pickles.is_coroutine(coroutine_function)
        assert not pickles.is_coroutine(importable)
        get(pickles, coroutine_function)
        get(pickles, importable)
