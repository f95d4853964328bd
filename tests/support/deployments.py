"""What the deployments of task systems have in common: workers that print when they are ready, behind a relay."""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.support.relay import Relay
from wove.testing import Deployment, WorkerProcess


class AnnouncedWorker(WorkerProcess):
    """A worker that prints something as soon as it takes jobs.

    Args:
        command: the program and its arguments.
        announcement: what it prints.
        times: how often, before it is ready.
        env: variables to add to those of this process.
        cwd: its working directory.
    """

    def __init__(
        self,
        command: Sequence[str],
        *,
        announcement: str,
        times: int = 1,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
    ) -> None:
        env = {"PYTHONUNBUFFERED": "1", **(env or {})}
        super().__init__(command, ready=self._is_ready, env=env, cwd=cwd, seconds=60.0)
        self._announcement = announcement
        self._times = times
        self._before = 0

    def ensure(self) -> None:
        """Return when a worker is running and ready."""
        self._before = self._announcements()
        super().ensure()

    def _is_ready(self) -> bool:
        return self._announcements() >= self._before + self._times

    def _announcements(self) -> int:
        return self.output().count(self._announcement)


class RelayedDeployment(Deployment):
    """Workers at a server that weaves reach through a relay, so that it can go away for weaves alone.

    Args:
        port: the server's.
        workers: started when a scenario needs them.
    """

    def __init__(self, port: int, *workers: WorkerProcess) -> None:
        self.relay = Relay(port)
        self.workers = workers

    def ensure_worker(self) -> None:
        """Start workers unless they are ready."""
        for worker in self.workers:
            worker.ensure()

    def stop_workers(self) -> None:
        """Kill the workers."""
        self.kill_worker()

    def kill_worker(self) -> None:
        """Kill the workers and their processes."""
        for worker in self.workers:
            worker.kill()

    def terminate_worker(self) -> None:
        """Begin a warm shutdown."""
        for worker in self.workers:
            worker.terminate()

    def kill_process(self, pid: int) -> None:
        """Kill a process of a worker; where that is the worker itself, return when it is gone."""
        super().kill_process(pid)
        while any(worker.running and worker.pid == pid for worker in self.workers):
            time.sleep(0.01)

    def take_backend_down(self) -> None:
        """Shut the relay."""
        self.relay.shut()

    def bring_backend_up(self) -> None:
        """Open the relay."""
        self.relay.open()

    def close(self) -> None:
        """End everything."""
        for worker in self.workers:
            worker.close()
        self.relay.close()
