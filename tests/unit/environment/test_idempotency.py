"""Idempotency keys from strings, format strings and callables."""

from typing import Any

import pytest

from wove.environment.idempotency import resolve_key
from wove.errors import OptionError

ARGUMENTS: dict[str, Any] = {"account": "acct_1", "row": {"id": 7}}


def key(option: Any) -> str | None:
    return resolve_key(option, ARGUMENTS, task="report")


def test_no_option_is_no_key() -> None:
    assert key(None) is None


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("fixed", "fixed"),
        ("report-{account}", "report-acct_1"),
        ("report-{row[id]:03}", "report-007"),
        ("{{literal}}", "{literal}"),
    ],
)
def test_a_format_string_is_filled_with_arguments(template: str, expected: str) -> None:
    assert key(template) == expected


def test_an_unknown_field_is_an_error_that_suggests_the_argument() -> None:
    with pytest.raises(OptionError, match=r"Task 'report'.*'acount' that is no argument.*Did you mean 'account'"):
        key("report-{acount}")


@pytest.mark.parametrize("template", ["{", "{}", "{0}", "{row[nope]}", "{account.nope}", "{account:%}"])
def test_a_template_that_cannot_be_filled_is_an_error(template: str) -> None:
    with pytest.raises(OptionError, match="Task 'report'"):
        key(template)


def test_a_callable_gets_the_arguments_that_it_names() -> None:
    assert key(lambda account: f"k-{account}") == "k-acct_1"


def test_a_callable_may_take_all_arguments_by_name() -> None:
    assert key(lambda **arguments: "-".join(sorted(arguments))) == "account-row"


def test_a_callable_with_one_foreign_parameter_gets_the_dict_of_arguments() -> None:
    assert key(lambda args: args["account"]) == "acct_1"


def test_a_callable_may_take_nothing() -> None:
    assert key(lambda: "always") == "always"


def test_a_callable_keeps_its_other_defaults() -> None:
    assert key(lambda account, prefix="p": f"{prefix}-{account}") == "p-acct_1"


def test_a_callable_with_several_foreign_parameters_is_an_error() -> None:
    with pytest.raises(OptionError, match="parameter 'acount' that is no argument"):
        key(lambda acount, roow: "k")


def test_a_callable_that_raises_is_an_error_with_its_reason() -> None:
    with pytest.raises(OptionError, match="raised ZeroDivisionError") as caught:
        key(lambda account: 1 // 0)
    assert isinstance(caught.value.__cause__, ZeroDivisionError)


@pytest.mark.parametrize("result", [None, 5, ""])
def test_a_key_must_be_a_string_with_characters(result: object) -> None:
    with pytest.raises(OptionError, match="must be a string with characters"):
        key(lambda: result)
