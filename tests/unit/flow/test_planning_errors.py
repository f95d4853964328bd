"""What may not start a task: everything that can be wrong before one runs."""

from collections.abc import Callable
from typing import Any

import pytest

import wove
from tests.support.executors import ScriptedExecutor
from tests.support.waiting import wove_threads
from wove import weave
from wove.errors import CircularDependencyError, OptionError, UnknownEnvironmentError, UnresolvedSignatureError


class Trap:
    """A weave whose other tasks write down that they ran."""

    def __init__(self, **options: Any) -> None:
        self.ran: list[str] = []
        self.weave = weave(**options)

        @self.weave.do
        def first() -> None:
            self.ran.append("first")

        @self.weave.do
        async def second() -> None:
            self.ran.append("second")

    def springs(self, error: type[BaseException], match: str) -> None:
        before = wove_threads()
        with pytest.raises(error, match=match), self.weave:
            pass
        assert self.ran == []
        assert wove_threads() == before
        assert len(self.weave.result) == 0


def test_an_unresolved_parameter_starts_nothing() -> None:
    trap = Trap()
    trap.weave.do(lambda frist: None)
    trap.springs(
        UnresolvedSignatureError, r"'lambda_1': nothing provides its parameter 'frist'. Did you mean 'first'\?"
    )


def test_a_circular_dependency_starts_nothing() -> None:
    trap = Trap()
    trap.weave.do(_named("a", lambda b: None))
    trap.weave.do(_named("b", lambda a: None))
    trap.springs(CircularDependencyError, "Circular dependency: a -> b -> a")


def test_an_unknown_environment_of_a_task_starts_nothing() -> None:
    trap = Trap()
    trap.weave.do(environment="defualt")(_named("task", lambda: None))
    trap.springs(
        NameError,
        r"Task 'task': no environment named 'defualt'. Did you mean 'default'\? Known environments: .*'default'",
    )


def test_an_unknown_environment_of_the_weave_is_a_name_error_when_it_is_created() -> None:
    with pytest.raises(UnknownEnvironmentError, match=r"no environment named 'nowhere'"):
        weave(environment="nowhere")


def test_a_misspelled_option_of_the_weave_starts_nothing() -> None:
    Trap(retires=3).springs(OptionError, r"no option is named 'retires', .* Did you mean 'retries'\?")


def test_a_bad_option_of_a_task_is_an_error_where_it_is_declared() -> None:
    trap = Trap()
    with pytest.raises(ValueError, match=r"@w.do on task 'task': timeout must be"):
        trap.weave.do(timeout=-5)(_named("task", lambda: None))
    assert trap.ran == []


@pytest.mark.usefixtures("configuration")
def test_an_environment_that_cannot_be_started_starts_nothing() -> None:
    executor = ScriptedExecutor()
    executor.start_failure = ConnectionError("no broker")
    wove.config(environments={"remote": {"executor": executor}})
    trap = Trap()
    trap.weave.do(environment="remote")(_named("task", lambda: None))
    with pytest.raises(ConnectionError, match="no broker"), trap.weave:
        pass
    assert trap.ran == []
    assert trap.weave.result.cancelled == {"first", "second", "task"}


def _named(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    function.__name__ = name
    return function
