"""What can be declared as a task, where, and what its parameters get."""

import functools
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from tests.support.tasks import seven
from wove import weave


class Doubler:
    """A callable object with methods."""

    def __call__(self, base: int) -> int:
        return base * 2

    def method(self, base: int) -> int:
        return base * 3

    async def coroutine_method(self, base: int) -> int:
        return base * 4


class AsyncDoubler:
    async def __call__(self, base: int) -> int:
        return base * 5


def times(factor: int, base: int) -> int:
    return factor * base


async def times_async(factor: int, base: int) -> int:
    return factor * base


@pytest.mark.parametrize(
    ("function", "name", "value"),
    [
        (Doubler(), "Doubler", 20),
        (Doubler().method, "method", 30),
        (Doubler().coroutine_method, "coroutine_method", 40),
        (AsyncDoubler(), "AsyncDoubler", 50),
        (functools.partial(times, 6), "times", 60),
        (functools.partial(times_async, 7), "times_async", 70),
        (functools.partial(times, factor=8), "times", 80),
        (lambda base: base * 9, "lambda_1", 90),
        (lambda base: times_async(10, base), "lambda_1", 100),
        (lambda: 11, "lambda_1", 11),
    ],
)
def test_any_callable_is_a_task(function: Callable[..., Any], name: str, value: int) -> None:
    with weave(base=10) as w:
        w.do(function)
    assert w.result[name] == value


def test_def_and_async_def_are_tasks_and_depend_on_each_other() -> None:
    with weave() as w:

        @w.do
        def one() -> int:
            return 1

        @w.do
        async def two(one: int) -> int:
            return one + 1

        @w.do
        def three(one: int, two: int) -> int:
            return one + two

    assert list(w.result) == [1, 2, 3]


def test_a_declared_function_stays_a_plain_function() -> None:
    with weave() as w:

        @w.do
        def double(number: int = 4) -> int:
            return number * 2

        @w.do(retries=1)
        def triple(number: int = 4) -> int:
            return number * 3

        @w.do([1, 2])
        def square(number: int) -> int:
            return number**2

        assert (double(1), triple(1), square(3)) == (2, 3, 9)
    assert list(w.result) == [8, 12, [1, 4]]


def test_lambdas_are_numbered() -> None:
    with weave() as w:
        w.do(lambda: 1)
        w.do([1, 2])(lambda number: number * 2)
        w.do(lambda lambda_1, lambda_2: (lambda_1, lambda_2))
    assert w.result.lambda_3 == (1, [2, 4])


def test_a_lambda_takes_no_name_that_a_task_or_an_initial_value_has() -> None:
    with weave(lambda_1="value") as w:

        @w.do
        def lambda_2() -> str:
            return "task"

        w.do(lambda: "lambda")
    assert list(w.result) == ["task", "lambda"]
    assert w.result.lambda_3 == "lambda"


@pytest.mark.parametrize("declared", [5, "numbers", None])
def test_what_cannot_be_called_is_no_task(declared: Any) -> None:
    with pytest.raises(TypeError, match=rf"@w\.do: a task is a function or another callable, not {declared!r}"):
        weave().do([1, 2])(declared)


def test_a_task_that_is_declared_after_the_block_is_refused() -> None:
    with weave() as w:
        w.do(lambda: 1)
    with pytest.raises(
        RuntimeError, match=r"Task 'late' would never run: the block .* has ended\. .* inside the block"
    ):

        @w.do
        def late(lambda_1: int) -> int:
            return lambda_1

    assert list(w.result) == [1]


def test_a_task_that_is_declared_by_a_running_task_is_refused() -> None:
    with weave() as w:

        @w.do
        def outer() -> None:
            w.do(lambda: 1)

    with pytest.raises(RuntimeError, match=r"Task '<lambda>' would never run: .* merge\(\)"):
        _ = w.result.outer


def test_tasks_may_be_declared_before_the_block() -> None:
    w = weave()
    w.do(lambda: 1)
    with w:
        w.do(lambda lambda_1: lambda_1 + 1)
    assert list(w.result) == [1, 2]


def test_a_function_may_be_declared_by_a_call() -> None:
    with weave() as w:
        w.do(retries=1)(seven)
    assert w.result.seven == 7


def test_a_default_makes_a_dependency_optional() -> None:
    with weave(there=1) as w:

        @w.do
        def a(there: int = 10, missing: int = 20) -> tuple[int, int]:
            return there, missing

    assert w.result.a == (1, 20)


def test_a_keyword_only_parameter_is_provided_too() -> None:
    with weave(base=1) as w:

        @w.do
        def a(*, base: int) -> int:
            return base

    assert w.result.a == 1


def test_a_builtin_is_a_task() -> None:
    with weave() as w:

        @w.do
        def obj() -> list[int]:
            return [1, 2, 3]

        w.do([[3, 1], [2]])(sorted)
        w.do(lambda obj: len(obj))
    assert w.result.sorted == [[1, 3], [2]]
    assert w.result.lambda_1 == 3


def test_an_asynchronous_generator_function_is_a_task_whose_value_can_be_mapped_over() -> None:
    with weave() as w:

        @w.do
        async def numbers() -> AsyncIterator[int]:
            yield 1
            yield 2

        @w.do("numbers")
        def double(number: int) -> int:
            return number * 2

    assert w.result.double == [2, 4]


def test_an_enum_or_a_class_that_can_be_iterated_over_is_a_source_and_not_a_task() -> None:
    import enum

    class Color(enum.Enum):
        RED = 1
        BLUE = 2

    with weave() as w:

        @w.do(Color)
        def name(color: Color) -> str:
            return color.name

    assert w.result.name == ["RED", "BLUE"]
