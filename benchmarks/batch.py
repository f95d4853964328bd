"""What Wove costs beside the native use of a batch system, where every task is a job of its own.

Run it with ``python benchmarks/batch.py`` in an environment with one or more of the adapters (``--only slurm``,
``--rounds N``); it prints a table for each and writes it to ``benchmarks/RESULTS.md``. Every module that is called
``batch_<name>.py`` and whose imports succeed is measured; it offers its system as `SUBJECT`. Jobs do nothing but start
Python. Native and Wove are measured in turn, and what counts is the median of the ratios:

- *one task in a running weave*: some tasks, one after the other, in one weave, against as many native jobs, each from
  its submission until the system itself says that it has ended; medians.
- *at once*: a map of 100 items against 100 native jobs, submitted in the best way that the system has, both from the
  first submission to the last result or the last job's end.
"""

import argparse
import statistics
import sys
from importlib import import_module

import cloudpickle
import comparison
from comparison import (
    HERE,
    Bars,
    Subject,
    System,
    echo,
    free_port,
    seconds,
    subjects,
    wait_for_port,
    weave_of,
)
from measure import write_section

import wove

__all__ = ["BARS", "HERE", "JOBS", "Bars", "Subject", "System", "echo", "free_port", "main", "wait_for_port"]

JOBS = 100
IN_A_ROW = 5
# Both are ratios of times here, and good up to this.
BARS = Bars(task=1.1, throughput=1.2)


def measure(system: System, bars: Bars, rounds: int) -> list[tuple[str, list[tuple[float, float]], float]]:
    """Return the rows: what, the seconds that it took natively and with Wove in each round, and the bar."""
    one: list[tuple[float, float]] = []
    many: list[tuple[float, float]] = []
    for _ in range(rounds):
        native = statistics.median(seconds(system.round_trip) for _ in range(IN_A_ROW))
        one.append((native, statistics.median(weave_of(IN_A_ROW, workers=1))))
        many.append((seconds(lambda: system.many(JOBS)), seconds(lambda: weave_of(JOBS))))
    return [("one task in a running weave", one, bars.task), (f"{JOBS} at once", many, bars.throughput)]


def table(rows: list[tuple[str, list[tuple[float, float]], float]]) -> str:
    lines = ["| case | native | Wove | ratio | bar | |", "|---|---:|---:|---:|---:|---|"]
    for row, pairs, bar in rows:
        by_ratio = sorted(pairs, key=lambda pair: pair[1] / pair[0])
        native, ours = by_ratio[len(by_ratio) // 2]
        verdict = "met" if ours / native <= bar else "missed"
        lines.append(f"| {row} | {native:.2f} s | {ours:.2f} s | {ours / native:.2f}x | <= {bar:g}x | {verdict} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description="What Wove costs beside the native use of a batch system.")
    parser.add_argument("--rounds", type=int, default=5, help="how often each pair is measured (default: 5)")
    parser.add_argument("--only", metavar="NAME", help="measure batch_NAME.py alone; writes nothing")
    arguments = parser.parse_args()
    # Jobs get the task itself, native ones too: importing this would be most of what they do.
    cloudpickle.register_pickle_by_value(comparison)
    for subject in subjects("batch", arguments.only):
        with subject.system() as system:
            here = {"executor": "local"}
            wove.config(default_environment="here", environments={"here": here, "there": system.environment})
            system.round_trip()
            weave_of(1)
            text = table(measure(system, subject.bars, arguments.rounds))
            wove.shutdown()
        print(f"{subject.name}\n\n{text}\n")
        if not arguments.only:
            write_section(HERE / "RESULTS.md", f"Batch systems: {subject.name}", "python benchmarks/batch.py", text)


if __name__ == "__main__":
    # Those who are measured import this module, which must not exist twice.
    sys.path.insert(0, str(HERE))
    import_module("batch").main()
