"""What a weave costs beside the same thing written by hand with asyncio.

Run it with ``python benchmarks/local.py`` (``--rounds N``, ``--only TEXT``); it prints a table and writes it to
``benchmarks/RESULTS.md``.

- *import*: a fresh interpreter that imports the package, the interpreter's own start taken off. The second row loads
  asyncio as well, since a weave needs it.
- *one task*: a coroutine that returns at once.
- *fan-out*: 10,000 items; the asynchronous item awaits ``asyncio.sleep(0)`` as anything that waits does, the
  synchronous one returns its square.
- *chain*: 1,000 tasks, each needing the one before. By hand: one coroutine that awaits them in turn, each awaiting
  ``asyncio.sleep(0)``; the synchronous ones by ``asyncio.to_thread``, since that is what keeps the loop free.
  Declaring the tasks counts.
- *diamond*: one task, 1,000 that need it, one that needs them all.
- *uneven lanes*, *one straggler*: sleeping tasks; the baseline is the critical path.
- *memory*: bytes per item of a fan-out that is waiting, by ``tracemalloc``.
"""

import argparse
import asyncio
import gc
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Awaitable, Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from measure import Case, Job, measure, run_job, table, write_section

from wove import weave

HERE = Path(__file__)
FAN_OUT = 10_000
CHAIN = 1_000


def timed(work: Callable[[], object]) -> float:
    gc.collect()
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def per_call(work: Callable[[], object], *, calls: int = 200) -> float:
    return timed(lambda: [work() for _ in range(calls)]) / calls


def in_loop(work: Callable[[], Coroutine[Any, Any, object]], *, calls: int = 500) -> float:
    async def all_calls() -> float:
        await work()
        gc.collect()
        started = time.perf_counter()
        for _ in range(calls):
            await work()
        return (time.perf_counter() - started) / calls

    return asyncio.run(all_calls())


# --- import ---


def importing(module: str) -> Job:
    def job() -> float:
        def start(code: str) -> float:
            return timed(lambda: subprocess.run([sys.executable, "-c", code], check=True))

        return min(start(f"import {module}") for _ in range(5)) - min(start("pass") for _ in range(5))

    return job


# --- one task ---


async def one() -> int:
    return 1


def one_task_blocking() -> None:
    with weave() as w:
        w.do(one)
    assert w.result.one == 1


async def one_task_in_loop() -> None:
    async with weave() as w:
        w.do(one)
    assert w.result.one == 1


async def one_task_by_task_group() -> None:
    async with asyncio.TaskGroup() as group:
        task = group.create_task(one())
    assert task.result() == 1


# --- fan-out ---


async def square_slowly(number: int) -> int:
    await asyncio.sleep(0)
    return number * number


def square(number: int) -> int:
    return number * number


async def fan_out_by_task_group() -> None:
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(square_slowly(number)) for number in range(FAN_OUT)]
    assert len([task.result() for task in tasks]) == FAN_OUT


async def fan_out() -> None:
    async with weave() as w:
        w.do(range(FAN_OUT))(square_slowly)
    assert len(w.result.square_slowly) == FAN_OUT


def sync_fan_out_by_pool() -> None:
    with ThreadPoolExecutor(256) as pool:
        assert len(list(pool.map(square, range(FAN_OUT)))) == FAN_OUT


def sync_fan_out() -> None:
    with weave(max_workers=256) as w:
        w.do(range(FAN_OUT))(square)
    assert len(w.result.square) == FAN_OUT


# --- chain and diamond ---


def chained(*, asynchronous: bool) -> list[Callable[..., Any]]:
    """Make functions ``t0()``, ``t1(t0)``, ``t2(t1)`` and so on, as if somebody had written them out."""
    lines = [_function("t0", "", "0", asynchronous)]
    lines += [_function(f"t{n}", f"t{n - 1}", f"t{n - 1} + 1", asynchronous) for n in range(1, CHAIN)]
    return _functions(lines)


def diamond_tasks(*, asynchronous: bool) -> list[Callable[..., Any]]:
    middle = [f"m{n}" for n in range(CHAIN)]
    lines = [_function("top", "", "1", asynchronous)]
    lines += [_function(name, "top", "top + 1", asynchronous) for name in middle]
    # A call takes any number of arguments, and a definition any number of parameters.
    lines.append(_function("bottom", ", ".join(middle), f"sum(({', '.join(middle)}))", asynchronous))
    return _functions(lines)


