"""Weaves one after the other: what one leaves to the next, and what not."""

import gc
import weakref
from collections.abc import Iterator
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import pytest

import wove
from tests.support.distributions import Site
from wove import weave
from wove.errors import ConfigurationError
from wove.plugins import rescan
from wove.testing import InlineBackend


@pytest.fixture
def inline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Any]]:
    """An environment whose adapter is found by its name."""
    monkeypatch.syspath_prepend(str(tmp_path))
    Site(tmp_path).install("acme-inline", adapters={"acme": "wove.testing:InlineAdapter"})
    yield {"executor": "acme", "executor_config": {"backend": InlineBackend()}}
    wove.shutdown()
    monkeypatch.undo()
    rescan()


def configure(environment: dict[str, Any]) -> None:
    local = {"executor": "local"}
    wove.config(default_environment="default", environments={"default": local, "jobs": environment})


def use_both(one: str, other: str) -> None:
    with weave() as w:
        w.do(range(3), environment=one)(abs)
        w.do(range(3), environment=other)(chr)


def test_a_function_whose_variables_have_changed_since_the_weave_before_is_sent_anew(inline: dict[str, Any]) -> None:
    configure(inline)
    factor = [2]

    def scaled(number: int) -> int:
        return number * factor[0]

    results = []
    for factor[0] in (2, 3):
        with weave() as w:
            w.do(range(3), environment="jobs")(scaled)
        results.append(w.result.scaled)
    assert results == [[0, 2, 4], [0, 3, 6]]


def test_the_functions_of_a_weave_are_let_go_with_the_next_one() -> None:
    configure({"executor": "stdio"})

    def run_one() -> "weakref.ref[Any]":
        def double(number: int) -> int:
            return number * 2

        with weave() as w:
            w.do(range(3), environment="jobs")(double)
        assert w.result.double == [0, 2, 4]
        return weakref.ref(double)

    try:
        first = run_one()
        run_one()
        gc.collect()
        assert first() is None
    finally:
        wove.shutdown()


class Value:
    """What can be watched."""


_variable: ContextVar[Value] = ContextVar("variable")


@pytest.mark.parametrize("local", [True, False], ids=["beside-a-local-task", "alone"])
@pytest.mark.parametrize("limits", [{}, {"delivery_timeout": 60.0}], ids=["without-limit", "with-limit"])
@pytest.mark.parametrize("kind", ["adapter", "stdio"])
def test_values_of_context_variables_are_let_go_with_the_first_weave(
    inline: dict[str, Any], kind: str, limits: dict[str, float], local: bool
) -> None:
    wove.shutdown()
    configure({**(inline if kind == "adapter" else {"executor": "stdio"}), **limits})

    def run_one() -> "weakref.ref[Value]":
        token = _variable.set(Value())
        try:
            with weave() as w:
                w.do(range(3), environment="jobs")(abs)
                if local:
                    w.do(lambda: None)
            assert w.result.abs == [0, 1, 2]
            return weakref.ref(_variable.get())
        finally:
            _variable.reset(token)

    value = run_one()
    gc.collect()
    assert value() is None


def test_a_weave_whose_task_has_failed_leaves_the_next_one_as_it_should_be(inline: dict[str, Any]) -> None:
    configure(inline)

    def fails() -> None:
        raise LookupError("no such report")

    with weave() as w:
        w.do(environment="jobs")(fails)
    with pytest.raises(LookupError):
        _ = w.result.fails
    with weave() as w:
        w.do(range(3), environment="jobs")(abs)
    assert w.result.abs == [0, 1, 2]


def test_a_weave_after_shutdown_starts_from_nothing(inline: dict[str, Any]) -> None:
    configure(inline)
    for _ in range(2):
        with weave() as w:
            w.do(range(3), environment="jobs")(abs)
        wove.shutdown()
        assert w.result.abs == [0, 1, 2]


def test_an_environment_that_cannot_start_spoils_nothing_for_the_others(inline: dict[str, Any]) -> None:
    configure(inline)
    with weave() as w:
        w.do(range(3), environment="jobs")(abs)
    environments = {
        "default": {"executor": "local"},
        "jobs": inline,
        "wrong": inline | {"executor_config": {"callback_port": "x"}},
    }
    wove.config(environments=environments)
    for _ in range(2):
        with pytest.raises(ConfigurationError, match="callback_port"):
            use_both("jobs", "wrong")
    configure(inline)
    with weave() as w:
        w.do(range(3), environment="jobs")(abs)
    assert w.result.abs == [0, 1, 2]
