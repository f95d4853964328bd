"""A Ray cluster as the kit's `Deployment`, with a session of this process that the adapter finds."""

import logging
import threading
import time
from collections.abc import Collection
from typing import Any, ClassVar

import ray
from ray_cluster import CPUS, RayCluster

from tests.support.relay import Relay
from tests.support.servers import HOST
from wove.testing import Deployment

# How long the session's process may take to answer, and Ray Client to reach it again: it tries for 30 seconds.
_ANSWER_SECONDS = 40.0


class RayDeployment(Deployment):
    """A cluster that this process is connected to as a driver.

    Args:
        cluster: a cluster that is up.
    """

    cannot: ClassVar = {
        "take_backend_down": "a driver's process ends with the head of its cluster; ray:// is for those that must not"
    }

    def __init__(self, cluster: RayCluster) -> None:
        self.cluster = cluster
        self._occupant: Any = None
        self._occupied: set[str] = set()
        self._connect()

    @property
    def address(self) -> str:
        """Where weaves find the cluster."""
        return self.cluster.address

    def environment(self) -> dict[str, Any]:
        """Return the environment; tasks wait for a node."""
        config = {"address": self.address, "queue_timeout": 120.0, "dead_job_grace": 2.0}
        return {"executor": "ray", "executor_config": config}

    def ensure_worker(self) -> None:
        """Start a node unless there is one, and let it take tasks."""
        self.cluster.node.ensure()
        if self._occupant is not None:
            ray.kill(self._occupant)
            self._occupant = None

    def stop_workers(self) -> None:
        """Let the node take no task: all of its processors are in use. To start another one takes long."""
        before = self._references()
        self._occupant = ray.remote(_make_occupant()).options(num_cpus=CPUS).remote()
        ray.get(self._occupant.is_there.remote())
        self._occupied = self._references() - before

    def kill_worker(self) -> None:
        """Kill the node, and the processes that execute tasks on it."""
        self.cluster.node.kill()

    def terminate_worker(self) -> None:
        """Ask the node to end."""
        self.cluster.node.terminate()

    def leftovers(self) -> Collection[str]:
        """Return the objects and the ends of tasks that this process refers to, and that processors are in use."""
        free = ray.available_resources().get("CPU", 0)
        busy = free < ray.cluster_resources().get("CPU", 0) and self._occupant is None
        return self._references() - self._occupied | ({"a processor"} if busy else set())

    def _references(self) -> set[str]:
        return {str(each) for each in ray._private.worker.global_worker.core_worker.get_all_reference_counts()}

    def close(self) -> None:
        """Disconnect."""
        ray.shutdown()

    def _connect(self) -> None:
        ray.init(self.address, log_to_driver=False, logging_level=logging.WARNING)


class ClientDeployment(RayDeployment):
    """A cluster that this process is connected to as a client, through a relay."""

    cannot: ClassVar = {}

    def __init__(self, cluster: RayCluster) -> None:
        self.relay = Relay(cluster.client_port)
        super().__init__(cluster)

    @property
    def address(self) -> str:
        """Where weaves find the server of Ray Client."""
        return f"ray://{HOST}:{self.relay.port}"

    def take_backend_down(self) -> None:
        """Shut the relay."""
        self.relay.shut()

    def bring_backend_up(self) -> None:
        """Open the relay."""
        self.relay.open()

    def ensure_worker(self) -> None:
        """Start a node unless there is one, and make a new session where Ray Client has lost its own for good, as a
        project has to.
        """
        if not _answers():
            ray.shutdown()
            self._occupant, self._occupied = None, set()
            self._connect()
        super().ensure_worker()

    def _references(self) -> set[str]:
        from ray.util.client import ray as client

        worker = client.get_context().client_worker
        held = {each.hex() for each, count in worker.reference_count.items() if count > 0}
        # What the session has been told once is no task's.
        return held - {stub._ref.hex() for stub in worker._converted.values() if stub._ref is not None}

    def close(self) -> None:
        """Disconnect."""
        super().close()
        self.relay.close()


def _answers() -> bool:
    """Tell whether the session of this process works, once Ray Client has connected anew."""
    answers: list[object] = []

    def ask() -> None:
        end = time.monotonic() + _ANSWER_SECONDS
        while time.monotonic() < end:
            try:
                answers.append(ray.cluster_resources())
                return
            except ConnectionError:  # It has given up.
                return
            except Exception:  # Of many kinds, while it connects.
                time.sleep(0.1)

    # A broken session may also let its callers wait for ever.
    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    asking.join(_ANSWER_SECONDS)
    return bool(answers)


def _make_occupant() -> type:
    # Made in here, it is sent by value: nodes do not know this module.
    class Occupant:
        def is_there(self) -> bool:
            return True

    return Occupant