def _function(name: str, parameters: str, value: str, asynchronous: bool) -> str:
    if asynchronous:
        return f"async def {name}({parameters}):\n    await sleep(0)\n    return {value}\n"
    return f"def {name}({parameters}):\n    return {value}\n"


def _functions(lines: list[str]) -> list[Callable[..., Any]]:
    namespace: dict[str, Any] = {"sleep": asyncio.sleep}
    exec("".join(lines), namespace)
    return [value for name, value in namespace.items() if name not in ("sleep", "__builtins__")]


def weave_of(functions: list[Callable[..., Any]]) -> Callable[[], None]:
    def work() -> None:
        with weave() as w:
            for function in functions:
                w.do(function)
        assert w.result.final >= CHAIN - 1

    return work


def chain_by_hand(functions: list[Callable[..., Any]], *, asynchronous: bool) -> Callable[[], None]:
    async def main() -> None:
        value = await _call(functions[0], asynchronous)
        for function in functions[1:]:
            value = await _call(function, asynchronous, value)
        assert value == CHAIN - 1

    return lambda: asyncio.run(main())


def diamond_by_hand(functions: list[Callable[..., Any]], *, asynchronous: bool) -> Callable[[], None]:
    async def main() -> None:
        top = await _call(functions[0], asynchronous)
        middle = await asyncio.gather(*(_call(function, asynchronous, top) for function in functions[1:-1]))
        assert await _call(functions[-1], asynchronous, *middle) == 2 * CHAIN

    return lambda: asyncio.run(main())


def _call(function: Callable[..., Any], asynchronous: bool, *arguments: Any) -> Awaitable[Any]:
    return function(*arguments) if asynchronous else asyncio.to_thread(function, *arguments)


def graph_job(make: Callable[..., list[Callable[..., Any]]], *, asynchronous: bool, by_hand: Any = None) -> Job:
    def job() -> float:
        functions = make(asynchronous=asynchronous)
        return timed(by_hand(functions, asynchronous=asynchronous) if by_hand else weave_of(functions))

    return job


# --- readiness ---


def lanes() -> float:
    """Two lanes of three sleeps, long-short-short and short-short-long: 0.5 s, where tiers would take 0.7 s."""
    with weave() as w:

        @w.do
        async def a1() -> None:
            await asyncio.sleep(0.3)

        @w.do
        async def a2(a1: None) -> None:
            await asyncio.sleep(0.1)

        @w.do
        async def a3(a2: None) -> None:
            await asyncio.sleep(0.1)

        @w.do
        async def b1() -> None:
            await asyncio.sleep(0.1)

        @w.do
        async def b2(b1: None) -> None:
            await asyncio.sleep(0.1)

        @w.do
        async def b3(b2: None) -> None:
            await asyncio.sleep(0.3)

    return 0.0


def straggler() -> float:
    """One slow task beside a chain of quick ones that nothing but its own dependencies may hold up."""
    with weave() as w:

        @w.do
        def slow() -> None:
            time.sleep(0.5)

        @w.do
        def quick() -> list[int]:
            time.sleep(0.1)
            return [1, 2, 3, 4]

        @w.do("quick")
        def each(number: int) -> None:
            time.sleep(0.1)

        @w.do
        def after(each: list[None]) -> None:
            time.sleep(0.2)

    return 0.0


# --- memory ---


def pending_bytes(start: Callable[[Callable[[int], Coroutine[Any, Any, None]]], Coroutine[Any, Any, object]]) -> float:
    """Return the bytes per item while all items of a fan-out wait."""

    async def main() -> float:
        gate = asyncio.Event()
        all_wait = asyncio.Event()
        waiting = 0

        async def item(number: int) -> None:
            nonlocal waiting
            waiting += 1
            if waiting == FAN_OUT:
                all_wait.set()
            await gate.wait()

        tracemalloc.start()
        before, _ = tracemalloc.get_traced_memory()
        fan_out = asyncio.create_task(start(item))
        await all_wait.wait()
        used = tracemalloc.get_traced_memory()[0] - before
        tracemalloc.stop()
        gate.set()
        await fan_out
        return used / FAN_OUT

    return asyncio.run(main())


