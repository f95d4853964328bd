"""`Weave` classes: tasks declared once, as methods."""

import asyncio
from typing import Any

import pytest

from wove import Weave, serialization, weave
from wove.errors import OptionError, ReservedNameError
from wove.flow.template import tasks_of


class Report(Weave):
    """Used by most tests."""

    factor = 10

    @Weave.do
    def account(self, account_id: int) -> int:
        return account_id * self.factor

    @Weave.do([1, 2, 3], retries=2, workers=2)
    def rows(self, number: int, account: int) -> int:
        return account + number

    @Weave.do
    async def total(self, rows: list[int]) -> int:
        await asyncio.sleep(0)
        return sum(rows)


class Doubled(Report):
    factor = 20

    @Weave.do
    def title(self, total: int) -> str:
        return f"total {total}"


def test_the_methods_of_a_class_are_the_tasks_of_a_weave() -> None:
    with weave(Report, account_id=1) as w:
        pass
    assert list(w.result) == [10, [11, 12, 13], 36]


def test_self_is_no_dependency() -> None:
    with weave(Report, account_id=1) as w:
        assert w.execution_plan["dependencies"] == {"account": set(), "rows": {"account"}, "total": {"rows"}}


def test_tasks_of_the_block_and_of_the_class_depend_on_each_other() -> None:
    with weave(Report) as w:

        @w.do
        def account_id() -> int:
            return 2

        @w.do
        def line(total: int) -> str:
            return f"= {total}"

    assert w.result.line == "= 66"


def test_a_subclass_inherits_tasks_and_adds_some() -> None:
    with weave(Doubled, account_id=1) as w:
        pass
    assert [name for name in ("account", "rows", "total", "title") if name in w.result] == list(
        w.execution_plan["dependencies"]
    )
    assert w.result.title == "total 66"


def test_a_subclass_overrides_a_task_and_keeps_the_options_that_it_does_not_set() -> None:
    class Retried(Report):
        @Weave.do(retries=5)
        def rows(self, number: int) -> int:  # type: ignore[override]
            return -number

    specs = {spec.name: spec for spec in tasks_of(Retried)}
    assert specs["rows"].options == {"retries": 5, "workers": 2}
    with weave(Retried, account_id=1) as w:
        pass
    assert w.result.rows == [-1, -2, -3]


def test_a_plain_method_overrides_a_task_and_stays_a_task_with_its_options() -> None:
    class Plain(Report):
        def rows(self, number: int) -> int:  # type: ignore[override]
            return super().rows(number, 100)

    specs = {spec.name: spec for spec in tasks_of(Plain)}
    assert specs["rows"].options == {"retries": 2, "workers": 2}
    with weave(Plain, account_id=1) as w:
        pass
    assert w.result.rows == [101, 102, 103]


def test_the_order_of_definition_is_that_of_the_base_classes_first() -> None:
    assert [spec.name for spec in tasks_of(Doubled)] == ["account", "rows", "total", "title"]


def test_several_base_classes_add_up() -> None:
    class Footer(Weave):
        @Weave.do
        def footer(self, total: int) -> str:
            return f"end of {total}"

    class Both(Report, Footer):
        pass

    with weave(Both, account_id=1) as w:
        pass
    assert w.result.footer == "end of 36"


def test_a_task_of_the_block_overrides_one_of_the_class_and_takes_the_options_it_leaves_unset() -> None:
    attempts: list[int] = []
    with weave(Report, account_id=1) as w:

        @w.do
        def rows(number: int) -> int:
            attempts.append(number)
            if attempts.count(number) < 3:
                raise ValueError(number)
            return number * 1000

    assert w.result.rows == [1000, 2000, 3000]
    assert sorted(attempts) == [1, 1, 1, 2, 2, 2, 3, 3, 3]


def test_an_override_in_the_block_may_set_options_of_the_inherited_map() -> None:
    with weave(Report, account_id=1) as w:

        @w.do(workers=1, retries=0)
        def rows(number: int) -> int:
            return number

    assert w.result.rows == [1, 2, 3]


def test_an_override_in_the_block_may_map_over_something_else() -> None:
    with weave(Report, account_id=1) as w:

        @w.do([7])
        def rows(number: int, account: int) -> int:
            return number + account

    assert w.result.rows == [17]
    assert list(w.result) == [10, [17], 17]


def test_a_task_is_overridden_in_the_block_only_once() -> None:
    w = weave(Report, account_id=1)
    w.do(Report.account)
    with pytest.raises(ReservedNameError, match="Task 'account' is already declared"):
        w.do(Report.account)


