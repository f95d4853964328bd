"""What an adapter's configuration may hold, and what the errors say."""

from datetime import UTC, datetime
from typing import Any

import pytest

from wove.errors import ConfigurationError
from wove.integrations.settings import (
    CORE_KEYS,
    Check,
    Setting,
    accept_anything,
    check_flag,
    check_mapping,
    check_moment,
    check_options,
    check_seconds,
    check_settings,
    check_text,
    is_number,
)

WHERE = "executor_config of 'acme'"
SETTINGS = {
    "queue": Setting(check_text, "'reports'"),
    "seconds": Setting(check_seconds, "10"),
    "options": Setting(check_mapping, "{'delay': 10}"),
}
OPTIONS = {"delay": Setting(check_seconds, "10"), "urgent": Setting(check_flag, "True")}
MOMENT = datetime(2030, 1, 1, tzinfo=UTC)


def complaint_about(config: dict[str, Any]) -> str:
    with pytest.raises(ConfigurationError) as raised:
        check_settings(config, SETTINGS, where=WHERE, below={"options": OPTIONS})
    return str(raised.value)


def complaint_about_options(given: dict[str, Any]) -> str:
    with pytest.raises(ConfigurationError) as raised:
        check_options(given, OPTIONS, where=WHERE, parent="options", reserved=("job_id",))
    return str(raised.value)


def test_values_are_what_their_checks_return() -> None:
    doubled = {"number": Setting(lambda value: 2 * value, "1")}
    assert check_settings({"number": 4}, doubled, where=WHERE) == {"number": 8}


def test_keys_that_are_not_given_or_none_are_left_out() -> None:
    assert check_settings({"queue": "reports", "seconds": None}, SETTINGS, where=WHERE) == {"queue": "reports"}


def test_keys_that_core_reads_are_left_to_it() -> None:
    assert check_settings(dict.fromkeys(CORE_KEYS, "whatever"), SETTINGS, where=WHERE) == {}


def test_an_unknown_key_is_told_the_nearest_and_all_known_ones() -> None:
    assert complaint_about({"queu": "reports"}) == (
        f"{WHERE}: no key named 'queu'. Did you mean 'queue'? Keys: queue, seconds, options, {', '.join(CORE_KEYS)}."
    )


def test_a_misspelled_key_of_core_is_told_the_right_one() -> None:
    assert "Did you mean 'callback_url'?" in complaint_about({"calback_url": "http://here"})


def test_a_wrong_value_is_told_what_the_key_takes_with_an_example() -> None:
    assert complaint_about({"seconds": -1}) == (
        f"{WHERE}: seconds must be a positive number of seconds, for example 10; it is -1."
    )


def test_a_text_that_may_be_a_secret_is_not_shown() -> None:
    message = complaint_about({"seconds": "secret"})
    assert "secret" not in message
    assert message.endswith("it is a str.")


def test_an_option_beside_its_parent_is_told_its_place() -> None:
    assert complaint_about({"delay": 5}) == (
        f"{WHERE}: delay belongs below 'options', for example 'options': {{'delay': 10}}."
    )


def test_options_are_checked_and_none_means_not_given() -> None:
    assert check_options({"delay": 2.5, "urgent": None}, OPTIONS, where=WHERE, parent="options") == {"delay": 2.5}


def test_an_option_that_the_adapter_sets_is_refused() -> None:
    assert complaint_about_options({"job_id": "x"}) == (
        f"{WHERE}: options['job_id'] is set by Wove for every task; leave it out."
    )


def test_an_unknown_option_is_told_the_nearest_and_all_known_ones() -> None:
    assert complaint_about_options({"dely": 5}) == (
        f"{WHERE}: options: no key named 'dely'. Did you mean 'delay'? Keys: delay, urgent."
    )


def test_a_wrong_option_is_told_what_it_takes_with_an_example() -> None:
    assert complaint_about_options({"urgent": 1}) == (
        f"{WHERE}: options['urgent'] must be True or False, for example True; it is 1."
    )


@pytest.mark.parametrize(
    ("check", "value", "result"),
    [
        (check_text, "reports", "reports"),
        (check_flag, False, False),
        (check_mapping, {"a": 1}, {"a": 1}),
        (check_seconds, 0.5, 0.5),
        (check_moment, MOMENT, MOMENT),
        (check_moment, "2030-01-01T00:00:00+00:00", MOMENT),
        (accept_anything, ..., ...),
    ],
)
def test_a_check_takes(check: Check, value: object, result: object) -> None:
    assert check(value) == result


@pytest.mark.parametrize(
    ("check", "value"),
    [
        (check_text, " "),
        (check_text, b"reports"),
        (check_flag, 1),
        (check_mapping, {1: "a"}),
        (check_mapping, [("a", 1)]),
        (check_seconds, 0),
        (check_seconds, True),
        (check_seconds, float("nan")),
        (check_seconds, "5"),
        (check_moment, "tomorrow"),
        (check_moment, 5),
    ],
)
def test_a_check_refuses(check: Check, value: object) -> None:
    with pytest.raises(ValueError, match=r"^(a |True or False)"):
        check(value)


def test_a_mapping_is_copied() -> None:
    given = {"a": 1}
    check_mapping(given)["b"] = 2
    assert given == {"a": 1}


@pytest.mark.parametrize(("value", "expected"), [(1, True), (-0.5, True), (True, False), (float("inf"), False)])
def test_a_number_is_finite_and_no_boolean(value: object, expected: bool) -> None:
    assert is_number(value) is expected
