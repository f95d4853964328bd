"""The block: how tasks and initial values are declared, and what happens at its end."""

import asyncio
import functools
import threading
from collections.abc import AsyncIterator, Callable
from contextvars import ContextVar
from typing import Any

import pytest

from tests.support.waiting import SECONDS, wove_threads
from wove import Weave, weave
from wove.errors import OptionError, ReservedNameError, TaskStopped, UnresolvedSignatureError

request = ContextVar("request", default="none")


# --- the end of the block ---


def test_nothing_runs_before_the_block_ends() -> None:
    ran: list[str] = []
    with weave() as w:

        @w.do
        def a() -> None:
            ran.append("a")

        assert ran == []
    assert ran == ["a"]


async def test_nothing_runs_before_an_asynchronous_block_ends() -> None:
    ran: list[str] = []
    async with weave() as w:

        @w.do
        async def a() -> None:
            ran.append("a")

        await asyncio.sleep(0)
        assert ran == []
    assert ran == ["a"]


def test_an_exception_of_the_block_leaves_it_unchanged_and_runs_nothing() -> None:
    ran: list[str] = []
    error = ValueError("mine")
    w = weave()

    def block() -> None:
        with w:
            w.do(lambda: ran.append("a"))
            raise error

    with pytest.raises(ValueError, match="mine") as caught:
        block()
    assert caught.value is error
    assert not hasattr(error, "__notes__")
    assert error.__cause__ is None
    assert error.__context__ is None
    assert ran == []
    assert len(w.result) == 0


async def test_an_exception_of_an_asynchronous_block_leaves_it_unchanged_and_runs_nothing() -> None:
    ran: list[str] = []
    error = ValueError("mine")

    async def block() -> None:
        async with weave() as w:
            w.do(lambda: ran.append("a"))
            raise error

    with pytest.raises(ValueError, match="mine") as caught:
        await block()
    assert caught.value is error
    assert not hasattr(error, "__notes__")
    assert ran == []


def test_an_exception_of_a_background_block_starts_no_background() -> None:
    before = wove_threads()

    def block() -> None:
        with weave(background=True) as w:
            w.do(lambda: None)
            raise ValueError("mine")

    with pytest.raises(ValueError, match="mine"):
        block()
    assert wove_threads() == before


def test_a_return_leaves_the_block_and_its_tasks_run() -> None:
    def run() -> Any:
        with weave() as w:
            w.do(seven)
            return w
        raise AssertionError

    assert run().result.seven == 7


def seven() -> int:
    return 7


def test_an_empty_weave_makes_neither_a_thread_nor_a_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[object] = []
    monkeypatch.setattr(asyncio, "new_event_loop", lambda: made.append("loop"))
    monkeypatch.setattr(threading.Thread, "start", lambda thread: made.append(thread))
    with weave(base=1) as w:
        pass
    assert made == []
    assert len(w.result) == 0
    assert w.result.final is None


async def test_an_empty_weave_lets_nothing_else_run_in_the_loop() -> None:
    ran: list[str] = []
    asyncio.get_running_loop().call_soon(ran.append, "other")
    async with weave():
        pass
    assert ran == []


# --- forms of a task ---


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


# --- initial values ---


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


# --- options of the weave ---


def test_a_misspelled_option_of_the_weave_is_refused_and_nothing_runs() -> None:
    ran: list[str] = []
    w = weave(max_worker=2)
    w.do(lambda: ran.append("a"))
    with pytest.raises(OptionError, match=r"no option is named 'max_worker', .* Did you mean 'max_workers'\?"), w:
        pass
    assert ran == []


def test_an_initial_value_that_looks_like_an_option_is_none_if_a_task_takes_it() -> None:
    with weave(retry=2) as w:

        @w.do
        def a(retry: int) -> int:
            return retry

    assert w.result.a == 2


