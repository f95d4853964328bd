"""Ray: a head with two processors, this process as a driver of it. Collected by ``clusters.py``."""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import clusters
import ray

import wove_ray  # noqa: F401 - without it there is nothing to measure

RAY = str(Path(sys.executable).with_name("ray"))
STARTED = b"Ray runtime started."
QUIET = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_AUTH_MODE": "disabled"}


def wait_for(words: bytes, output: Any, process: "subprocess.Popen[bytes]") -> None:
    """Return when a process has printed some words."""
    deadline = time.monotonic() + 120.0
    while words not in os.pread(output.fileno(), 100_000, 0):
        if process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError("Ray did not start.")
        time.sleep(0.05)


@contextmanager
def head() -> Iterator[str]:
    """Run a cluster of one node and yield its address."""
    port = clusters.free_port()
    # Sockets are in it, whose paths must be short.
    with tempfile.TemporaryDirectory(prefix="ray-", dir="/tmp", ignore_cleanup_errors=True) as folder:
        options = [f"--port={port}", "--num-cpus=2", "--include-dashboard=false", "--object-store-memory=200000000"]
        options += [f"--temp-dir={folder}", f"--ray-client-server-port={clusters.free_port()}"]
        env = {**os.environ, **QUIET, "PYTHONPATH": str(clusters.HERE)}
        with tempfile.TemporaryFile() as output:
            process = subprocess.Popen(
                [RAY, "start", "--head", "--block", *options], env=env, stdout=output, stderr=output
            )
            try:
                wait_for(STARTED, output, process)
                yield f"127.0.0.1:{port}"
            finally:
                process.terminate()
                process.wait()


@contextmanager
def cluster() -> Iterator[clusters.Cluster]:
    os.environ.update(QUIET)
    with head() as address:
        ray.init(address, log_to_driver=False, logging_level="WARNING")
        # As Wove does: no second attempts, and the function is exported once.
        echo = ray.remote(max_retries=0)(clusters.echo)

        def round_trip() -> None:
            assert ray.get(echo.remote(1)) == 1

        def many(jobs: int) -> None:
            assert ray.get([echo.remote(number) for number in range(jobs)]) == list(range(jobs))

        try:
            yield clusters.Cluster({"executor": "ray", "executor_config": {"address": address}}, round_trip, many)
        finally:
            ray.shutdown()


SUBJECT = clusters.Subject("ray", clusters.Bars(task=1.5, weave=3.0, throughput=0.5), cluster)
