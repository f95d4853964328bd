"""A Dask scheduler and workers under nannies, as real processes and as the kit's `Deployment`."""

import subprocess
import sys
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from distributed import Client

from tests.support.deployments import AnnouncedWorker, RelayedDeployment
from tests.support.servers import HOST, wait_for_port
from wove.testing.servers import free_port

# Dask's command, beside the interpreter that runs the tests.
DASK = str(Path(sys.executable).with_name("dask"))
# A machine that is busy takes its time to start a process.
_SECONDS = 80.0
_SETTLE_SECONDS = 0.05


class Scheduler:
    """A running scheduler, and a client of the tests' own that looks into it.

    Attributes:
        port: where it listens.
    """

    def __init__(self, port: int, process: "subprocess.Popen[bytes]") -> None:
        self.port = port
        self._process = process
        self._client = Client(self.address(), set_as_default=False)

    def address(self, port: int | None = None) -> str:
        """Return the address, or that of a relay at another port."""
        return f"tcp://{HOST}:{port or self.port}"

    def tasks(self) -> set[str]:
        """Return the keys of all tasks."""
        keys: set[str] = self._client.run_on_scheduler(_tasks)
        return keys

    def prefixes(self) -> set[str]:
        """Return the names under which the dashboard groups tasks."""
        names: set[str] = self._client.run_on_scheduler(_prefixes)
        return names

    def clients(self) -> int:
        """Return how many clients are connected, beside the tests' own."""
        count: int = self._client.run_on_scheduler(_clients)
        return count - 1

    def workers(self) -> Mapping[str, Any]:
        """Return the workers by their addresses."""
        workers: Mapping[str, Any] = self._client.scheduler_info(n_workers=-1)["workers"]
        return workers

    def wait_for_workers(self, count: int) -> None:
        """Return as soon as there are that many workers."""
        deadline = time.monotonic() + _SECONDS
        while len(self.workers()) != count:
            assert time.monotonic() < deadline, f"There are {len(self.workers())} workers instead of {count}."
            time.sleep(0.02)

    def kill(self) -> None:
        """Kill the scheduler; return when it is gone."""
        self._process.kill()
        self._process.wait()

    def close(self) -> None:
        """Close the tests' client."""
        self._client.close()


# By value, so that the scheduler needs not import this module.
_tasks = eval("lambda dask_scheduler: {key for key in dask_scheduler.tasks}")
_prefixes = eval("lambda dask_scheduler: {name for name in dask_scheduler.task_prefixes}")
_clients = eval("lambda dask_scheduler: len(dask_scheduler.clients) - ('fire-and-forget' in dask_scheduler.clients)")


@contextmanager
def running_scheduler(directory: Path) -> Iterator[Scheduler]:
    """Run a scheduler.

    Args:
        directory: its working directory.
    """
    port = free_port()
    command = [DASK, "scheduler", "--host", HOST, "--port", str(port), "--no-dashboard"]
    with (directory / "output").open("wb") as output:
        process = subprocess.Popen(command, cwd=directory, stdin=subprocess.DEVNULL, stdout=output, stderr=output)
        try:
            wait_for_port(port, process, seconds=_SECONDS)
            scheduler = Scheduler(port, process)
            try:
                yield scheduler
            finally:
                scheduler.close()
        finally:
            process.terminate()
            process.wait()


def worker_command(address: str, directory: Path, *options: str) -> Sequence[str]:
    """Return the command of a worker with one thread, under a nanny."""
    place = ["--host", HOST, "--local-directory", str(directory / "dask")]
    return [DASK, "worker", address, *place, "--nthreads", "1", "--nanny", "--no-dashboard", *options]


class DaskDeployment(RelayedDeployment):
    """Two workers, each under a nanny, at a scheduler that weaves reach through a relay.

    Args:
        scheduler: the scheduler.
        directory: for the workers' files and their spool.
        config: more keys of the ``executor_config``.
        options: more options for each worker; as many workers are started.
    """

    def __init__(
        self,
        scheduler: Scheduler,
        directory: Path,
        *,
        config: dict[str, Any] | None = None,
        options: Sequence[Sequence[str]] = ((), ()),
    ) -> None:
        self.scheduler = scheduler
        self._config = config or {}
        env = {"WOVE_SPOOL_DIR": str(directory / "spool"), "OMP_NUM_THREADS": "1"}
        command = [worker_command(scheduler.address(), directory, *each) for each in options]
        made = [AnnouncedWorker(each, announcement="Registered to: ", env=env) for each in command]
        super().__init__(scheduler.port, *made)

    def environment(self) -> dict[str, Any]:
        """Return the environment; the address leads through the relay."""
        return {
            "executor": "dask",
            "executor_config": {"address": self.scheduler.address(self.relay.port), **self._config},
        }

    def ensure_worker(self) -> None:
        """Start workers unless they are there; those that were killed are replaced by their nannies."""
        # Importing Dask takes most of the time that a start takes.
        with ThreadPoolExecutor() as threads:
            list(threads.map(AnnouncedWorker.ensure, self.workers))
        self.scheduler.wait_for_workers(len(self.workers))

    def kill_worker(self) -> None:
        """Kill the workers and their nannies; return when the scheduler has noticed."""
        super().kill_worker()
        self.scheduler.wait_for_workers(0)

    def leftovers(self) -> Collection[str]:
        """Return the tasks that the scheduler knows."""
        # Clients gather for ten milliseconds what they send.
        seen, again = self.scheduler.tasks(), None
        while seen != again:
            time.sleep(_SETTLE_SECONDS)
            seen, again = self.scheduler.tasks(), seen
        return seen
