"""ARQ: one ``arq`` worker with the settings of ``wove_arq.worker`` for both, and ARQ's own pause between two looks at
its queue. Collected by ``queues.py``.

Native results are asked for every millisecond; ARQ's own ``Job.result`` does so twice a second.
"""

import asyncio
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import queues
from arq.connections import RedisSettings, create_pool
from arq.worker import func

from wove_arq.worker import URL_VARIABLE, make_settings, run_payload

# ARQ's own defaults, but that all jobs of a row may run at a time: otherwise it is rounds of half a second that count.
POLL_DELAY = float(os.environ.get("WOVE_BENCHMARK_POLL_DELAY", "0.5"))
MAX_JOBS = 250
RESULT_POLL_SECONDS = 0.001


async def echo(ctx: dict[str, Any], item: int) -> int:
    return queues.echo(item)


# For the worker: arq queues_arq.settings
settings = make_settings(
    functions=[run_payload, func(echo, keep_result=60)], poll_delay=POLL_DELAY, max_jobs=MAX_JOBS, log_results=False
)


@contextmanager
def queue() -> Iterator[queues.Queue]:
    with queues.redis_server() as port, tempfile.TemporaryFile() as output, asyncio.Runner() as runner:
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

        worker = subprocess.Popen(
            [str(Path(sys.executable).with_name("arq")), "queues_arq.settings"],
            cwd=queues.HERE,
            env={**os.environ, URL_VARIABLE: url, "PYTHONPATH": str(queues.HERE)},
            stdout=output,
            stderr=output,
        )
        try:
            round_trip()
            yield queues.Queue({"executor": "arq", "executor_config": {"redis_settings": url}}, round_trip, many)
        finally:
            worker.terminate()
            worker.wait()
            runner.run(pool.aclose(close_connection_pool=True))


SUBJECT = queues.Subject("arq", queues.Bars(task=1.05), queue)
