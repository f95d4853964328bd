"""RQ: native jobs on one ``rq worker``, Wove's on one ``python -m wove_rq.worker``. Collected by ``queues.py``.

Set ``WOVE_BENCHMARK_SAME_WORKER=1`` to let the native jobs, too, run on a worker of Wove's preloading class.
"""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import queues
from redis import Redis
from rq import Queue
from rq.job import Job

import wove_rq  # noqa: F401 - without it there is nothing to measure

POLL_SECONDS = 0.001
# Of the standard library, so that no native job has anything to import.
FUNCTION = "operator.index"
NATIVE, OURS = "native", "wove"
PLAIN = [str(Path(sys.executable).with_name("rq")), "worker"]
PRELOADING = [sys.executable, "-m", "wove_rq.worker", "--preload", "queues"]


def start_worker(command: list[str], url: str, queue_name: str, output: Any) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(
        [*command, "--url", url, queue_name],
        cwd=queues.HERE,
        env={**os.environ, "PYTHONPATH": str(queues.HERE)},
        stdout=output,
        stderr=output,
    )


def value_of(job: Job) -> Any:
    while not job.is_finished:
        time.sleep(POLL_SECONDS)
    return job.return_value()


@contextmanager
def queue() -> Iterator[queues.Queue]:
    with queues.redis_server() as port, tempfile.TemporaryFile() as output:
        url = f"redis://127.0.0.1:{port}/0"
        native = Queue(NATIVE, connection=Redis.from_url(url))

        def round_trip() -> None:
            assert value_of(native.enqueue(FUNCTION, 1)) == 1

        def many(jobs: int) -> None:
            enqueued = native.enqueue_many([Queue.prepare_data(FUNCTION, (number,)) for number in range(jobs)])
            assert [value_of(job) for job in enqueued] == list(range(jobs))

        baseline = PRELOADING if os.environ.get("WOVE_BENCHMARK_SAME_WORKER") else PLAIN
        workers = [start_worker(baseline, url, NATIVE, output), start_worker(PRELOADING, url, OURS, output)]
        try:
            round_trip()
            yield queues.Queue(
                {"executor": "rq", "executor_config": {"redis_url": url, "queue_name": OURS}}, round_trip, many
            )
        finally:
            for worker in workers:
                worker.terminate()
            for worker in workers:
                worker.wait()


SUBJECT = queues.Subject("rq", queues.Bars(task=1.2), queue)
