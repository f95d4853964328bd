"""The exception tree: what users catch, what each exception knows, and that all of them survive pickling."""

import inspect
from collections.abc import Iterator

import pytest

from tests.support.exceptions import assert_survives, example
from wove import errors
from wove.errors import (
    CircularDependencyError,
    ConfigurationError,
    DeliveryError,
    DeliveryOrphanedError,
    DeliveryTimeoutError,
    EnvironmentExecutionError,
    MissingDispatchFeatureError,
    OptionError,
    PayloadTooLargeError,
    TaskCancelledError,
    TaskTimeoutError,
    UnknownEnvironmentError,
    UnresolvedSignatureError,
    WoveError,
    did_you_mean,
)


def every_class(cls: type[WoveError] = WoveError) -> Iterator[type[WoveError]]:
    if cls.__module__ == errors.__name__:
        yield cls
    for child in cls.__subclasses__():
        yield from every_class(child)


CLASSES = list(dict.fromkeys(every_class()))


@pytest.mark.parametrize("cls", CLASSES)
def test_an_exception_survives_pickling_with_all_that_it_knows(cls: type[WoveError]) -> None:
    assert_survives(cls)


@pytest.mark.parametrize("cls", CLASSES)
def test_an_exception_says_what_its_attributes_are(cls: type[WoveError]) -> None:
    documentation = inspect.getdoc(cls) or ""
    known = [name for base in cls.__mro__ for name in (inspect.getdoc(base) or "").split() if base is not object]
    assert documentation
    assert [name for name in vars(example(cls)) if f"{name}:" not in known] == []


def test_the_tree_in_the_module_s_docstring_is_complete() -> None:
    documented = errors.__doc__ or ""
    assert [cls.__name__ for cls in CLASSES if cls.__name__ not in documented] == []


@pytest.mark.parametrize(
    ("cls", "caught_as"),
    [
        ("ConfigurationError", ValueError),
        ("OptionError", TypeError),
        ("OptionError", ConfigurationError),
        ("UnknownEnvironmentError", NameError),
        ("UnknownEnvironmentError", ConfigurationError),
        ("UnknownExecutorError", ConfigurationError),
        ("AdapterError", ConfigurationError),
        ("MissingDispatchFeatureError", RuntimeError),
        ("ReservedNameError", NameError),
        ("UnresolvedSignatureError", NameError),
        ("CircularDependencyError", ValueError),
        ("GraphRejectedError", RuntimeError),
        ("TaskTimeoutError", TimeoutError),
        ("TaskCancelledError", RuntimeError),
        ("SerializationError", TypeError),
        ("PayloadTooLargeError", ValueError),
        ("EnvironmentExecutionError", RuntimeError),
        ("DeliveryError", RuntimeError),
        ("DeliveryTimeoutError", DeliveryError),
        ("DeliveryOrphanedError", DeliveryError),
    ],
)
def test_an_exception_is_caught_under_the_builtin_name_that_users_know(cls: str, caught_as: type[Exception]) -> None:
    assert issubclass(getattr(errors, cls), caught_as)
    assert issubclass(getattr(errors, cls), WoveError)


def test_the_nearest_name_is_suggested_and_nothing_far_away() -> None:
    assert did_you_mean("celry", ["celery", "rq"]) == " Did you mean 'celery'?"
    assert did_you_mean("zzz", ["celery", "rq"]) == ""
    assert did_you_mean("x", []) == ""


def test_an_unknown_environment_names_the_place_the_nearest_and_the_known() -> None:
    error = UnknownEnvironmentError("report", ["reports", "default"], where="Task 'a'")
    assert str(error) == (
        "Task 'a': no environment named 'report'. Did you mean 'reports'? Known environments: 'default', 'reports'. "
        "Define it with wove.config(environments={...})."
    )
    assert (error.environment, error.known) == ("report", ("default", "reports"))


def test_a_missing_package_names_the_feature_and_the_command() -> None:
    error = MissingDispatchFeatureError("executor 'stdio'")
    assert (
        str(error)
        == "executor 'stdio' needs a package that is not installed. Install it with: pip install \"wove[dispatch]\""
    )
    assert error.reason == "executor 'stdio'"
    assert MissingDispatchFeatureError("x", install="pip install y").install == "pip install y"


def test_a_circle_is_shown_along_its_names() -> None:
    error = CircularDependencyError(["a", "b", "a"])
    assert "a -> b -> a" in str(error)
    assert error.cycle == ("a", "b", "a")


def test_a_timeout_names_the_task_and_the_seconds() -> None:
    error = TaskTimeoutError("report", 1.50)
    assert str(error) == "Task 'report' did not finish within its timeout of 1.5 s."
    assert (error.task, error.timeout) == ("report", 1.5)


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (TaskCancelledError("a", failed_task="b"), "Task 'a' was cancelled because task 'b' failed."),
        (TaskCancelledError("a"), "Task 'a' was cancelled before it finished."),
        (TaskCancelledError("a", reason="by its worker"), "Task 'a' was cancelled by its worker."),
    ],
)
def test_a_cancelled_task_says_why(error: TaskCancelledError, message: str) -> None:
    assert str(error) == message


def test_a_payload_that_is_too_large_says_how_large_and_what_to_do() -> None:
    error = PayloadTooLargeError("The result of task 'a'", size=3_000_000, limit=1_000_000, advice="Return a path.")
    assert str(error) == "The result of task 'a' is 3,000,000 bytes; the limit is 1,000,000 bytes. Return a path."
    assert "larger than allowed" in str(PayloadTooLargeError("x", size=None, limit=1))


def test_an_execution_error_keeps_its_payload() -> None:
    payload = {"kind": "ValueError", "message": "no", "traceback": "", "retryable": False, "source": "task"}
    error = EnvironmentExecutionError(payload)
    assert error.payload == payload
    assert str(error) == "ValueError: no"
    assert str(EnvironmentExecutionError({})) == "Error: no message"


@pytest.mark.parametrize("cls", [DeliveryError, DeliveryTimeoutError, DeliveryOrphanedError])
def test_a_delivery_error_keeps_what_the_backend_said(cls: type[DeliveryError]) -> None:
    error = cls("lost", state="gone", exit_code=137, reason="OOMKilled")
    assert (str(error), error.state, error.exit_code, error.reason) == ("lost", "gone", 137, "OOMKilled")


def test_an_unresolved_parameter_keeps_task_and_parameter() -> None:
    error = UnresolvedSignatureError("nothing provides 'x'", task="a", parameter="x")
    assert (str(error), error.task, error.parameter) == ("nothing provides 'x'", "a", "x")


def test_configuration_errors_hold_the_message_alone() -> None:
    assert str(ConfigurationError("a")) == str(OptionError("a")) == "a"
