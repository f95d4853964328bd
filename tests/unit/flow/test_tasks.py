"""What a task is made of: the name, parameters and kind of its callable."""

import functools
import math
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from wove.errors import OptionError
from wove.flow.tasks import UNMAPPED, TaskSpec, declare, is_async_callable, name_of, parameters_of


def plain(a: int, b: int = 2, *, c: int, d: int = 4) -> int:
    return a + b + c + d


async def coroutine(a: int) -> int:
    return a


async def generator(a: int) -> AsyncIterator[int]:
    yield a


class Caller:
    def __call__(self, a: int) -> int:
        return a

    def method(self, a: int) -> int:
        return a


class AsyncCaller:
    async def __call__(self, a: int) -> int:
        return a

    async def method(self, a: int) -> int:
        return a


@functools.wraps(plain)
def wrapping(*args: Any, **kwargs: Any) -> int:
    return plain(*args, **kwargs)


def wrapping_coroutine() -> Callable[..., Any]:
    @functools.wraps(coroutine)
    async def wrapper(*args: Any) -> int:
        return await coroutine(*args)

    return wrapper


# --- names ---


@pytest.mark.parametrize(
    ("function", "name"),
    [
        (plain, "plain"),
        (functools.partial(plain, 1), "plain"),
        (functools.partial(functools.partial(plain, 1), c=3), "plain"),
        (Caller().method, "method"),
        (Caller(), "Caller"),
        (lambda: None, "<lambda>"),
        (len, "len"),
        (wrapping, "plain"),
    ],
)
def test_a_callable_has_a_name(function: Callable[..., Any], name: str) -> None:
    assert name_of(function) == name


# --- parameters ---


@pytest.mark.parametrize("function", [plain, wrapping])
def test_parameters_are_known_with_those_that_have_no_default(function: Callable[..., Any]) -> None:
    parameters = parameters_of(function)
    assert parameters.names == ("a", "b", "c", "d")
    assert parameters.required == {"a", "c"}
    assert parameters.positional == 2


@pytest.mark.parametrize("function", [Caller(), Caller().method, AsyncCaller(), AsyncCaller().method])
def test_self_is_no_parameter(function: Callable[..., Any]) -> None:
    assert parameters_of(function).names == ("a",)


def test_what_a_partial_has_bound_is_no_parameter_any_more() -> None:
    assert parameters_of(functools.partial(plain, 1)).names == ("b", "c", "d")
    bound = parameters_of(functools.partial(plain, b=5))
    assert bound.names == ("a", "c", "d")
    assert bound.required == {"a", "c"}


def test_a_name_that_a_partial_of_a_partial_has_bound_is_not_bound_again() -> None:
    assert parameters_of(functools.partial(functools.partial(plain, c=1), d=2)).names == ("a", "b")


def test_collecting_parameters_take_nothing() -> None:
    assert parameters_of(lambda *args, a, **kwargs: None).names == ("a",)


def test_positional_only_parameters_are_known() -> None:
    assert parameters_of(math.sqrt).positional_only == ("x",)
    assert parameters_of(lambda a, /, b: None).positional_only == ("a",)


def test_a_callable_whose_signature_is_a_secret_is_refused_with_a_way_out() -> None:
    with pytest.raises(TypeError, match=r"The parameters of 'type' cannot be determined .* Wrap it in a lambda"):
        parameters_of(type)


# --- kinds ---


@pytest.mark.parametrize(
    "function",
    [coroutine, AsyncCaller(), AsyncCaller().method, functools.partial(coroutine, 1), wrapping_coroutine()],
    ids=lambda function: type(function).__name__,
)
def test_what_returns_a_coroutine_is_asynchronous(function: Callable[..., Any]) -> None:
    assert is_async_callable(function)


@pytest.mark.parametrize(
    "function",
    [plain, generator, Caller(), Caller().method, functools.partial(plain, 1), len, lambda: coroutine(1)],
    ids=lambda function: type(function).__name__,
)
def test_anything_else_is_synchronous(function: Callable[..., Any]) -> None:
    assert not is_async_callable(function)


# --- declarations ---


@pytest.mark.parametrize("source", [5, None, object(), plain])
def test_a_source_that_cannot_be_iterated_over_is_refused_at_once(source: object) -> None:
    with pytest.raises(OptionError, match="task 'a': a task is mapped over an iterable or over the name"):
        declare("a", lambda x: x, source, {})


@pytest.mark.parametrize("option", ["workers", "limit_per_minute"])
def test_an_option_of_maps_on_another_task_is_a_value_error_at_once(option: str) -> None:
    with pytest.raises(ValueError, match=f"@w.do on task 'a': {option} has a meaning on mapped tasks only"):
        declare("a", lambda: None, UNMAPPED, {option: 2})


def test_a_misspelled_option_is_refused_with_the_right_one() -> None:
    with pytest.raises(OptionError, match=r"@w.do on task 'a': no option named 'retrys'. Did you mean 'retries'?"):
        declare("a", lambda: None, UNMAPPED, {"retrys": 2})


@pytest.mark.parametrize("value", [float("nan"), -1, 0, "5", True])
def test_a_timeout_that_is_no_positive_number_is_a_value_error(value: object) -> None:
    with pytest.raises(ValueError, match="timeout must be a positive, finite number of seconds, or None, not"):
        declare("a", lambda: None, UNMAPPED, {"timeout": value})


def test_an_override_takes_the_options_and_the_source_that_it_leaves_unset_from_its_parent() -> None:
    parent = TaskSpec("a", lambda x: x, source=[1, 2], options={"retries": 2, "workers": 3})
    spec = declare("a", lambda x: -x, UNMAPPED, {"workers": 5}, parent=parent)
    assert spec.source == [1, 2]
    assert spec.options == {"retries": 2, "workers": 5}
    assert spec.function(1) == -1
