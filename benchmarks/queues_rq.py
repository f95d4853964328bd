"""RQ with one worker of the preloading class, for native jobs and Wove's. Collected by ``queues.py``."""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import queues
import wove_rq  # noqa: F401 - without it there is nothing to measure
from redis import Redis
from rq import Queue
from rq.job import Job

POLL_SECONDS = 0.001
FUNCTION = "queues.echo"


def value_of(job: Job) -> Any:
    while not job.is_finished:
        time.sleep(POLL_SECONDS)
    return job.return_value()


@contextmanager
def queue() -> Iterator[queues.Queue]:
    with queues.redis_server() as port, tempfile.TemporaryFile() as output:
        url = f"redis://127.0.0.1:{port}/0"
        native = Queue(connection=Redis.from_url(url))

        def round_trip() -> None:
            assert value_of(native.enqueue(FUNCTION, 1)) == 1

        def many(jobs: int) -> None:
            enqueued = native.enqueue_many([Queue.prepare_data(FUNCTION, (number,)) for number in range(jobs)])
            assert [value_of(job) for job in enqueued] == list(range(jobs))

        worker = subprocess.Popen(
            [sys.executable, "-m", "wove_rq.worker", "--url", url, "--preload", "queues"],
            cwd=queues.HERE,
            env={**os.environ, "PYTHONPATH": str(queues.HERE)},
            stdout=output,
            stderr=output,
        )
        try:
            round_trip()
            yield queues.Queue({"executor": "rq", "executor_config": {"redis_url": url}}, round_trip, many)
        finally:
            worker.terminate()
            worker.wait()


SUBJECT = queues.Subject("rq", queues.Bars(task=1.2), queue)