def test_only_a_weave_makes_instances() -> None:
    with pytest.raises(TypeError, match=r"Report is run by weave\(Report\), not instantiated"):
        Report()


def test_methods_that_are_no_tasks_are_not_run() -> None:
    class Helped(Weave):
        @Weave.do
        def a(self) -> int:
            return self.helper()

        def helper(self) -> int:
            return 5

    with weave(Helped) as w:
        pass
    assert w.result.a == 5
    assert len(w.result) == 1


def test_each_weave_has_an_instance_of_its_own() -> None:
    class Counting(Weave):
        count = 0

        @Weave.do
        def a(self) -> int:
            self.count += 1
            return self.count

        @Weave.do
        def b(self, a: int) -> int:
            self.count += 1
            return self.count

    for _ in range(2):
        with weave(Counting) as w:
            pass
        assert list(w.result) == [1, 2]


@pytest.mark.parametrize("outermost", ["do", "wrapper"])
def test_static_and_class_methods_are_tasks_in_either_order_of_the_decorators(outermost: str) -> None:
    if outermost == "do":

        class Static(Weave):
            @Weave.do
            @staticmethod
            def a(base: int) -> int:
                return base

            @Weave.do(retries=1)
            @classmethod
            def b(cls, a: int) -> tuple[str, int]:
                return cls.__name__, a
    else:

        class Static(Weave):  # type: ignore[no-redef]
            @staticmethod
            @Weave.do
            def a(base: int) -> int:
                return base

            @classmethod
            @Weave.do(retries=1)
            def b(cls, a: int) -> tuple[str, int]:
                return cls.__name__, a

    with weave(Static, base=1) as w:
        pass
    assert list(w.result) == [1, ("Static", 1)]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"retires": 2}, r"no option named 'retires'. Did you mean 'retries'\?"),
        ({"timeout": "30"}, "timeout must be a positive, finite number of seconds, or None, not '30'"),
    ],
)
def test_a_wrong_option_of_a_method_is_refused_where_it_stands(options: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=rf"^@Weave\.do on task 'a': {message}"):

        class Wrong(Weave):
            @Weave.do(**options)
            def a(self) -> None: ...


def test_an_option_of_maps_on_a_method_that_is_not_mapped_is_refused_when_the_weave_is_created() -> None:
    class Unmapped(Weave):
        @Weave.do(workers=2)
        def a(self) -> None: ...

    class Inheriting(Unmapped): ...

    with pytest.raises(OptionError, match=r"^@Weave\.do on task 'a' of Unmapped: workers has a meaning on mapped"):
        weave(Inheriting)


def test_a_method_that_is_mapped_over_nothing_to_iterate_over_is_refused() -> None:
    class Wrong(Weave):
        @Weave.do(5)
        def a(self, item: int) -> None: ...

    with pytest.raises(OptionError, match=r"of Wrong: .* not over 'int'\. Write @Weave\.do\(\[\.\.\.\]\)"):
        weave(Wrong)


def test_each_weave_initializes_an_instance_of_its_own() -> None:
    class Counting(Weave):
        def __init__(self, start: int = 5) -> None:
            self.counted = [start]

        @Weave.do
        def a(self) -> list[int]:
            self.counted.append(1)
            return self.counted

    results = []
    for _ in range(2):
        with weave(Counting) as w:
            pass
        results.append(w.result.a)
    assert results == [[5, 1], [5, 1]]


def test_a_class_whose_init_needs_arguments_is_refused_when_the_weave_is_created() -> None:
    class Demanding(Weave):
        def __init__(self, url: str) -> None: ...

        @Weave.do
        def a(self) -> None: ...

    with pytest.raises(TypeError, match=r"^weave\(Demanding\): nobody can pass url to its __init__\. Give .* defaults"):
        weave(Demanding)


def test_a_method_of_the_name_of_an_initial_value_is_a_name_error() -> None:
    with pytest.raises(NameError, match=r"weave\(account=...\): Report has a task of that name"):
        weave(Report, account=1)


def test_a_method_of_the_name_of_a_result_attribute_is_a_name_error() -> None:
    class Reserved(Weave):
        @Weave.do
        def final(self) -> None: ...

    with pytest.raises(NameError, match="Task 'final' of Reserved: the name 'final' is an attribute of the result"):
        weave(Reserved)


def test_a_task_takes_its_instance_along_to_another_process() -> None:
    spec = tasks_of(Report)[0]
    spec.function.__self__.factor = 7  # type: ignore[attr-defined]
    copy: Any = serialization.loads(serialization.dumps(spec.function, what="a task"), what="a task")
    assert copy(3) == 21
