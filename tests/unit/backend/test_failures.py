"""Exceptions as plain JSON: nothing that a task can raise keeps its failure from being told."""

import json
import threading

import pytest

from wove.backend.failures import LONGEST_MESSAGE, can_travel, normalize_exception, with_remote_traceback
from wove.errors import DeliveryError, RemoteTraceback, SerializationError


class NeedsTwo(Exception):
    """Pickles, but cannot be made again from its args."""

    def __init__(self, first: str, second: str) -> None:
        super().__init__(f"{first} and {second}")


class Wordless(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no words")


class HoldsALock(Exception):
    def __init__(self) -> None:
        super().__init__("locked")
        self.lock = threading.Lock()


class EndsTheReader(Exception):
    def __reduce__(self) -> tuple[object, ...]:
        return _exit, ()


def _exit() -> None:
    raise SystemExit(1)


def _raised(error: BaseException, *, cause: BaseException | None = None) -> BaseException:
    try:
        raise error from cause
    except BaseException as caught:
        return caught


def test_an_exception_becomes_kind_message_traceback_and_origin() -> None:
    error = normalize_exception(_raised(ValueError("too small")), source="executor", retryable=True)
    assert (error["kind"], error["message"]) == ("ValueError", "too small")
    assert (error["source"], error["retryable"]) == ("executor", True)
    assert error["traceback"].startswith("Traceback (most recent call last):")
    assert "_raised" in error["traceback"]
    assert "ValueError: too small" in error["traceback"]


def test_by_default_the_task_failed_and_another_attempt_is_pointless() -> None:
    error = normalize_exception(ValueError())
    assert (error["source"], error["retryable"], error["message"]) == ("task", False, "")


def test_the_causes_are_told_nearest_first() -> None:
    inner = _raised(KeyError("key"))
    middle = _raised(ValueError("value"), cause=inner)
    error = normalize_exception(_raised(RuntimeError("outer"), cause=middle))
    assert error["causes"] == [{"kind": "ValueError", "message": "value"}, {"kind": "KeyError", "message": "'key'"}]
    assert "KeyError: 'key'" in error["traceback"]


def test_a_suppressed_context_is_no_cause() -> None:
    error = RuntimeError("clean")
    error.__context__ = ValueError("noise")
    error.__suppress_context__ = True
    assert normalize_exception(error)["causes"] == []


def test_causes_in_a_circle_end() -> None:
    first, second = ValueError("first"), KeyError("second")
    first.__cause__, second.__cause__ = second, first
    assert [cause["kind"] for cause in normalize_exception(first)["causes"]] == ["KeyError"]


def test_a_str_that_raises_is_replaced_by_a_note() -> None:
    error = normalize_exception(_raised(Wordless()))
    assert error["kind"] == "Wordless"
    assert "RuntimeError in __str__" in error["message"]
    assert "Wordless" in error["traceback"]


def test_a_huge_message_is_cut_and_keeps_both_ends() -> None:
    message = normalize_exception(ValueError("a" * LONGEST_MESSAGE + "z" * LONGEST_MESSAGE))["message"]
    assert len(message) < LONGEST_MESSAGE + 100
    assert message.startswith("aaa")
    assert message.endswith("zzz")
    assert "65,536 characters left out" in message


def test_the_description_is_json_even_with_lone_surrogates() -> None:
    error = normalize_exception(_raised(ValueError("\ud800")))
    assert json.loads(json.dumps(error)) == error


@pytest.mark.parametrize(
    "error", [ValueError("x"), KeyError(1), ExceptionGroup("several", [ValueError(1), KeyError(2)])]
)
def test_an_ordinary_exception_travels(error: Exception) -> None:
    assert can_travel(error)


def test_an_exception_class_that_only_this_process_knows_travels() -> None:
    class Local(Exception):
        pass

    assert can_travel(Local("here"))


@pytest.mark.parametrize(
    "error",
    [NeedsTwo("a", "b"), HoldsALock(), EndsTheReader(), SystemExit(1), KeyboardInterrupt(), GeneratorExit()],
    ids=lambda error: type(error).__name__,
)
def test_an_exception_that_cannot_be_raised_elsewhere_stays(error: BaseException) -> None:
    assert not can_travel(error)


@pytest.mark.parametrize("error", [DeliveryError("lost", state="gone", exit_code=3), SerializationError("no")])
def test_our_own_exceptions_travel(error: Exception) -> None:
    assert can_travel(error)


def test_the_remote_traceback_is_chained_and_shown() -> None:
    error = with_remote_traceback(ValueError("x"), {"traceback": "Traceback …\nValueError: x\n"})
    assert isinstance(error.__cause__, RemoteTraceback)
    assert error.__cause__.text == "Traceback …\nValueError: x\n"
    assert str(error.__cause__) == '\n"""\nTraceback …\nValueError: x\n"""'


@pytest.mark.parametrize("told", [None, {}, {"traceback": ""}])
def test_without_a_traceback_nothing_is_chained(told: dict[str, str] | None) -> None:
    assert with_remote_traceback(ValueError(), told).__cause__ is None  # type: ignore[arg-type]


def test_a_cause_that_is_there_already_stays() -> None:
    cause = KeyError("own")
    error = _raised(ValueError(), cause=cause)
    assert with_remote_traceback(error, {"traceback": "remote"}).__cause__ is cause
