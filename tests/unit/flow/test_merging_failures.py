"""What a merge raises, where it can be caught, and what it says of its origin."""

import threading
from collections.abc import Callable
from typing import Any

import pytest

from tests.support.merges import both_places, in_task
from tests.support.tasks import double
from tests.support.waiting import SECONDS
from wove import merge

pytestmark = pytest.mark.usefixtures("nothing_is_left")


def test_what_cannot_be_iterated_over_is_a_type_error() -> None:
    with pytest.raises(TypeError, match=r"merge\(double\): 'int' cannot be iterated over"):
        in_task(lambda: merge(double, 5))  # type: ignore[arg-type]


@both_places
@pytest.mark.parametrize("kind", [LookupError, SystemExit, KeyboardInterrupt, BaseException])
def test_an_exception_can_be_caught_where_the_merge_is(kind: type[BaseException], asynchronous: bool) -> None:
    error = kind("merged")

    def fail(_: int = 0) -> None:
        raise error

    async def fail_async(_: int = 0) -> None:
        raise error

    def catch(merged: Callable[[], Any]) -> BaseException | None:
        try:
            merged()
        except BaseException as caught:
            return caught
        return None

    async def catch_async(merged: Callable[[], Any]) -> BaseException | None:
        try:
            await merged()
        except BaseException as caught:
            return caught
        return None

    for function in (fail, fail_async):
        for arguments in ((), ([1],)):
            caught = catch_async if asynchronous else catch
            seen = in_task(
                lambda caught=caught, function=function, arguments=arguments: caught(  # type: ignore[misc]
                    lambda: merge(function, *arguments)
                ),
                asynchronous=asynchronous,
            )
            assert seen is error


def test_stop_iteration_can_be_caught_in_a_synchronous_task() -> None:
    def task() -> str:
        try:
            merge(lambda: next(iter(())))
        except StopIteration:
            return "caught"
        return "none"

    assert in_task(task) == "caught"


@both_places
def test_a_failure_that_is_not_caught_is_that_of_the_task_with_notes_of_both(asynchronous: bool) -> None:
    error = LookupError("merged")

    def fail(number: int) -> int:
        if number == 1:
            raise error
        return number

    with pytest.raises(LookupError) as caught:
        in_task(lambda: merge(fail, [0, 1]), asynchronous=asynchronous)
    assert caught.value is error
    name = "task_async" if asynchronous else "task"
    assert error.__notes__ == [
        "Raised in task 'merge(fail)', item 1, environment 'default'.",
        f"Raised in task '{name}', environment 'default'.",
    ]


def test_a_task_goes_on_after_a_merge_that_failed_with_all_threads_it_may_have() -> None:
    release = threading.Event()

    def fail_or_block(number: int) -> None:
        if number == 0:
            raise LookupError
        release.wait(SECONDS)

    def task() -> Any:
        try:
            merge(fail_or_block, range(3))
        except LookupError:
            # The items that are still blocked hold nobody up.
            return merge(double, [1, 2])

    assert in_task(task, max_workers=2) == [2, 4]
    assert not release.is_set()
    release.set()
