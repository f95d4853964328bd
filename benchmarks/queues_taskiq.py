"""Taskiq with Redis as list broker and result backend, one worker with two processes. Collected by ``queues.py``."""

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
from taskiq_redis import ListQueueBroker, RedisAsyncResultBackend

import wove_taskiq  # noqa: F401 - without it there is nothing to measure

PORT_VARIABLE = "WOVE_BENCHMARK_REDIS"
TASKIQ = str(Path(sys.executable).with_name("taskiq"))
POLL_SECONDS = 0.001


def make_broker(port: str) -> ListQueueBroker:
    url = f"redis://127.0.0.1:{port}/0"
    broker = ListQueueBroker(url)
    # A result that has been read is not kept.
    broker.with_result_backend(RedisAsyncResultBackend(url, keep_results=False))
    return broker


broker = make_broker(os.environ.get(PORT_VARIABLE, "1"))


@broker.task(task_name="echo")
async def echo(item: int) -> int:
    return item


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

        worker = subprocess.Popen(
            [TASKIQ, "worker", "queues_taskiq:broker", "wove_taskiq.worker", "--log-level", "WARNING"],
            cwd=queues.HERE,
            env={**os.environ, PORT_VARIABLE: str(port)},
            stdout=output,
            stderr=output,
        )
        try:
            run(native.startup())
            round_trip()
            config = {"broker": f"redis://127.0.0.1:{port}/0"}
            yield queues.Queue({"executor": "taskiq", "executor_config": config}, round_trip, many)
            run(native.shutdown())
        finally:
            worker.terminate()
            try:
                worker.wait(15.0)
            except subprocess.TimeoutExpired:
                worker.kill()


SUBJECT = queues.Subject("taskiq", queues.Bars(task=1.0), queue)
