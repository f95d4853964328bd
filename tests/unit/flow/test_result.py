"""What a weave leaves behind, and how it is read."""

import gc
import logging
from contextlib import suppress
from typing import Any

import pytest

from wove import WoveResult, weave
from wove.errors import OptionError, TaskCancelledError

Weaves = Any


def three() -> Weaves:
    with weave() as w:

        @w.do
        def first() -> int:
            return 1

        @w.do
        async def second(first: int) -> int:
            return first + 1

        @w.do([1, 2])
        def third(item: int, second: int) -> int:
            return item * second

    return w


def failed(error_mode: Any = "raise") -> tuple[Weaves, LookupError]:
    """A weave with a task of each kind: ``good``, ``fails``, its ``child``, and ``other``, which was stopped."""
    error = LookupError("mine")
    with weave(error_mode=error_mode) as w:

        @w.do
        async def good() -> int:
            return 1

        @w.do
        async def fails(good: int) -> None:
            raise error

        @w.do
        async def child(fails: None) -> None: ...

        @w.do
        async def other(good: int) -> None:
            import asyncio

            await asyncio.sleep(10)

    return w, error


# --- reading ---


def test_results_are_read_by_attribute_and_by_key() -> None:
    w = three()
    assert w.result.second == 2
    assert w.result["third"] == [2, 4]


def test_results_are_iterated_over_and_unpacked_in_the_order_of_definition() -> None:
    w = three()
    first, second, third = w.result
    assert (first, second, third) == (1, 2, [2, 4])
    assert list(w.result) == [1, 2, [2, 4]]


def test_the_order_is_that_of_definition_and_not_that_of_the_graph() -> None:
    with weave() as w:

        @w.do
        def late(early: int) -> int:
            return early + 1

        @w.do
        def early() -> int:
            return 1

    assert list(w.result) == [2, 1]
    assert w.result.final == 1


def test_a_result_knows_how_many_tasks_there_are_and_which() -> None:
    w = three()
    assert len(w.result) == 3
    assert "first" in w.result
    assert "fourth" not in w.result
    assert {"first", "second", "third", "final"} <= set(dir(w.result))


def test_final_is_the_result_of_the_task_that_was_defined_last() -> None:
    assert three().result.final == [2, 4]


def test_a_name_that_is_no_task_is_an_error_that_suggests_the_right_one() -> None:
    w = three()
    with pytest.raises(AttributeError, match=r"No task named 'frist'. Did you mean 'first'\?"):
        _ = w.result.frist
    with pytest.raises(KeyError, match=r"No task named 'frist'. Did you mean 'first'\?"):
        _ = w.result["frist"]
    assert getattr(w.result, "frist", None) is None


def test_reading_inside_the_block_says_that_tasks_run_at_its_end() -> None:
    with weave() as w:
        w.do(lambda: 1)
        with pytest.raises(AttributeError, match=r"'lambda_1' has run here. Tasks run when the block .* ends"):
            _ = w.result.lambda_1
        with pytest.raises(KeyError, match="Tasks run when the block"):
            _ = w.result["lambda_1"]
    assert w.result.lambda_1 == 1


def test_none_is_a_result() -> None:
    with weave() as w:
        w.do(lambda: None)
    assert w.result.final is None
    assert w.result.exception is None


def test_a_value_that_is_an_exception_is_a_value() -> None:
    value = LookupError()
    with weave() as w:
        w.do(lambda: value)
    assert w.result.final is value
    assert w.result.exception is None


def test_a_task_whose_name_begins_with_an_underscore_is_read_like_others() -> None:
    with weave() as w:

        @w.do
        def _private() -> int:
            return 5

    assert w.result._private == 5


def test_a_result_can_be_made_by_hand_and_is_empty() -> None:
    result = WoveResult(error_mode="return")
    assert list(result) == []
    assert result.final is None
    assert result.exception is None
    assert result.cancelled == set()
    assert result.timings == {}
    assert repr(result) == "<WoveResult of no tasks>"


# --- what went wrong ---


def test_the_block_ends_silently_and_reading_a_failed_task_raises_its_own_exception() -> None:
    w, error = failed()
    with pytest.raises(LookupError) as caught:
        _ = w.result.fails
    assert caught.value is error
    assert w.result.good == 1


@pytest.mark.parametrize("read", [lambda r: list(r), lambda r: r.final, lambda r: r["fails"], lambda r: [*r]])
def test_every_way_of_reading_raises(read: Any) -> None:
    w, _ = failed()
    with pytest.raises((LookupError, TaskCancelledError)):
        read(w.result)


def test_results_before_the_failed_one_can_be_iterated_over() -> None:
    w, _ = failed()
    results = iter(w.result)
    assert next(results) == 1
    with pytest.raises(LookupError):
        next(results)


def test_the_first_failure_and_all_of_them_are_there() -> None:
    w, error = failed()
    assert w.result.exception is error
    assert w.result.failures == (error,)


def test_cancelled_names_the_tasks_without_a_result_of_their_own() -> None:
    w, _ = failed()
    assert w.result.cancelled == {"child", "other"}


def test_reading_a_descendant_raises_the_exception_of_the_failed_task() -> None:
    w, error = failed()
    with pytest.raises(LookupError) as caught:
        _ = w.result.child
    assert caught.value is error


def test_reading_a_task_that_was_cancelled_names_the_failed_one_and_is_chained_to_its_exception() -> None:
    w, error = failed()
    with pytest.raises(TaskCancelledError, match="Task 'other' was cancelled because task 'fails' failed") as caught:
        _ = w.result.other
    assert (caught.value.task, caught.value.failed_task) == ("other", "fails")
    assert caught.value.__cause__ is error


