"""Scenarios: what they need decides whether they run, and what becomes of each is written down."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import pytest

from wove.testing.deployment import Deployment
from wove.testing.outcomes import VARIABLE, scenario


class Suite:
    """A suite of a few scenarios."""

    kit = "adapter"
    subject = "acme"
    capabilities: ClassVar[frozenset[str]] = frozenset({"cancel_queued"})
    limitations: ClassVar[Mapping[str, str]] = {"deduplicate": "Acme takes every job for a new one"}

    @scenario("a scenario that passes", needs="cancel_queued")
    def passing(self) -> None:
        """Pass."""

    @scenario("a scenario that fails")
    def failing(self) -> None:
        raise AssertionError("as planned")

    @scenario("equal keys run once", needs="deduplicate")
    def lacking(self) -> None:
        raise AssertionError("this must not run")

    @scenario("the backend goes away", hooks="take_backend_down")
    def hooked(self, *, deployment: Deployment) -> None:
        deployment.take_backend_down()


class Unable(Deployment):
    """A deployment that says why it cannot."""

    cannot: ClassVar[Mapping[str, str]] = {"take_backend_down": "it belongs to somebody else"}


class Able(Deployment):
    """A deployment that can."""

    def take_backend_down(self) -> None:
        self.down = True


@pytest.fixture
def lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    target = tmp_path / "outcomes.jsonl"
    monkeypatch.setenv(VARIABLE, str(target))
    return lambda: [json.loads(line) for line in target.read_text().splitlines()]


def test_a_scenario_that_passes_is_written_down(lines: Any) -> None:
    Suite().passing()
    (line,) = lines()
    assert line.pop("seconds") >= 0
    assert line == {
        "suite": "Suite",
        "subject": "acme",
        "kit": "adapter",
        "scenario": "passing",
        "title": "a scenario that passes",
        "outcome": "passed",
        "capability": None,
        "sentence": None,
    }


def test_a_scenario_that_fails_is_written_down_and_fails(lines: Any) -> None:
    with pytest.raises(AssertionError, match="as planned"):
        Suite().failing()
    assert [line["outcome"] for line in lines()] == ["failed"]


def test_a_missing_capability_skips_with_its_name_and_the_sentence(lines: Any) -> None:
    with pytest.raises(pytest.skip.Exception, match="missing capability 'deduplicate': Acme takes every job"):
        Suite().lacking()
    (line,) = lines()
    assert (line["outcome"], line["capability"]) == ("missing", "deduplicate")
    assert line["sentence"] == "Acme takes every job for a new one"


def test_a_hook_that_is_explained_skips_with_the_sentence() -> None:
    with pytest.raises(pytest.skip.Exception, match="it belongs to somebody else"):
        Suite().hooked(deployment=Unable())


def test_a_hook_that_is_neither_there_nor_explained_fails_and_says_what_to_do() -> None:
    with pytest.raises(pytest.fail.Exception, match=r"does not implement take_backend_down\(\).*cannot"):
        Suite().hooked(deployment=Deployment())


def test_a_hook_that_is_there_is_used() -> None:
    deployment = Able()
    Suite().hooked(deployment=deployment)
    assert deployment.down


def test_without_the_variable_nothing_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    monkeypatch.chdir(tmp_path)
    Suite().passing()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("wrong", [{"needs": "cancel_queue"}, {"hooks": "kill_workers"}])
def test_a_misspelled_need_is_an_error_where_it_is_declared(wrong: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="nobody can declare"):
        scenario("impossible", **wrong)
