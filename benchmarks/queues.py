"""What Wove costs beside the native use of a task queue, both with the same worker.

Run it with ``python benchmarks/queues.py`` in an environment with one or more of the adapters (``--only celery``,
``--rounds N``); it prints a table for each and writes it to ``benchmarks/RESULTS.md``. Every module that is called
``queues_<name>.py`` and whose imports succeed is measured. Jobs do nothing. Native and Wove are measured in turn, and
what counts is the median of the ratios:

- *one task in a running weave*: 40 tasks, one after the other, in one weave, against 40 native round trips; medians.
- *one weave*: with one task, from ``with weave()`` to its result, after the first, against a native round trip.
- *throughput*: a map of 200 items against 200 native jobs, both from the first submission to the last result.
"""

import argparse
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from measure import write_section

import wove
from wove import weave

HERE = Path(__file__).parent
JOBS = 200
IN_A_ROW = 40
WEAVES = 20


def echo(item: int) -> int:
    return item


@dataclass(frozen=True, slots=True)
class Bars:
    """The ratios that are good enough: times at most, throughput at least."""

    task: float
    weave: float = 1.5
    throughput: float = 0.9


@dataclass(frozen=True, slots=True)
class Queue:
    """A task queue with a worker that serves native jobs and Wove's.

    Attributes:
        environment: the definition of Wove's environment.
        round_trip: runs one native job and waits for its result.
        many: runs that many native jobs at once and waits for all results.
    """

    environment: dict[str, Any]
    round_trip: Callable[[], object]
    many: Callable[[int], object]


@dataclass(frozen=True, slots=True)
class Subject:
    """What a module offers as `SUBJECT`.

    Attributes:
        name: the executor's name.
        bars: for its rows.
        queue: starts servers and worker; ends them when left.
    """

    name: str
    bars: Bars
    queue: Callable[[], AbstractContextManager[Queue]]


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port: int = listening.getsockname()[1]
        return port


@contextmanager
def redis_server() -> Iterator[int]:
    """Run a Redis server without persistence and yield its port."""
    port = free_port()
    with TemporaryDirectory() as folder:
        process = subprocess.Popen(
            ["redis-server", "--port", str(port), "--save", "", "--dir", folder], stdout=subprocess.DEVNULL
        )
        try:
            wait_for_port(port)
            yield port
        finally:
            process.terminate()
            process.wait()


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
        w.do(environment="queue")(echo)
    assert w.result.echo == 1


def weave_of(items: int, **options: int) -> Sequence[float]:
    """Run a map and return the seconds that each item took."""
    with weave() as w:
        w.do(range(items), environment="queue", **options)(echo)
    assert w.result.echo == list(range(items))
    taken: Sequence[float] = w.result.timings["echo"].items
    return taken


def per_task() -> float:
    return statistics.median(weave_of(IN_A_ROW, workers=1))


def seconds(call: Callable[[], object]) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def per_call(call: Callable[[], object], times: int) -> float:
    return statistics.median(seconds(call) for _ in range(times))


def measure(queue: Queue, rounds: int) -> list[tuple[str, float, float]]:
    """Return the rows: what, the median native cost and that of Wove, in milliseconds or jobs per second."""
    pairs: dict[str, list[tuple[float, float]]] = {}

    def note(row: str, native: float, ours: float) -> None:
        pairs.setdefault(row, []).append((native, ours))

    for _ in range(rounds):
        native = per_call(queue.round_trip, IN_A_ROW)
        note("one task in a running weave, ms", native * 1e3, per_task() * 1e3)
        native = per_call(queue.round_trip, WEAVES)
        note("one weave with one task, ms", native * 1e3, per_call(one_weave, WEAVES) * 1e3)
        many = JOBS / seconds(lambda: queue.many(JOBS))
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


def subjects(only: str | None) -> Iterator[Subject]:
    for path in sorted(HERE.glob("queues_*.py")):
        if only and path.stem != f"queues_{only}":
            continue
        try:
            yield import_module(path.stem).SUBJECT
        except ImportError as error:
            print(f"{path.stem} is left out: {error}", file=sys.stderr)


def main() -> None:
    parser = argparse.ArgumentParser(description="What Wove costs beside the native use of a task queue.")
    parser.add_argument("--rounds", type=int, default=9, help="how often each pair is measured (default: 9)")
    parser.add_argument("--only", help="one of the queues, e.g. celery; writes nothing")
    arguments = parser.parse_args()
    for subject in subjects(arguments.only):
        with subject.queue() as queue:
            here = {"executor": "local"}
            wove.config(default_environment="here", environments={"here": here, "queue": queue.environment})
            queue.many(JOBS)
            weave_of(JOBS)
            text = table(measure(queue, arguments.rounds), subject.bars)
            wove.shutdown()
        print(f"{subject.name}\n\n{text}\n")
        if not arguments.only:
            command = "python benchmarks/queues.py"
            write_section(HERE / "RESULTS.md", f"Queues: {subject.name}", command, text)


if __name__ == "__main__":
    # The worker imports the tasks from the module, so they must not belong to __main__ here.
    sys.path.insert(0, str(HERE))
    import_module("queues").main()
