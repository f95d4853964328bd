"""Options and parents of a weave: what is refused, and when."""

from typing import Any

import pytest

from wove import Weave, weave
from wove.errors import OptionError


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
