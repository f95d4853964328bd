"""What the stdio executor costs beside `concurrent.futures.ProcessPoolExecutor`, one worker process each.

Run it with ``python benchmarks/dispatch_stdio.py`` (``--rounds N``); it prints a table. The pool starts its process by
``spawn``; the worker processes of both are warm, and both run the same functions.

- *at once*: all tasks are submitted before the first result is awaited; a weave maps the task over a range.
- *in turn*: each task is submitted when the result of the one before has come; a weave's runtime runs one task after
  the other on a running event loop, and so does the loop with the pool (``run_in_executor``).
"""

import argparse
import asyncio
import multiprocessing
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import cache, partial
from pathlib import Path
from typing import Any

from measure import Case, Job, measure, run_job, table

import wove
from wove import weave
from wove.environment.routing import ExecutorRuntime

TASKS = 500
MEGABYTE = 1_000_000


def same(number: int) -> int:
    return number


def some_bytes(count: int) -> bytes:
    return b"x" * count


@cache
def pool() -> ProcessPoolExecutor:
    started = ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn"))
    started.submit(same, 1).result()
    return started


@cache
def configured() -> None:
    """Route the environment ``process`` to a worker process that is running."""
    wove.config(environments={"default": {"executor": "local"}, "process": {"executor": "stdio"}})
    weave_at_once(same, [1])


def pool_at_once(function: Callable[[int], Any], items: list[int]) -> float:
    started = time.perf_counter()
    futures = [pool().submit(function, item) for item in items]
    results = [future.result() for future in futures]
    took = time.perf_counter() - started
    assert len(results) == len(items)
    return took


def weave_at_once(function: Callable[[int], Any], items: list[int]) -> float:
    started = time.perf_counter()
    with weave() as w:
        w.do(items, environment="process")(function)
    took = time.perf_counter() - started
    assert len(w.result.final) == len(items)
    return took


def by_weave(function: Callable[[int], Any], items: list[int]) -> float:
    configured()
    return weave_at_once(function, items)


def by_pool(function: Callable[[int], Any], items: list[int]) -> float:
    pool()
    return pool_at_once(function, items)


async def _in_turn_by_pool() -> float:
    loop = asyncio.get_running_loop()
    await loop.run_in_executor(pool(), same, 1)
    started = time.perf_counter()
    for number in range(TASKS):
        await loop.run_in_executor(pool(), same, number)
    return time.perf_counter() - started


async def _in_turn_by_runtime() -> float:
    runtime = ExecutorRuntime({"process": {"executor": "stdio"}}, {})
    await runtime.start()
    info = {"environment": "process", "attempt": 1}
    try:
        await runtime.run_task(task_name="same", task_func=same, task_args={"number": 1}, task_info=info)
        started = time.perf_counter()
        for number in range(TASKS):
            await runtime.run_task(task_name="same", task_func=same, task_args={"number": number}, task_info=info)
        return time.perf_counter() - started
    finally:
        await runtime.stop()


ALL = list(range(TASKS))
JOBS: dict[str, Job] = {
    "no-ops at once, pool": partial(by_pool, same, ALL),
    "no-ops at once, weave": partial(by_weave, same, ALL),
    "no-ops in turn, pool": lambda: asyncio.run(_in_turn_by_pool()),
    "no-ops in turn, runtime": lambda: asyncio.run(_in_turn_by_runtime()),
    "10 x 1 MB, pool": partial(by_pool, some_bytes, [MEGABYTE] * 10),
    "10 x 1 MB, weave": partial(by_weave, some_bytes, [MEGABYTE] * 10),
    "1 x 20 MB, pool": partial(by_pool, some_bytes, [20 * MEGABYTE]),
    "1 x 20 MB, weave": partial(by_weave, some_bytes, [20 * MEGABYTE]),
}
CASES = [
    Case(
        f"stdio, {TASKS} no-ops at once, against a process pool", "no-ops at once, pool", "no-ops at once, weave", 1.2
    ),
    Case(
        f"stdio, {TASKS} no-ops in turn, against a process pool", "no-ops in turn, pool", "no-ops in turn, runtime", 1.2
    ),
    Case("stdio, results of 10 x 1 MB, against a process pool", "10 x 1 MB, pool", "10 x 1 MB, weave", 1.5),
    Case("stdio, a result of 20 MB, against a process pool", "1 x 20 MB, pool", "1 x 20 MB, weave", 1.5),
]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="how often each pair is measured")
    parser.add_argument("--job", choices=JOBS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.job:
        run_job(JOBS, options.job, repeat=5)
    else:
        print(table(measure(Path(__file__), CASES, rounds=options.rounds)))


if __name__ == "__main__":
    main()