@pytest.mark.parametrize(
    "options",
    [
        {"max_workers": 0},
        {"max_workers": "4"},
        {"max_pending": 0},
        {"error_mode": "loud"},
        {"debug": 1},
        {"background": "yes"},
        {"timeout": float("nan")},
        {"timeout": -1},
        {"retries": -1},
        {"retries": 1.5},
        {"workers": 0},
        {"limit_per_minute": 0},
        {"delivery_timeout": float("inf")},
        {"delivery_cancel_mode": "maybe"},
        {"delivery_orphan_policy": "forget"},
        {"environment": ""},
    ],
    ids=lambda options: next(iter(options)) + "=" + repr(next(iter(options.values()))),
)
def test_a_bad_value_of_an_option_is_a_value_error_when_the_weave_is_created(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=rf"weave\(\): {next(iter(options))} must be "):
        weave(**options)


@pytest.mark.parametrize("option", ["fork", "on_done"])
def test_options_of_the_background_need_a_background(option: str) -> None:
    with pytest.raises(OptionError, match=rf"weave\(\): {option} has a meaning with background=True only"):
        weave(**{option: True if option == "fork" else print})  # type: ignore[arg-type]


def test_a_parent_that_is_no_weave_class_is_a_type_error() -> None:
    with pytest.raises(TypeError, match=r"weave\(parent\): a subclass of wove.Weave is expected, not 5"):
        weave(5)  # type: ignore[arg-type]


def test_the_parent_may_be_given_by_name() -> None:
    class Parent(Weave):
        @Weave.do
        def one(self) -> int:
            return 1

    with weave(parent=Parent) as w:
        pass
    assert w.result.one == 1


# --- the plan ---


def test_the_execution_plan_can_be_read_in_the_block_and_after_it() -> None:
    with weave(base=1) as w:

        @w.do
        def a(base: int) -> int:
            return base

        @w.do
        def b(a: int) -> int:
            return a

        assert w.execution_plan["sorted_tasks"] == ["a", "b"]

        @w.do("numbers")
        def c(number: int, a: int) -> int:
            return number + a

        with pytest.raises(UnresolvedSignatureError):
            _ = w.execution_plan

        @w.do
        def numbers() -> list[int]:
            return [1]

    assert w.execution_plan == {
        "dependencies": {"a": set(), "b": {"a"}, "c": {"a", "numbers"}, "numbers": set()},
        "dependents": {"a": {"b", "c"}, "b": set(), "c": set(), "numbers": {"c"}},
        "tiers": [["a", "numbers"], ["b", "c"]],
        "sorted_tasks": ["a", "numbers", "b", "c"],
    }


# --- weaves in weaves, threads and loops ---


def test_a_weave_in_a_synchronous_task() -> None:
    with weave(base=2) as outer:

        @outer.do([1, 2, 3])
        def powers(exponent: int, base: int) -> int:
            with weave(base=base, exponent=exponent) as inner:

                @inner.do
                def power(base: int, exponent: int) -> int:
                    return int(base**exponent)

            return int(inner.result.power)

    assert outer.result.powers == [2, 4, 8]


def test_an_asynchronous_weave_in_an_asynchronous_task() -> None:
    with weave() as outer:

        @outer.do(range(5))
        async def doubled(number: int) -> int:
            async with weave(number=number) as inner:

                @inner.do
                async def double(number: int) -> int:
                    await asyncio.sleep(0)
                    return number * 2

            return int(inner.result.double)

    assert outer.result.doubled == [0, 2, 4, 6, 8]


def test_a_blocking_weave_in_an_asynchronous_task() -> None:
    with weave() as outer:

        @outer.do
        async def seven_of_seven() -> int:
            with weave() as inner:
                inner.do(seven)
            return int(inner.result.seven)

    assert outer.result.seven_of_seven == 7


def test_a_failure_of_an_inner_weave_is_one_of_the_task_that_reads_it() -> None:
    with weave() as outer:

        @outer.do
        def task() -> Any:
            with weave() as inner:

                @inner.do
                def fails() -> None:
                    raise LookupError("inner")

            return inner.result.fails

    with pytest.raises(LookupError, match="inner") as caught:
        _ = outer.result.task
    assert caught.value.__notes__ == [
        "Raised in task 'fails', environment 'default'.",
        "Raised in task 'task', environment 'default'.",
    ]


