"""Celery with Redis as broker and result backend, a worker with two prefork processes. Collected by ``queues.py``."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

import queues
from celery import Celery

import wove_celery  # noqa: F401 - without it there is nothing to measure

PORT_VARIABLE = "WOVE_BENCHMARK_REDIS"


def urls(port: str) -> dict[str, str]:
    return {"broker_url": f"redis://127.0.0.1:{port}/0", "result_backend": f"redis://127.0.0.1:{port}/1"}


app = Celery("benchmark")
app.task(name="echo")(queues.echo)
if PORT_VARIABLE in os.environ:  # In the worker.
    app.conf.update(urls(os.environ[PORT_VARIABLE]))


def round_trip() -> None:
    assert app.send_task("echo", [1]).get() == 1


def many(jobs: int) -> None:
    results = [app.send_task("echo", [number]) for number in range(jobs)]
    assert [result.get() for result in results] == list(range(jobs))


@contextmanager
def queue() -> Iterator[queues.Queue]:
    with queues.redis_server() as port, tempfile.TemporaryFile() as output:
        app.conf.update(urls(str(port)))
        options = ["-I", "wove_celery.worker", "-c", "2", "--without-mingle"]
        worker = subprocess.Popen(
            [sys.executable, "-m", "celery", "-A", "queues_celery", "worker", *options],
            cwd=queues.HERE,
            env={**os.environ, PORT_VARIABLE: str(port)},
            stdout=output,
            stderr=output,
        )
        try:
            round_trip()
            environment = {"executor": "celery", "executor_config": {"broker_url": f"redis://127.0.0.1:{port}/0"}}
            yield queues.Queue(environment, round_trip, many)
        finally:
            worker.terminate()
            worker.wait()


SUBJECT = queues.Subject("celery", queues.Bars(task=1.2), queue)
