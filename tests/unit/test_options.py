"""The one declaration of every option, and the check of what is given for them."""

from collections.abc import Callable
from typing import Any

import pytest

from wove.errors import ConfigurationError, OptionError
from wove.options import (
    DELIVERY_FIELDS,
    TASK_DEFAULTS,
    TASK_OPTIONS,
    WEAVE_DEFAULTS,
    WEAVE_OPTIONS,
    Option,
    TaskOptions,
    WeaveOptions,
    check_options,
    resolve_options,
)

ALL_OPTIONS = {**TASK_OPTIONS, **WEAVE_OPTIONS}
INFINITE, NAN = float("inf"), float("nan")

Examples = tuple[list[object], list[object]]
SECONDS: Examples = ([0.1, 3, None], [0, -1, True, "3", INFINITE, NAN, 10**400])
COUNT_OR_NONE: Examples = ([1, 500, None], [0, -1, True, 1.5, "3"])
FLAG: Examples = ([True, False], [0, 1, None, "true"])
ACCEPTED_AND_REFUSED: dict[str, Examples] = {
    "retries": ([0, 5], [-1, True, None, 1.0, "1"]),
    "timeout": SECONDS,
    "workers": COUNT_OR_NONE,
    "limit_per_minute": SECONDS,
    "environment": (["reports", None], ["", 3, b"reports"]),
    "delivery_timeout": SECONDS,
    "delivery_idempotency_key": (["order-{id}", str.upper, None], ["", 3]),
    "delivery_cancel_mode": (["best_effort", "require_ack"], [None, "", "best-effort", 1]),
    "delivery_heartbeat_seconds": SECONDS,
    "delivery_max_in_flight": COUNT_OR_NONE,
    "delivery_orphan_policy": (["fail", "cancel", "requeue", "detach"], [None, "", "Fail"]),
    "debug": FLAG,
    "max_workers": ([1, 500], [0, None, True, 1.0]),
    "background": FLAG,
    "fork": FLAG,
    "on_done": ([print, None], ["print", 1]),
    "max_pending": COUNT_OR_NONE,
    "error_mode": (["raise", "return", "exit"], [None, "", "RAISE", ["raise"]]),
}
VALUES = [
    (name, value, kind == 0) for name, both in ACCEPTED_AND_REFUSED.items() for kind in (0, 1) for value in both[kind]
]


def test_every_option_has_its_examples_here() -> None:
    assert set(ACCEPTED_AND_REFUSED) == set(ALL_OPTIONS)


@pytest.mark.parametrize(("name", "value", "accepted"), VALUES)
def test_an_option_accepts_what_its_words_say_and_nothing_else(name: str, value: object, accepted: bool) -> None:
    if accepted:
        check_options({name: value}, where="here", known=ALL_OPTIONS)
    else:
        with pytest.raises(OptionError) as caught:
            check_options({name: value}, where="here", known=ALL_OPTIONS)
        assert str(caught.value) == f"here: {name} must be {ALL_OPTIONS[name].expected}, not {value!r}."


@pytest.mark.parametrize("option", ALL_OPTIONS.values(), ids=ALL_OPTIONS)
def test_a_default_is_a_value_that_the_option_accepts(option: Option) -> None:
    assert option.accepts(option.default)


@pytest.mark.parametrize("option", ALL_OPTIONS.values(), ids=ALL_OPTIONS)
def test_an_option_says_what_it_does(option: Option) -> None:
    assert option.doc.endswith(".")
    assert option.doc[0].isupper()


@pytest.mark.parametrize("name", ALL_OPTIONS)
@pytest.mark.parametrize("misspell", [lambda name: name[:-1], lambda name: name + "x", lambda name: "x" + name])
def test_a_misspelled_option_is_told_the_right_name(name: str, misspell: Callable[[str], str]) -> None:
    wrong = misspell(name)
    with pytest.raises(OptionError, match=rf"^here: no option named '{wrong}'\. Did you mean '{name}'\?"):
        check_options({wrong: None}, where="here", known={name: ALL_OPTIONS[name]})


def test_an_option_that_is_nothing_like_any_is_told_all_of_them() -> None:
    with pytest.raises(OptionError) as caught:
        check_options({"zzz": 1}, where="@w.do on task 'a'")
    assert str(caught.value) == f"@w.do on task 'a': no option named 'zzz'. Options: {', '.join(sorted(TASK_OPTIONS))}."


@pytest.mark.parametrize("name", sorted(WEAVE_OPTIONS))
def test_an_option_of_weaves_is_refused_on_a_task_with_the_place_where_it_belongs(name: str) -> None:
    with pytest.raises(OptionError) as caught:
        check_options({name: 1}, where="@w.do on task 'a'")
    assert str(caught.value) == f"@w.do on task 'a': {name} is an option of a whole weave: weave({name}=...)."


def test_an_option_error_is_a_type_error_and_a_configuration_error() -> None:
    assert issubclass(OptionError, TypeError)
    assert issubclass(OptionError, ConfigurationError)


@pytest.mark.parametrize("name", ["workers", "limit_per_minute"])
def test_options_of_mapped_tasks_are_refused_elsewhere(name: str) -> None:
    with pytest.raises(OptionError, match=f"here: {name} has a meaning on mapped tasks only. Map the task with "):
        check_options({name: 3}, where="here", mapped=False)
    check_options({name: None}, where="here", mapped=False)
    check_options({name: 3}, where="here", mapped=True)
    check_options({name: 3}, where="here")


def test_only_workers_and_limit_per_minute_need_a_map() -> None:
    assert {name for name, option in ALL_OPTIONS.items() if option.mapped_only} == {"workers", "limit_per_minute"}


def test_unset_options_take_their_default() -> None:
    assert resolve_options() == TASK_DEFAULTS
    assert TASK_DEFAULTS["retries"] == 0
    assert WEAVE_DEFAULTS["max_workers"] == 256
    assert set(TASK_DEFAULTS) == set(TaskOptions.__annotations__)
    assert set(WEAVE_DEFAULTS) == set(WeaveOptions.__annotations__)


def test_the_layer_closest_to_the_task_decides() -> None:
    effective: dict[str, Any] = dict(
        resolve_options({"retries": 1}, {"retries": 2, "timeout": 2.0}, {"timeout": 3.0, "workers": 3})
    )
    assert (effective["retries"], effective["timeout"], effective["workers"]) == (1, 2.0, 3)


def test_a_none_that_is_given_decides_like_any_value() -> None:
    assert resolve_options({"timeout": None}, {"timeout": 3.0})["timeout"] is None


def test_options_of_the_weave_are_none_of_the_task_s() -> None:
    assert "max_workers" not in resolve_options({"max_workers": 3})


def test_resolving_leaves_the_defaults_alone() -> None:
    resolve_options({"retries": 7})
    assert TASK_DEFAULTS["retries"] == 0


def test_the_fields_that_travel_are_delivery_options() -> None:
    assert {*DELIVERY_FIELDS, "delivery_max_in_flight"} == {
        name for name in TASK_OPTIONS if name.startswith("delivery_")
    }