def test_a_weave_in_a_synchronous_task_is_stopped_together_with_the_task() -> None:
    happened: list[str] = []
    inner_runs = threading.Event()
    with weave() as outer:

        @outer.do
        def task() -> None:
            try:
                with weave() as inner:

                    @inner.do
                    async def slow() -> None:
                        inner_runs.set()
                        try:
                            await asyncio.sleep(SECONDS)
                        finally:
                            happened.append("inner task cancelled")

            except TaskStopped:
                happened.append("inner weave stopped")
                raise

        @outer.do
        async def fails() -> None:
            await asyncio.to_thread(inner_runs.wait, SECONDS)
            raise LookupError

    assert happened == ["inner task cancelled", "inner weave stopped"]
    assert outer.result.cancelled == {"task"}
    assert len(outer.result.failures) == 1


def test_a_background_weave_of_a_task_is_not_stopped_together_with_the_task() -> None:
    done, go_on = threading.Event(), threading.Event()
    with weave() as outer:

        @outer.do
        def task() -> None:
            with weave(background=True, on_done=lambda result: done.set()) as inner:
                inner.do(lambda: go_on.wait(SECONDS))
            raise LookupError

    assert isinstance(outer.result.exception, LookupError)
    go_on.set()
    assert done.wait(SECONDS)


def test_weaves_in_many_threads_do_not_disturb_each_other() -> None:
    results: dict[int, list[int]] = {}

    def run(number: int) -> None:
        with weave(number=number) as w:

            @w.do
            async def base(number: int) -> int:
                await asyncio.sleep(0)
                return number * 100

            @w.do(range(20))
            def items(item: int, base: int) -> int:
                return base + item

        results[number] = w.result.items

    threads = [threading.Thread(target=run, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == {number: [number * 100 + item for item in range(20)] for number in range(8)}


async def test_many_asynchronous_weaves_share_one_loop() -> None:
    async def run(number: int) -> int:
        async with weave(number=number) as w:

            @w.do
            async def double(number: int) -> int:
                await asyncio.sleep(0)
                return number * 2

            @w.do
            def plus_one(double: int) -> int:
                return double + 1

        return int(w.result.plus_one)

    assert await asyncio.gather(*map(run, range(20))) == [number * 2 + 1 for number in range(20)]


async def test_a_blocking_weave_works_where_a_loop_runs() -> None:
    loop = asyncio.get_running_loop()
    with weave() as w:

        @w.do
        async def other_loop() -> bool:
            return asyncio.get_running_loop() is not loop

        @w.do
        def here() -> str:
            return threading.current_thread().name

    assert w.result.other_loop
    assert w.result.here.startswith("wove-task")
    assert asyncio.get_running_loop() is loop


async def test_a_blocking_weave_in_a_running_loop_sees_the_caller_s_context_variables() -> None:
    request.set("caller's")
    with weave() as w:

        @w.do
        async def in_loop() -> str:
            return request.get()

        @w.do
        def in_thread() -> str:
            return request.get()

    assert list(w.result) == ["caller's", "caller's"]


async def test_a_failure_reaches_the_caller_of_a_blocking_weave_in_a_running_loop() -> None:
    error = LookupError("mine")
    with pytest.raises(LookupError) as caught, weave(error_mode="exit") as w:

        @w.do
        async def fails() -> None:
            raise error

    assert caught.value is error


async def test_an_asynchronous_weave_leaves_the_loop_free_while_a_synchronous_task_blocks() -> None:
    other_ran = threading.Event()
    asyncio.get_running_loop().call_soon(asyncio.get_running_loop().call_soon, other_ran.set)
    async with weave() as w:

        @w.do
        def waits_for_the_loop() -> bool:
            return other_ran.wait(10)

    assert w.result.waits_for_the_loop
