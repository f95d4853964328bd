"""What the HTTP executor costs beside requests that are written by hand, both to the same worker service.

Run it with ``python benchmarks/dispatch_network.py`` (``--rounds N``); it prints a table.

- *HTTP, 300 tasks*: 32 at a time over kept connections. By hand: asyncio streams, one per worker, each request with
  pickled arguments and each answer unpickled; the callable is pickled once.
- *HTTP, 64 tasks of 100 ms*: all at a time; the baseline is the time that one of them takes, plus the 0.2 s that the
  whole may cost beyond that.
"""

import argparse
import asyncio
import atexit
import base64
import json
import os
import pickle
import subprocess
import sys
import time
from functools import cache
from pathlib import Path

import cloudpickle
from measure import Case, Job, measure, run_job, table

import wove
from wove import weave

TASKS = 300
WIDE = 32
SLEEPERS = 64
SLEEP = 0.1
ALLOWED_ON_TOP = 0.2


def square(number: int) -> int:
    return number * number


async def wait_a_little(number: int) -> int:
    await asyncio.sleep(SLEEP)
    return number


@cache
def service() -> int:
    """Start a worker service for this process and return its port."""
    command = [sys.executable, "-m", "wove.services", "http", "--port", "0", "--workers", "2"]
    # Its workers import the functions from here.
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    atexit.register(process.wait)
    atexit.register(process.terminate)
    assert process.stdout is not None
    return int(process.stdout.readline().split("127.0.0.1:")[1].split("/")[0])


@cache
def configured() -> None:
    """Route the environment ``remote`` to the service."""
    remote = {"executor": "http", "executor_config": {"url": f"http://127.0.0.1:{service()}/wove/tasks"}}
    wove.config(default_environment="default", environments={"default": {"executor": "local"}, "remote": remote})


def by_weave() -> float:
    configured()
    started = time.perf_counter()
    with weave() as w:
        w.do(range(TASKS), workers=WIDE, environment="remote")(square)
    took = time.perf_counter() - started
    assert w.result.square == [number * number for number in range(TASKS)]
    return took


def sleepers_by_weave() -> float:
    configured()
    started = time.perf_counter()
    with weave() as w:
        w.do(range(SLEEPERS), environment="remote")(wait_a_little)
    took = time.perf_counter() - started
    assert w.result.wait_a_little == list(range(SLEEPERS))
    return took


class ByHand:
    """What somebody would write who needs it fast: one connection per worker, a queue of numbers, no library."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.function = base64.b64encode(cloudpickle.dumps(square)).decode()
        self.connections = self.loop.run_until_complete(self.connect())
        self.sent = 0

    async def connect(self) -> list[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
        return [await asyncio.open_connection("127.0.0.1", service()) for _ in range(WIDE)]

    def run(self) -> float:
        started = time.perf_counter()
        results = self.loop.run_until_complete(self.all())
        took = time.perf_counter() - started
        assert results == [number * number for number in range(TASKS)]
        return took

    async def all(self) -> list[int]:
        results = [0] * TASKS
        numbers = iter(range(TASKS))

        async def work(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            for number in numbers:
                results[number] = await self.request(number, reader, writer)

        await asyncio.gather(*(work(*connection) for connection in self.connections))
        return results

    async def request(self, number: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> int:
        self.sent += 1
        arguments = base64.b64encode(pickle.dumps({"number": number})).decode()
        frame = {"type": "run_task", "run_id": f"by-hand-{self.sent}", "task_id": "square"}
        body = json.dumps({**frame, "callable_pickle": self.function, "args_pickle": arguments}).encode()
        writer.write(b"POST /wove/tasks HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        head = await reader.readuntil(b"\r\n\r\n")
        size = int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0])
        answer = json.loads(await reader.readexactly(size))
        result = pickle.loads(base64.b64decode(answer["result_pickle"]))
        assert isinstance(result, int)
        return result


@cache
def by_hand() -> ByHand:
    return ByHand()


JOBS: dict[str, Job] = {
    "http tasks, by hand": lambda: by_hand().run(),
    "http tasks, weave": by_weave,
    "http sleepers, allowed": lambda: SLEEP + ALLOWED_ON_TOP,
    "http sleepers, weave": sleepers_by_weave,
}
CASES = [
    Case(
        f"HTTP, {TASKS} tasks, {WIDE} at a time, against asyncio streams", "http tasks, by hand", "http tasks, weave", 2
    ),
    Case(
        f"HTTP, {SLEEPERS} tasks of 100 ms, against 100 ms + 200 ms",
        "http sleepers, allowed",
        "http sleepers, weave",
        1,
    ),
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
