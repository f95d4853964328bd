"""A namespace of a real control plane, with a node that runs its pods as processes, as the kit's `Deployment`."""

import secrets
import sys
from collections.abc import Collection
from typing import Any

from tests.beds.kubernetes import Cluster
from tests.beds.kubernetes_node import Node
from tests.support.relay import Relay
from wove.testing import Deployment

# A pod's time to end, in seconds. Kubernetes gives 30 by default.
GRACE_SECONDS = 2
TTL_SECONDS = 3


class KubernetesDeployment(Deployment):
    """One namespace with one node, which weaves reach through a relay.

    Args:
        cluster: the control plane.
        config: more keys of the ``executor_config``.
    """

    def __init__(self, cluster: Cluster, config: dict[str, Any] | None = None) -> None:
        self.cluster = cluster
        self.namespace = f"wove-{secrets.token_hex(4)}"
        cluster.make_namespace(self.namespace)
        self.relay = Relay(cluster.port)
        self.node = Node(cluster, self.namespace)
        self.kubeconfig = self.node.folder / "kubeconfig"
        cluster.write_kubeconfig(self.kubeconfig, port=self.relay.port)
        self._config = config or {}

    def environment(self) -> dict[str, Any]:
        """Return the environment; its kubeconfig leads through the relay."""
        config = {
            "namespace": self.namespace,
            "load_config_options": {"config_file": str(self.kubeconfig)},
            "image": "example.org/worker:1",
            "command": [sys.executable, "-m", "wove.backend_worker"],
            "env": {"WOVE_SPOOL_DIR": str(self.node.folder / "spool")},
            "pod_template": {"spec": {"terminationGracePeriodSeconds": GRACE_SECONDS}},
            "ttl_seconds_after_finished": TTL_SECONDS,
            "dead_job_grace": 2.0,
            **self._config,
        }
        return {"executor": "kubernetes_jobs", "executor_config": config}

    def list(self, kind: str) -> list[dict[str, Any]]:
        """Return the objects of a kind in the namespace, such as ``jobs``."""
        group = "/apis/batch/v1" if kind == "jobs" else "/api/v1"
        items: list[dict[str, Any]] = self.cluster.call("GET", f"{group}/namespaces/{self.namespace}/{kind}")["items"]
        return items

    def ensure_worker(self) -> None:
        """Start the node unless it is up."""
        self.node.ensure()

    def stop_workers(self) -> None:
        """Kill the node."""
        self.node.kill()

    def kill_worker(self) -> None:
        """Kill the node with its processes."""
        self.node.kill()

    def terminate_worker(self) -> None:
        """Begin an orderly shutdown of the node."""
        self.node.terminate()

    def take_backend_down(self) -> None:
        """Shut the relay."""
        self.relay.shut()

    def bring_backend_up(self) -> None:
        """Open the relay."""
        self.relay.open()

    def leftovers(self) -> Collection[str]:
        """Return the Jobs, pods and Secrets that are there."""
        return {
            f"{kind}/{item['metadata']['name']}" for kind in ("jobs", "pods", "secrets") for item in self.list(kind)
        }

    def close(self) -> None:
        """End everything."""
        self.node.close()
        self.relay.close()
