"""ARQ workers at a real Redis server, as the kit's `Deployment`."""

import os
import sys
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any

from redis import Redis

from tests.support import redis_server
from tests.support.deployments import AnnouncedWorker, RelayedDeployment
from tests.support.servers import HOST

# ARQ's command, beside the interpreter that runs the tests.
ARQ = str(Path(sys.executable).with_name("arq"))
# What ARQ keeps about a worker, whether or not there has ever been a task.
_FURNITURE = ":health-check"
# What ARQ says of jobs that it has failed by itself, whose results expire after an hour.
_NOT_EXECUTED = (b"retries exceeded", b"job expired")


class RedisServer(redis_server.RedisServer):
    """A server that ARQ uses."""

    def names(self, client: Any, key: str) -> set[str]:
        """Return a key with its members, unless ARQ has it anyway."""
        if key.endswith(_FURNITURE) or (key.startswith("arq:result:") and self._is_not_executed(key)):
            return set()
        return super().names(client, key)

    def _is_not_executed(self, key: str) -> bool:
        with Redis(HOST, self.port) as client:
            result: Any = client.get(key)
        return result is not None and any(words in result for words in _NOT_EXECUTED)


def arq_command(settings: str = "wove_arq.worker.settings") -> Sequence[str]:
    """Return the command of ARQ's own worker."""
    return [ARQ, settings]


def own_command(url: str, *options: str) -> Sequence[str]:
    """Return the command of Wove's own line."""
    return [sys.executable, "-m", "wove_arq.worker", "--url", url, *options]


class ARQDeployment(RelayedDeployment):
    """A worker at a Redis server that weaves reach through a relay.

    Args:
        server: the server.
        directory: for the worker's spool.
        command: the worker's.
        config: more keys of the ``executor_config``.
    """

    def __init__(
        self,
        server: RedisServer,
        directory: Path,
        *,
        command: Sequence[str] | None = None,
        config: dict[str, Any] | None = None,
    ) -> None:
        self.server = server
        self._config = config or {}
        env = {
            "WOVE_SPOOL_DIR": str(directory / "spool"),
            "WOVE_REDIS_URL": server.url(),
            "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *filter(None, [os.environ.get("PYTHONPATH")])]),
        }
        super().__init__(server.port, AnnouncedWorker(command or arq_command(), announcement="redis_version=", env=env))

    def environment(self) -> dict[str, Any]:
        """Return the environment; redis_settings lead through the relay."""
        config = {"redis_settings": self.server.url(self.relay.port), "dead_job_grace": 2.0, **self._config}
        return {"executor": "arq", "executor_config": config}

    def leftovers(self) -> Collection[str]:
        """Return everything in Redis that is there on behalf of jobs."""
        return self.server.contents()


Deploy = Callable[..., ARQDeployment]
