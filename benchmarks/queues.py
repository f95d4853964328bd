"""What Wove costs beside the native use of a task queue, both with the same worker.

Run it with ``python benchmarks/queues.py`` in an environment with one or more of the adapters (``--only celery``,
``--rounds N``); it prints a table for each and writes it to ``benchmarks/RESULTS.md``. What is measured stands at the
top of `comparison.py`.
"""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from tempfile import TemporaryDirectory

from comparison import HERE, Bars, Subject, echo, free_port, run, wait_for_port
from comparison import System as Queue

__all__ = ["HERE", "Bars", "Queue", "Subject", "echo", "main", "redis_server"]


@contextmanager
def redis_server() -> Iterator[int]:
    """Run a Redis server without persistence and yield its port."""
    port = free_port()
    with TemporaryDirectory() as folder:
        process = subprocess.Popen(
            ["redis-server", "--port", str(port), "--save", "", "--dir", folder], stdout=subprocess.DEVNULL
        )
        try:
            wait_for_port(port)
            yield port
        finally:
            process.terminate()
            process.wait()


def main() -> None:
    run("queues", "What Wove costs beside the native use of a task queue.")


if __name__ == "__main__":
    # Those who are measured import this module, which must not exist twice.
    sys.path.insert(0, str(HERE))
    import_module("queues").main()
