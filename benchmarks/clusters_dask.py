"""Dask: a scheduler and two workers with a thread each, one ``distributed.Client`` for the native jobs. Collected by
``clusters.py``.

Native jobs at once are calls of ``Client.submit``; with ``WOVE_BENCHMARK_NATIVE_MAP=1`` they are one ``Client.map``.
"""

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import clusters
from distributed import Client

import wove_dask  # noqa: F401 - without it there is nothing to measure

DASK = str(Path(sys.executable).with_name("dask"))
WORKERS = 2
AS_MAP = bool(os.environ.get("WOVE_BENCHMARK_NATIVE_MAP"))


@contextmanager
def process(command: list[str], folder: str, output: Any) -> Iterator[None]:
    env = {**os.environ, "PYTHONPATH": str(clusters.HERE), "OMP_NUM_THREADS": "1"}
    started = subprocess.Popen([DASK, *command], cwd=folder, env=env, stdout=output, stderr=output)
    try:
        yield
    finally:
        started.terminate()
        started.wait()


@contextmanager
def cluster() -> Iterator[clusters.Cluster]:
    port = clusters.free_port()
    address = f"tcp://127.0.0.1:{port}"
    scheduler = ["scheduler", "--host", "127.0.0.1", "--port", str(port), "--no-dashboard"]
    worker = ["worker", address, "--host", "127.0.0.1", "--nthreads", "1", "--nanny", "--no-dashboard"]
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        output = stack.enter_context(tempfile.TemporaryFile())
        stack.enter_context(process(scheduler, folder, output))
        clusters.wait_for_port(port)
        for number in range(WORKERS):
            stack.enter_context(process([*worker, "--name", f"worker-{number}"], folder, output))
        client = stack.enter_context(Client(address, set_as_default=False))
        client.wait_for_workers(WORKERS, timeout=60)

        def round_trip() -> None:
            assert client.submit(clusters.echo, 1, pure=False).result() == 1

        def many(jobs: int) -> None:
            if AS_MAP:
                futures = client.map(clusters.echo, range(jobs), pure=False)
            else:
                futures = [client.submit(clusters.echo, number, pure=False) for number in range(jobs)]
            assert client.gather(futures) == list(range(jobs))

        yield clusters.Cluster({"executor": "dask", "executor_config": {"address": address}}, round_trip, many)


SUBJECT = clusters.Subject("dask", clusters.BARS, cluster)
