"""RQ workers at a real Redis server, as the kit's `Deployment`."""

import os
import signal
import sys
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from tests.support import redis_server
from tests.support.deployments import AnnouncedWorker, RelayedDeployment

# RQ's command, beside the interpreter that runs the tests.
RQ = str(Path(sys.executable).with_name("rq"))
PRELOADING = ("--worker-class", "wove_rq.worker.PreloadingWorker")
# What RQ keeps about workers and queues, whether or not there has ever been a task.
_FURNITURE = ("rq:workers", "rq:worker:", "rq:queues", "rq:clean_registries:", "rq:scheduler")


class RedisServer(redis_server.RedisServer):
    """A server that RQ uses."""

    def names(self, client: Any, key: str) -> set[str]:
        """Return a key with its members, unless RQ has it anyway."""
        if key.startswith(_FURNITURE) and not key.endswith(":executions"):
            return set()
        return super().names(client, key)


def rq_command(url: str, *options: str) -> Sequence[str]:
    """Return the command of RQ's own worker."""
    return [RQ, "worker", "--url", url, *options]


def own_command(url: str, *options: str) -> Sequence[str]:
    """Return the command of Wove's own line."""
    return [sys.executable, "-m", "wove_rq.worker", "--url", url, *options]


class RQDeployment(RelayedDeployment):
    """Workers at a Redis server that weaves reach through a relay.

    Args:
        server: the server.
        directory: for the workers' spool.
        command: the worker's.
        workers: how many there are.
        config: more keys of the ``executor_config``.
    """

    def __init__(
        self,
        server: RedisServer,
        directory: Path,
        *,
        command: Sequence[str] | None = None,
        workers: int = 2,
        config: dict[str, Any] | None = None,
    ) -> None:
        self.server = server
        self._config = config or {}
        start = command or rq_command(server.url())
        env = {"WOVE_SPOOL_DIR": str(directory / "spool")}
        made = [_Worker(start, announcement="*** Listening on ", env=env) for _ in range(workers)]
        super().__init__(server.port, *made)

    def environment(self) -> dict[str, Any]:
        """Return the environment; redis_url leads through the relay."""
        config = {"redis_url": self.server.url(self.relay.port), "dead_job_grace": 2.0, **self._config}
        return {"executor": "rq", "executor_config": config}

    def leftovers(self) -> Collection[str]:
        """Return everything in Redis that is there on behalf of jobs."""
        return self.server.contents()


class _Worker(AnnouncedWorker):
    def kill(self) -> None:
        # The process of a job is the leader of another group.
        horses = children(self.pid) if self.running else []
        super().kill()
        for pid in horses:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass


def children(pid: int) -> list[int]:
    """Return the processes that a process has forked, with those that have ended and are not waited for yet."""
    listed = Path(f"/proc/{pid}/task/{pid}/children")
    try:
        return [int(each) for each in listed.read_text().split()]
    except OSError:
        return []
