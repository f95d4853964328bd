"""Compares Wove with the native use of the system that executes its tasks, both on the same machine in one run.

Jobs do nothing. Native and Wove are measured in turn, and what counts is the median of the ratios:

- *one task in a running weave*: tasks of a weave, one after the other, against native round trips; medians of 40 each.
- *one weave*: with one task, from ``with weave()`` to its result, after the first, against a native round trip; medians
  of 20 each.
- *throughput*: a map of 200 items against 200 native jobs, both from the first submission to the last result. Each
  follows a burst of the other kind: some systems are busy with what is left of one for a while.

The first two take turns of ten and of five: what a system costs may depend on what it has been through just before, as
with Temporal's development server, which answers faster for the first twenty or so calls after a rest or a burst.

`queues.py` and `clusters.py` are its programs. Each measures every module that is called after it, such as
``queues_<name>.py``, and whose imports succeed; a module offers its system as `SUBJECT`.
"""

import argparse
import socket
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from measure import write_section

import wove
from wove import weave

HERE = Path(__file__).parent
JOBS = 200
TURNS = 4
IN_A_ROW = 10
WEAVES = 5


def echo(item: int) -> int:
    return item


@dataclass(frozen=True, slots=True)
class Bars:
    """The ratios that are good enough: times at most, throughput at least."""

    task: float
    weave: float = 1.5
    throughput: float = 0.9


@dataclass(frozen=True, slots=True)
class System:
    """A system with a worker that serves native jobs and Wove's.

    Attributes:
        environment: the definition of Wove's environment.
        round_trip: runs one native job and waits for its result.
        many: runs that many native jobs at once and waits for all results.
        settle: is called before each measurement of throughput, and not measured: native and Wove's in turn.
    """

    environment: dict[str, Any]
    round_trip: Callable[[], object]
    many: Callable[[int], object]
    settle: Callable[[], object] = lambda: None


@dataclass(frozen=True, slots=True)
class Subject:
    """What a module offers as `SUBJECT`.

    Attributes:
        name: the executor's name.
        bars: for its rows.
        system: starts servers and worker; ends them when left.
    """

    name: str
    bars: Bars
    system: Callable[[], AbstractContextManager[System]]


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port: int = listening.getsockname()[1]
        return port


def wait_for_port(port: int) -> None:
    deadline = time.monotonic() + 30.0
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1.0).close()
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)
        else:
            return


def one_weave() -> None:
    with weave(item=1) as w:
        w.do(environment="there")(echo)
    assert w.result.echo == 1


def weave_of(items: int, **options: int) -> Sequence[float]:
    """Run a map and return the seconds that each item took."""
    with weave() as w:
        w.do(range(items), environment="there", **options)(echo)
    assert w.result.echo == list(range(items))
    taken: Sequence[float] = w.result.timings["echo"].items
    return taken


def tasks_in_a_row() -> Sequence[float]:
    return weave_of(IN_A_ROW, workers=1)


def weaves_in_a_row() -> Sequence[float]:
    return [seconds(one_weave) for _ in range(WEAVES)]


def seconds(call: Callable[[], object]) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def in_turns(native: Callable[[], object], ours: Callable[[], Sequence[float]], times: int) -> tuple[float, float]:
    """Return the median milliseconds of native calls, so many in each turn, and of ours, which a call measures."""
    taken: tuple[list[float], list[float]] = [], []
    for _ in range(TURNS):
        taken[0].extend(seconds(native) for _ in range(times))
        taken[1].extend(ours())
    return statistics.median(taken[0]) * 1e3, statistics.median(taken[1]) * 1e3


def measure(system: System, rounds: int) -> list[tuple[str, float, float]]:
    """Return the rows: what, the median native cost and that of Wove, in milliseconds or jobs per second."""
    pairs: dict[str, list[tuple[float, float]]] = {}

    def note(row: str, native: float, ours: float) -> None:
        pairs.setdefault(row, []).append((native, ours))

    for _ in range(rounds):
        note("one task in a running weave, ms", *in_turns(system.round_trip, tasks_in_a_row, IN_A_ROW))
        note("one weave with one task, ms", *in_turns(system.round_trip, weaves_in_a_row, WEAVES))
        weave_of(JOBS)
        system.settle()
        many = JOBS / seconds(lambda: system.many(JOBS))
        system.settle()
        note(f"{JOBS} at once, jobs per second", many, JOBS / seconds(lambda: weave_of(JOBS)))
    return [(row, *_median_pair(values)) for row, values in pairs.items()]


def _median_pair(pairs: list[tuple[float, float]]) -> tuple[float, float]:
    """Return the round whose ratio is the median."""
    by_ratio = sorted(pairs, key=lambda pair: pair[1] / pair[0])
    return by_ratio[len(by_ratio) // 2]


def table(rows: list[tuple[str, float, float]], bars: Bars) -> str:
    lines = ["| case | native | Wove | ratio | bar | |", "|---|---:|---:|---:|---:|---|"]
    for (row, native, ours), bar in zip(rows, (bars.task, bars.weave, -bars.throughput), strict=True):
        ratio = ours / native
        met = ratio >= -bar if bar < 0 else ratio <= bar
        limit = f">= {-bar:g}x" if bar < 0 else f"<= {bar:g}x"
        verdict = "met" if met else "missed"
        lines.append(f"| {row} | {native:,.2f} | {ours:,.2f} | {ratio:.2f}x | {limit} | {verdict} |")
    return "\n".join(lines)


def subjects(family: str, only: str | None) -> Iterator[Subject]:
    for path in sorted(HERE.glob(f"{family}_*.py")):
        if only and path.stem != f"{family}_{only}":
            continue
        try:
            yield import_module(path.stem).SUBJECT
        except ImportError as error:
            print(f"{path.stem} is left out: {error}", file=sys.stderr)


def run(family: str, description: str) -> None:
    """Run a program of comparisons: read its command line, measure, print and write the tables.

    Args:
        family: the program's name, with which the names of its modules begin.
        description: a sentence for ``--help``.
    """
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--rounds", type=int, default=9, help="how often each pair is measured (default: 9)")
    parser.add_argument("--only", metavar="NAME", help=f"measure {family}_NAME.py alone; writes nothing")
    arguments = parser.parse_args()
    for subject in subjects(family, arguments.only):
        with subject.system() as system:
            here = {"executor": "local"}
            wove.config(default_environment="here", environments={"here": here, "there": system.environment})
            system.many(JOBS)
            weave_of(JOBS)
            text = table(measure(system, arguments.rounds), subject.bars)
            wove.shutdown()
        print(f"{subject.name}\n\n{text}\n")
        if not arguments.only:
            heading = f"{family.capitalize()}: {subject.name}"
            write_section(HERE / "RESULTS.md", heading, f"python benchmarks/{family}.py", text)
