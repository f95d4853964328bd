"""A Slurm cluster as the kit's `Deployment`."""

from collections.abc import Collection
from pathlib import Path
from typing import Any

from tests.beds.slurm import SlurmBed
from tests.support.relay import Relay
from wove.testing import Deployment


class SlurmDeployment(Deployment):
    """A cluster whose controller weaves reach through a relay. Its worker is the node, and each of its jobs.

    Args:
        bed: the cluster.
        folder: where jobs write their logs and keep outcomes.
        config: more keys of the ``executor_config``.
    """

    def __init__(self, bed: SlurmBed, folder: Path, *, config: dict[str, Any] | None = None) -> None:
        self.bed = bed
        self.relay = Relay(bed.controller_port)
        self.logs = folder / "logs"
        self._config = config or {}
        self._spool = folder / "spool"
        self._programs = bed.programs_through(self.relay.port)

    def environment(self) -> dict[str, Any]:
        """Return the environment; sbatch leads through the relay."""
        config = {
            "sbatch": str(self._programs / "sbatch"),
            "output": f"{self.logs}/",
            "export": {"WOVE_SPOOL_DIR": str(self._spool)},
            "poll_interval": 1.0,
            "dead_job_grace": 2.0,
            **self._config,
        }
        return {"executor": "slurm", "executor_config": config}

    def ensure_worker(self) -> None:
        """Let the node take jobs."""
        self.bed.start_node()

    def stop_workers(self) -> None:
        """Let the node take no jobs."""
        self.bed.drain_node()

    def kill_worker(self) -> None:
        """Kill slurmd, slurmstepd and the processes of jobs."""
        self.bed.kill_node()

    def terminate_worker(self) -> None:
        """End the jobs as an operator does."""
        self.bed.cancel_jobs()

    def take_backend_down(self) -> None:
        """Shut the relay."""
        self.relay.shut()

    def bring_backend_up(self) -> None:
        """Open the relay."""
        self.relay.open()

    def leftovers(self) -> Collection[str]:
        """Return the jobs that are not over, and their logs."""
        return [*self.bed.jobs(), *(str(path) for path in self.logs.rglob("*.log"))]

    def close(self) -> None:
        """Close the relay."""
        self.relay.close()
