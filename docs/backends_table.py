"""Writes ``docs/backends.md``: what each executor and adapter has been seen to do, scenario by scenario.

::

    WOVE_CONFORMANCE_OUTCOMES=outcomes.jsonl pytest tests/integration -k conformance
    python docs/backends_table.py outcomes.jsonl

The outcomes of the subjects in a run replace what ``docs/backends.json`` holds of them; all others stay, so adapters
that cannot be installed together can be run one after the other. ``--check`` writes nothing and fails where the page is
not what the file says.
"""

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TypedDict

DOCS = Path(__file__).parent
DATA = DOCS / "backends.json"
PAGE = DOCS / "backends.md"

_MARKS = {"passed": "✓", "failed": "✗"}
# The tables, each with the first words of its columns; the last one has all other adapters.
_TABLES: Mapping[str, tuple[str, ...]] = {
    "Executors": (),
    "Task queues": ("arq", "celery", "rq", "taskiq"),
    "Clusters and workflow systems": ("dask", "ray", "temporal"),
    "Batch systems": ("aws_batch", "kubernetes_jobs", "slurm"),
    "Adapters for tests and examples": (),
}
_INTRODUCTION = """\
# What each backend can do

Every built-in executor and every adapter is run through the conformance kit of `wove.testing`, against real workers.
These tables are the outcome of that run and of nothing else; `docs/backends_table.py` writes them.

✓ the scenario was seen to pass; a number: the backend cannot do that, for the reason below the table.
"""


class Scenario(TypedDict):
    """What became of one scenario."""

    outcome: str
    reason: str | None


class Subject(TypedDict):
    """What became of all scenarios of one executor or adapter, by title."""

    kit: str
    scenarios: dict[str, Scenario]


Subjects = dict[str, Subject]


def read_outcomes(lines: Iterable[str]) -> Subjects:
    """Return what the lines of a run say. A scenario that was run twice counts as its worse outcome."""
    subjects: Subjects = {}
    for line in lines:
        if not line.strip():
            continue
        found = json.loads(line)
        subject = subjects.setdefault(found["subject"], {"kit": found["kit"], "scenarios": {}})
        known = subject["scenarios"].get(found["title"])
        if known is None or found["outcome"] == "failed":
            reason = f"{found['capability']}: {found['sentence']}" if found["outcome"] == "missing" else None
            subject["scenarios"][found["title"]] = {"outcome": found["outcome"], "reason": reason}
    return subjects


def merge(known: Subjects, found: Subjects) -> Subjects:
    """Replace the subjects that another run has found, which may have run scenarios in another order than the rows."""
    rows = dict.fromkeys(title for subject in known.values() for title in subject["scenarios"])
    for subject in found.values():
        scenarios = subject["scenarios"]
        subject["scenarios"] = {title: scenarios[title] for title in [*rows, *scenarios] if title in scenarios}
    return known | found


def render(subjects: Mapping[str, Subject]) -> str:
    """Return the page for a set of subjects."""
    parts = [_INTRODUCTION]
    for heading in _TABLES:
        chosen = {name: subject for name, subject in sorted(subjects.items()) if _heading(name, subject) == heading}
        if chosen:
            parts.append(f"## {heading}\n\n{_table(chosen)}")
    return "\n".join(parts)


def _heading(name: str, subject: Subject) -> str:
    first, *_, last = _TABLES
    if subject["kit"] == "executor":
        return first
    return next((heading for heading, systems in _TABLES.items() if name.partition(" ")[0] in systems), last)


def _table(subjects: Mapping[str, Subject]) -> str:
    titles = list(dict.fromkeys(title for subject in subjects.values() for title in subject["scenarios"]))
    # Whom each reason concerns.
    reasons: dict[str, list[str]] = {}
    lines = [
        "| scenario | " + " | ".join(subjects) + " |",
        "|---|" + ":-:|" * len(subjects),
    ]
    for title in titles:
        cells = [_cell(name, subject["scenarios"].get(title), reasons) for name, subject in subjects.items()]
        lines.append(f"| {title} | " + " | ".join(cells) + " |")
    notes = [
        f"{number}. **{'**, **'.join(concerned)}** {reason}"
        for number, (reason, concerned) in enumerate(reasons.items(), start=1)
    ]
    return "\n".join([*lines, "", *notes, ""])


def _cell(name: str, scenario: Scenario | None, reasons: dict[str, list[str]]) -> str:
    if scenario is None:
        return ""
    if scenario["reason"] is None:
        return _MARKS[scenario["outcome"]]
    concerned = reasons.setdefault(scenario["reason"], [])
    if name not in concerned:
        concerned.append(name)
    return str(list(reasons).index(scenario["reason"]) + 1)


def main(arguments: Sequence[str]) -> int:
    """Merge the given files of outcomes and write data and page; with ``--check`` only compare."""
    subjects: Subjects = json.loads(DATA.read_text(encoding="utf-8")) if DATA.exists() else {}
    if list(arguments) == ["--check"]:
        if PAGE.exists() and PAGE.read_text(encoding="utf-8") == render(subjects):
            return 0
        print("docs/backends.md is not what docs/backends.json says. Run: python docs/backends_table.py")
        return 1
    for name in arguments:
        subjects = merge(subjects, read_outcomes(Path(name).read_text(encoding="utf-8").splitlines()))
    data = json.dumps(dict(sorted(subjects.items())), indent=1, ensure_ascii=False)
    DATA.write_text(data + "\n", encoding="utf-8")
    PAGE.write_text(render(subjects), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
