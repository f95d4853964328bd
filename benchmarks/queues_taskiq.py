"""Taskiq with lists and results in Redis: native jobs on one ``taskiq worker``, Wove's on one ``wove_taskiq.worker``.
Collected by ``queues.py``.

A native caller has to poll for a result. Taskiq's own interval is 200 ms; here it is 10 ms, or what
``WOVE_BENCHMARK_POLL_SECONDS`` says.
"""

import asyncio
import os
import subprocess
import sys
import tempfile
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import queues
from taskiq_redis import RedisAsyncResultBackend

from wove_taskiq.listening import LastingListBroker

PORT_VARIABLE = "WOVE_BENCHMARK_REDIS"
TASKIQ = str(Path(sys.executable).with_name("taskiq"))
POLL_SECONDS = float(os.environ.get("WOVE_BENCHMARK_POLL_SECONDS", "0.01"))


def make_broker(port: str) -> LastingListBroker:
    url = f"redis://127.0.0.1:{port}/0"
    broker = LastingListBroker(url)
    # A result that has been read is not kept.
    broker.with_result_backend(RedisAsyncResultBackend(url, keep_results=False))
    return broker


broker = make_broker(os.environ.get(PORT_VARIABLE, "1"))


@broker.task(task_name="echo")
async def echo(item: int) -> int:
    return item


def start_worker(command: list[str], port: int, output: Any) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(
        [*command, "--log-level", "WARNING"],
        cwd=queues.HERE,
        env={**os.environ, PORT_VARIABLE: str(port), "PYTHONPATH": str(queues.HERE)},
        stdout=output,
        stderr=output,
    )


@contextmanager
def queue() -> Iterator[queues.Queue]:
    with queues.redis_server() as port, tempfile.TemporaryFile() as output, asyncio.Runner() as runner:
        native = make_broker(str(port))

        async def result_of(number: int) -> int:
            sent = await echo.kicker().with_broker(native).kiq(number)
            return (await sent.wait_result(check_interval=POLL_SECONDS)).return_value

        async def results_of(jobs: int) -> list[int]:
            sent = [await echo.kicker().with_broker(native).kiq(number) for number in range(jobs)]
            return [(await each.wait_result(check_interval=POLL_SECONDS)).return_value for each in sent]

        def run(coroutine: Coroutine[Any, Any, Any]) -> Any:
            return runner.run(coroutine)

        def round_trip() -> None:
            assert run(result_of(1)) == 1

        def many(jobs: int) -> None:
            assert run(results_of(jobs)) == list(range(jobs))

        url = f"redis://127.0.0.1:{port}/0"
        own = [sys.executable, "-m", "wove_taskiq.worker", "--url", url, "--queue-name", "wove"]
        workers = [
            start_worker([TASKIQ, "worker", "queues_taskiq:broker"], port, output),
            start_worker(own, port, output),
        ]
        try:
            run(native.startup())
            round_trip()
            config = {"broker": url, "queue_name": "wove"}
            yield queues.Queue({"executor": "taskiq", "executor_config": config}, round_trip, many)
            run(native.shutdown())
        finally:
            for worker in workers:
                worker.terminate()
            for worker in workers:
                worker.wait()


SUBJECT = queues.Subject("taskiq", queues.Bars(task=1.0), queue)
