"""Taskiq workers at a real Redis server, as the kit's `Deployment`."""

import sys
import time
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio.client import Pipeline
from redis.exceptions import ConnectionError as RedisConnectionError

from tests.support import redis_server
from tests.support.deployments import AnnouncedWorker, RelayedDeployment

# Taskiq's command, beside the interpreter that runs the tests.
TASKIQ = str(Path(sys.executable).with_name("taskiq"))
_PROCESSES = 2


class RedisServer(redis_server.RedisServer):
    """A server that Taskiq uses."""

    def wait_until_deserted(self) -> None:
        """Return when no worker waits for a message."""
        with self.client() as client:
            while client.info("clients")["blocked_clients"]:
                time.sleep(0.01)

    def names(self, client: Any, key: str) -> set[str]:
        """Return the messages in a list or a stream. An empty stream is a queue, which the workers made."""
        match client.type(key):
            case "list":
                return {f"{key}: {each}" for each in client.lrange(key, 0, -1)}
            case "stream":
                pending = {f"{key}: pending" for group in client.xinfo_groups(key) if group["pending"]}
                return pending | {f"{key}: {entry}" for entry, _ in client.xrange(key)}
        return {key}


def taskiq_command(broker: str, *options: str) -> Sequence[str]:
    """Return the command of Taskiq's own worker, with Wove's module beside the project's broker."""
    return [TASKIQ, "worker", broker, "wove_taskiq.worker", "--workers", str(_PROCESSES), *options]


def own_command(url: str, *options: str) -> Sequence[str]:
    """Return the command of Wove's own line."""
    return [sys.executable, "-m", "wove_taskiq.worker", "--url", url, "--workers", str(_PROCESSES), *options]


class TaskiqDeployment(RelayedDeployment):
    """A worker with two processes at a Redis server that weaves reach through a relay.

    Args:
        server: the server.
        directory: for the worker's spool.
        command: the worker's.
        config: more keys of the ``executor_config``.
    """

    def __init__(
        self, server: RedisServer, directory: Path, *, command: Sequence[str], config: dict[str, Any] | None = None
    ) -> None:
        self.server = server
        self._config = config or {}
        self._terminated = False
        env = {
            "WOVE_SPOOL_DIR": str(directory / "spool"),
            "PROJECT_REDIS_URL": server.url(),
            "PYTHONPATH": str(Path(__file__).parent),
        }
        worker = AnnouncedWorker(command, announcement="Listening started.", times=_PROCESSES, env=env)
        super().__init__(server.port, worker)

    def environment(self) -> dict[str, Any]:
        """Return the environment; the broker's URL leads through the relay."""
        config = {"broker": self.server.url(self.relay.port), "dead_job_grace": 2.0, **self._config}
        return {"executor": "taskiq", "executor_config": config}

    def ensure_worker(self) -> None:
        """Start a worker unless one is ready."""
        if self._terminated:
            # Workers of stream brokers do not end at SIGTERM: https://github.com/taskiq-python/taskiq/issues/646
            self.kill_worker()
        super().ensure_worker()

    def kill_worker(self) -> None:
        """Kill the worker and its processes."""
        self._terminated = False
        super().kill_worker()
        # Redis would give the next message of a list to a process that is just dying.
        self.server.wait_until_deserted()

    def terminate_worker(self) -> None:
        """Begin a warm shutdown."""
        self._terminated = True
        super().terminate_worker()

    def leftovers(self) -> Collection[str]:
        """Return everything in Redis that is there on behalf of jobs."""
        return self.server.contents()


def lose_first_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let Redis do what it is sent first in a pipeline, and break the connection instead of answering."""
    execute = Pipeline.execute
    broken: list[bool] = []

    async def break_once(self: Any, *args: Any, **options: Any) -> Any:
        answer = await execute(self, *args, **options)
        if not broken:
            broken.append(True)
            raise RedisConnectionError("the answer is lost")
        return answer

    monkeypatch.setattr(Pipeline, "execute", break_once)
