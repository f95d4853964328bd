"""Compares implementations of the same job: each in a process of its own, in turn, medians and their ratio.

The machines that this runs on are shared and noisy, so no figure stands alone: a baseline and its rival are measured
one after the other in every round, and what counts is the median ratio.
"""

import statistics
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

Job = Callable[[], float]
"""Does the work once in this process and returns a cost: seconds, or bytes."""


@dataclass(frozen=True, slots=True)
class Case:
    """One row of a results table.

    Attributes:
        name: what is compared.
        baseline, rival: names of jobs.
        bar: the highest ratio of rival to baseline that is good enough.
        unit: of the cost, ``"ms"``, ``"us"`` or ``"bytes"``.
    """

    name: str
    baseline: str
    rival: str
    bar: float
    unit: str = "ms"


@dataclass(frozen=True, slots=True)
class Outcome:
    case: Case
    baseline: float
    rival: float
    ratio: float

    @property
    def met(self) -> bool:
        return self.ratio <= self.case.bar


def run_job(jobs: Mapping[str, Job], name: str, *, repeat: int) -> None:
    """Print the median cost of a job; the other side of `measure`."""
    job = jobs[name]
    job()
    print(statistics.median(job() for _ in range(repeat)))


def measure(script: Path, cases: Sequence[Case], *, rounds: int) -> list[Outcome]:
    """Run every case for several rounds and return the median costs and ratios."""
    return [_measure_case(script, case, rounds) for case in cases]


def _measure_case(script: Path, case: Case, rounds: int) -> Outcome:
    pairs = [(_cost(script, case.baseline), _cost(script, case.rival)) for _ in range(rounds)]
    baseline = statistics.median(pair[0] for pair in pairs)
    rival = statistics.median(pair[1] for pair in pairs)
    return Outcome(case, baseline, rival, statistics.median(b / a for a, b in pairs))


def _cost(script: Path, job: str) -> float:
    printed = subprocess.run([sys.executable, str(script), "--job", job], capture_output=True, text=True, check=True)
    return float(printed.stdout.split()[-1])


_SCALES = {"ms": 1e3, "us": 1e6, "bytes": 1.0, "results": 1.0}


def table(outcomes: Sequence[Outcome]) -> str:
    """Return the outcomes as a Markdown table."""
    lines = ["| case | baseline | Wove | ratio | bar | |", "|---|---:|---:|---:|---:|---|"]
    for outcome in outcomes:
        case = outcome.case
        scale = _SCALES[case.unit]
        lines.append(
            f"| {case.name} | {outcome.baseline * scale:,.2f} {case.unit} | {outcome.rival * scale:,.2f} {case.unit} "
            f"| {outcome.ratio:.2f}x | {case.bar:g}x | {'met' if outcome.met else 'missed'} |"
        )
    return "\n".join(lines)


_HEAD = "# Results\n\nRatios of medians, measured on a shared machine with 2 cores.\n\n"


def write_section(results: Path, heading: str, command: str, text: str) -> None:
    """Replace, or add, the section of a heading in the results file."""
    start, end = f"<!-- {heading} -->", f"<!-- end of {heading} -->"
    section = f"{start}\n## {heading}\n\n`{command}`\n\n{text}\n{end}\n"
    before = (
        results.read_text()
        if results.exists()
        else "# Results\n\nRatios of medians, on a shared machine with 2 cores.\n\n"
    )
    if start in before and end in before:
        head, rest = before.split(start, 1)
        section = head + section.rstrip("\n") + rest.split(end, 1)[1]
    else:
        section = f"{before.rstrip()}\n\n{section}"
    results.write_text(section)
