"""The page about backends is what the recorded outcomes say."""

import importlib.util
import json
from pathlib import Path
from types import ModuleType

import pytest

DOCS = Path(__file__).parents[2] / "docs"


@pytest.fixture
def table() -> ModuleType:
    spec = importlib.util.spec_from_file_location("backends_table", DOCS / "backends_table.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def line(subject: str, title: str, outcome: str = "passed", **more: str) -> str:
    """One recorded outcome."""
    found = {"subject": subject, "kit": "adapter", "title": title, "outcome": outcome, "capability": None}
    return json.dumps({**found, "sentence": None, **more})


def test_the_committed_page_is_what_the_committed_outcomes_say(table: ModuleType) -> None:
    assert table.main(["--check"]) == 0


def test_no_committed_outcome_is_a_failure() -> None:
    subjects = json.loads((DOCS / "backends.json").read_text(encoding="utf-8"))
    failed = [
        f"{name}: {title}"
        for name, subject in subjects.items()
        for title, scenario in subject["scenarios"].items()
        if scenario["outcome"] == "failed"
    ]
    assert failed == []


def test_passed_failed_and_missing_scenarios_look_different(table: ModuleType) -> None:
    page = table.render(
        table.read_outcomes(
            [
                line("acme", "sync task"),
                line("acme", "map", "failed"),
                line("acme", "cancel", "missing", capability="cancel_queued", sentence="jobs start at once"),
            ]
        )
    )
    assert "| sync task | ✓ |" in page
    assert "| map | ✗ |" in page
    assert "| cancel | 1 |" in page
    assert "1. **acme** cancel_queued: jobs start at once" in page


def test_a_scenario_that_failed_once_has_failed(table: ModuleType) -> None:
    subjects = table.read_outcomes([line("acme", "map"), line("acme", "map", "failed"), line("acme", "map")])
    assert subjects["acme"]["scenarios"]["map"]["outcome"] == "failed"


def test_a_run_of_one_backend_leaves_the_others_as_they_were(
    table: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(table, "DATA", tmp_path / "backends.json")
    monkeypatch.setattr(table, "PAGE", tmp_path / "backends.md")
    for subject in ("acme", "bolt"):
        (tmp_path / subject).write_text(line(subject, f"only {subject}"))
        table.main([str(tmp_path / subject)])
    (tmp_path / "acme").write_text(line("acme", "something new"))
    table.main([str(tmp_path / "acme")])
    page = (tmp_path / "backends.md").read_text()
    assert "only bolt" in page
    assert "something new" in page
    assert "only acme" not in page
    assert table.main(["--check"]) == 0


def test_rows_stay_where_they_are_whatever_the_order_of_a_run(table: ModuleType) -> None:
    before = table.read_outcomes([line("acme", "map"), line("acme", "cancel"), line("acme", "retry")])
    titles = ["new", "retry", "map", "cancel"]
    after = table.merge(before, table.read_outcomes([line("acme", title) for title in titles]))
    assert list(after["acme"]["scenarios"]) == ["map", "cancel", "retry", "new"]


def test_each_kind_of_system_has_a_table_of_its_own(table: ModuleType) -> None:
    page = table.render(table.read_outcomes([line("ray (ray://)", "map"), line("rq", "map"), line("acme", "map")]))
    headings = [text.removeprefix("## ") for text in page.splitlines() if text.startswith("## ")]
    assert headings == ["Task queues", "Clusters and workflow systems", "Adapters for tests and examples"]
