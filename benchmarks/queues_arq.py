"""ARQ: one ``arq`` worker with the settings of ``wove_arq.worker`` for both, but ARQ's own defaults where they decide
how fast it is: the pause between two looks at its queue, and how many jobs run at a time. Collected by ``queues.py``.

Native results are asked for every 10 ms; ARQ's own ``Job.result`` does so twice a second.

How long 200 jobs take depends most on when they are enqueued: up to half a second passes until the worker looks at its
queue again, and it takes a hundred jobs at most each time. So each round begins at another moment between two looks,
the same for native jobs and for Wove's, and the rounds together go evenly through all moments.
"""

import asyncio
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

import queues
from arq.connections import RedisSettings, create_pool
from arq.worker import func

from wove_arq.worker import URL_VARIABLE, make_settings, run_payload

# ARQ's own defaults.
POLL_DELAY = float(os.environ.get("WOVE_BENCHMARK_POLL_DELAY", "0.5"))
MAX_JOBS = int(os.environ.get("WOVE_BENCHMARK_MAX_JOBS", "10"))
RESULT_POLL_SECONDS = 0.01
# Multiples of it, without their whole parts, are spread evenly however many there are.
GOLDEN = (5**0.5 - 1) / 2


async def echo(ctx: dict[str, Any], item: int) -> int:
    return queues.echo(item)


# For the worker: arq queues_arq.settings
settings = make_settings(
    functions=[run_payload, func(echo, keep_result=60)], poll_delay=POLL_DELAY, max_jobs=MAX_JOBS, log_results=False
)


def moments() -> Iterator[float]:
    """Yield seconds after a look of the worker's at its queue, twice each."""
    for number in count():
        moment = POLL_DELAY * (number * GOLDEN % 1.0)
        yield moment
        yield moment


@contextmanager
def queue() -> Iterator[queues.Queue]:
    with queues.redis_server() as port, tempfile.TemporaryFile() as output, asyncio.Runner() as runner:
        path = os.pathsep.join([str(queues.HERE), *filter(None, [os.environ.get("PYTHONPATH")])])
        url = f"redis://127.0.0.1:{port}/0"
        pool = runner.run(create_pool(RedisSettings.from_dsn(url)))

        async def native(item: int) -> int:
            job = await pool.enqueue_job("echo", item)
            assert job is not None
            result: int = await job.result(poll_delay=RESULT_POLL_SECONDS)
            return result

        async def natives(jobs: int) -> list[int]:
            enqueued = [await pool.enqueue_job("echo", number) for number in range(jobs)]
            return [await job.result(poll_delay=RESULT_POLL_SECONDS) for job in enqueued if job is not None]

        def round_trip() -> None:
            assert runner.run(native(1)) == 1

        def many(jobs: int) -> None:
            assert runner.run(natives(jobs)) == list(range(jobs))

        upcoming = moments()

        def settle() -> None:
            # The worker has looked at its queue when it has the job.
            round_trip()
            time.sleep(next(upcoming))

        worker = subprocess.Popen(
            [str(Path(sys.executable).with_name("arq")), "queues_arq.settings"],
            cwd=queues.HERE,
            env={**os.environ, URL_VARIABLE: url, "PYTHONPATH": path},
            stdout=output,
            stderr=output,
        )
        try:
            round_trip()
            environment = {"executor": "arq", "executor_config": {"redis_settings": url}}
            yield queues.Queue(environment, round_trip, many, settle)
        finally:
            worker.terminate()
            worker.wait()
            runner.run(pool.aclose(close_connection_pool=True))


SUBJECT = queues.Subject("arq", queues.Bars(task=1.05), queue)