def test_reading_twice_raises_twice() -> None:
    w, error = failed()
    for name in ("fails", "child", "other"):
        for _ in range(2):
            with pytest.raises((LookupError, TaskCancelledError)):
                _ = w.result[name]
    assert w.result.exception is error


def test_error_mode_return_gives_exceptions_instead_of_raising_them() -> None:
    w, error = failed("return")
    good, fails, child, other = w.result
    assert good == 1
    assert fails is error
    assert child is error
    assert isinstance(other, TaskCancelledError)
    assert other.__cause__ is error
    assert w.result.final is not None


def test_error_mode_exit_raises_the_first_failure_from_the_block() -> None:
    error = LookupError("mine")
    w = weave(error_mode="exit")

    @w.do
    def fails() -> None:
        raise error

    with pytest.raises(LookupError) as caught, w:
        pass
    assert caught.value is error
    assert w.result.exception is error


async def test_error_mode_exit_raises_from_an_asynchronous_block() -> None:
    w = weave(error_mode="exit")

    @w.do
    async def fails() -> None:
        raise LookupError("mine")

    with pytest.raises(LookupError, match="mine"):
        async with w:
            pass


def test_error_mode_exit_is_silent_without_a_failure() -> None:
    with weave(error_mode="exit") as w:
        w.do(lambda: 5)
    assert w.result.final == 5


# --- how it is shown ---


def test_it_shows_each_task_with_its_state() -> None:
    w, _ = failed()
    assert w.result.exception is not None
    assert repr(w.result) == (
        "<WoveResult good: done, fails: failed (LookupError), "
        "child: cancelled (because of fails), other: cancelled (because of fails)>"
    )


def test_it_does_not_show_values() -> None:
    with weave() as w:
        w.do(lambda: "secret")
    assert repr(w.result) == "<WoveResult lambda_1: done>"


def test_every_task_that_ran_has_a_time() -> None:
    w = three()
    assert set(w.result.timings) == {"first", "second", "third"}
    assert all(seconds >= 0 for seconds in w.result.timings.values())
    assert len(w.result.timings["third"].items) == 2


def test_a_task_that_never_started_has_no_time() -> None:
    w, _ = failed()
    assert w.result.exception is not None
    assert set(w.result.timings) == {"good", "fails", "other"}


# --- failures that nobody reads ---


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    """The log of this test: what others left is collected before."""
    gc.collect()
    caplog.clear()
    return caplog


def errors(log: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    gc.collect()
    return [record for record in log.records if record.name == "wove"]


def test_a_failure_that_nobody_reads_is_logged_when_the_result_is_collected(log: pytest.LogCaptureFixture) -> None:
    # Nobody keeps the failure: in Python 3.12.1 its traceback leads to the frame that has the weave.
    failed()
    (record,) = errors(log)
    assert record.levelno == logging.ERROR
    assert "fails: failed (LookupError)" in record.getMessage()
    assert record.exc_info is not None
    assert repr(record.exc_info[1]) == "LookupError('mine')"


READS: list[Any] = [
    lambda result: result.exception,
    lambda result: result.failures,
    lambda result: result.fails,
    lambda result: result["child"],
    lambda result: result.other,
    list,
]


@pytest.mark.parametrize(
    "read", READS, ids=["exception", "failures", "failed", "descendant", "cancelled", "iterated over"]
)
def test_a_failure_that_somebody_reads_is_not_logged(read: Any, log: pytest.LogCaptureFixture) -> None:
    with suppress(LookupError, TaskCancelledError):
        read(failed()[0].result)
    assert errors(log) == []


@pytest.mark.parametrize(
    "look",
    [repr, len, lambda result: result.good, lambda result: result.cancelled, lambda result: result.timings],
    ids=["repr", "len", "another result", "cancelled", "timings"],
)
def test_looking_at_something_else_is_not_reading_the_failure(look: Any, log: pytest.LogCaptureFixture) -> None:
    look(failed()[0].result)
    assert len(errors(log)) == 1


def test_a_failure_that_the_block_raised_is_not_logged_again(log: pytest.LogCaptureFixture) -> None:
    w = weave(error_mode="exit")
    w.do(lambda: 1 / 0)
    with pytest.raises(ZeroDivisionError), w:
        pass
    del w
    assert errors(log) == []


def test_a_keyboard_interrupt_that_the_block_raised_is_not_logged_again(log: pytest.LogCaptureFixture) -> None:
    w = weave()

    @w.do
    def interrupted() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), w:
        pass
    del w
    assert errors(log) == []


def test_a_weave_without_failures_logs_nothing(log: pytest.LogCaptureFixture) -> None:
    three()
    assert errors(log) == []


def test_an_exception_that_cannot_be_shown_is_logged_nevertheless(log: pytest.LogCaptureFixture) -> None:
    class Unprintable(Exception):
        def __str__(self) -> str:
            raise ValueError("no words")

    with weave() as w:

        @w.do
        def fails() -> None:
            raise Unprintable

    del w
    (record,) = errors(log)
    assert "fails: failed (Unprintable)" in record.getMessage()


def test_a_result_of_an_unknown_error_mode_is_refused() -> None:
    with pytest.raises(
        OptionError, match=r"WoveResult\(\): error_mode must be 'raise', 'return' or 'exit', not 'exti'"
    ):
        WoveResult(error_mode="exti")  # type: ignore[arg-type]


def test_asking_a_result_for_what_other_protocols_ask_is_no_task() -> None:
    w = three()
    with pytest.raises(AttributeError, match="__array__"):
        _ = w.result.__array__