async def pending_in_task_group(item: Callable[[int], Coroutine[Any, Any, None]]) -> None:
    async with asyncio.TaskGroup() as group:
        for number in range(FAN_OUT):
            group.create_task(item(number))


async def pending_in_weave(item: Callable[[int], Coroutine[Any, Any, None]]) -> None:
    async with weave() as w:
        w.do(range(FAN_OUT))(item)


JOBS: dict[str, Job] = {
    "import asyncio": importing("asyncio"),
    "import wove": importing("wove"),
    "from wove import weave": importing("wove; from wove import weave"),
    "one blocking, asyncio": lambda: per_call(lambda: asyncio.run(one())),
    "one blocking, weave": lambda: per_call(one_task_blocking),
    "one in loop, TaskGroup": lambda: in_loop(one_task_by_task_group),
    "one in loop, weave": lambda: in_loop(one_task_in_loop),
    "async fan-out, TaskGroup": lambda: timed(lambda: asyncio.run(fan_out_by_task_group())),
    "async fan-out, weave": lambda: timed(lambda: asyncio.run(fan_out())),
    "sync fan-out, pool": lambda: timed(sync_fan_out_by_pool),
    "sync fan-out, weave": lambda: timed(sync_fan_out),
    "async chain, hand": graph_job(chained, asynchronous=True, by_hand=chain_by_hand),
    "async chain, weave": graph_job(chained, asynchronous=True),
    "sync chain, hand": graph_job(chained, asynchronous=False, by_hand=chain_by_hand),
    "sync chain, weave": graph_job(chained, asynchronous=False),
    "async diamond, hand": graph_job(diamond_tasks, asynchronous=True, by_hand=diamond_by_hand),
    "async diamond, weave": graph_job(diamond_tasks, asynchronous=True),
    "sync diamond, hand": graph_job(diamond_tasks, asynchronous=False, by_hand=diamond_by_hand),
    "sync diamond, weave": graph_job(diamond_tasks, asynchronous=False),
    "critical path": lambda: 0.5,
    "lanes, weave": lambda: timed(lanes),
    "straggler, weave": lambda: timed(straggler),
    "pending, TaskGroup": lambda: pending_bytes(pending_in_task_group),
    "pending, weave": lambda: pending_bytes(pending_in_weave),
}

CASES = [
    Case("`import wove` / `import asyncio`", "import asyncio", "import wove", 1.25),
    Case("`from wove import weave` / `import asyncio`", "import asyncio", "from wove import weave", 2.5),
    Case("one task, sync block / `asyncio.run`", "one blocking, asyncio", "one blocking, weave", 2, "us"),
    Case("one task in a running loop / TaskGroup", "one in loop, TaskGroup", "one in loop, weave", 8, "us"),
    Case("async fan-out of 10,000 / TaskGroup", "async fan-out, TaskGroup", "async fan-out, weave", 1.5),
    Case("sync fan-out of 10,000 / ThreadPoolExecutor.map", "sync fan-out, pool", "sync fan-out, weave", 1),
    Case("async chain of 1,000 / by hand", "async chain, hand", "async chain, weave", 4),
    Case("sync chain of 1,000 / by hand", "sync chain, hand", "sync chain, weave", 10),
    Case("async diamond 1-1000-1 / by hand", "async diamond, hand", "async diamond, weave", 4),
    Case("sync diamond 1-1000-1 / by hand", "sync diamond, hand", "sync diamond, weave", 10),
    Case("uneven lanes / critical path", "critical path", "lanes, weave", 1.03),
    Case("one straggler / critical path", "critical path", "straggler, weave", 1.03),
    Case("memory per pending mapped task / TaskGroup", "pending, TaskGroup", "pending, weave", 2, "bytes"),
]


def main() -> None:
    parser = argparse.ArgumentParser(description="What a weave costs beside the same thing written by hand.")
    parser.add_argument("--rounds", type=int, default=5, help="how often each pair is measured (default: 5)")
    parser.add_argument("--only", default="", help="measure the cases whose name contains this text; writes nothing")
    parser.add_argument("--job", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.job:
        run_job(JOBS, arguments.job, repeat=3)
        return
    text = table(measure(HERE, [case for case in CASES if arguments.only in case.name], rounds=arguments.rounds))
    print(text)
    if not arguments.only:
        write_section(HERE.with_name("RESULTS.md"), "Local weaves", "python benchmarks/local.py", text)


if __name__ == "__main__":
    main()
