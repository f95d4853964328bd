"""Kubernetes: a real API server with the real Job controller, and pods as processes. Collected by ``batch.py``.

Native jobs start Python, which does nothing; a hundred of them are one Job with a hundred completions. They are waited
for with a watch. The node notices the end of a process once a second, as a real kubelet does (genericPlegRelistPeriod
in https://github.com/kubernetes/kubernetes/blob/master/pkg/kubelet/kubelet.go), but has no images to look for and no
networks to set up. As many pods run at a time as the machine has processors, as if each requested one. Without that
limit, a hundred interpreters that load Wove at once take two processors about three times as long as a hundred that
load nothing. Needs the tests' packages, too: ``pip install aiohttp trustme pytest``.
"""

import json
import os
import secrets
import ssl
import sys
import tempfile
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import batch

import wove_k8s  # noqa: F401 - without it there is nothing to measure

sys.path.insert(0, str(batch.HERE.parent))

from tests.beds.kubernetes import Cluster
from tests.beds.kubernetes_node import Node

NAMESPACE = "default"
JOBS = f"/apis/batch/v1/namespaces/{NAMESPACE}/jobs"


def watch(cluster: Cluster, name: str, version: str) -> Iterator[dict[str, Any]]:
    """Yield the states of a Job as they change."""
    config = json.loads(cluster.kubeconfig.read_text())
    request = urllib.request.Request(
        f"https://127.0.0.1:{cluster.port}{JOBS}?watch=1&fieldSelector=metadata.name%3D{name}&resourceVersion={version}",
        headers={"Authorization": f"Bearer {config['users'][0]['user']['token']}"},
    )
    context = ssl.create_default_context(cafile=str(cluster.folder / "authority.pem"))
    with urllib.request.urlopen(request, timeout=300.0, context=context) as answer:
        for line in answer:
            yield json.loads(line)["object"]


def run_native(cluster: Cluster, completions: int) -> None:
    name = f"native-{secrets.token_hex(4)}"
    container = {"name": "native", "image": "python", "command": [sys.executable, "-c", "pass"]}
    template = {"spec": {"restartPolicy": "Never", "containers": [container]}}
    spec = {"backoffLimit": 0, "ttlSecondsAfterFinished": 60, "template": template}
    counts = {"completions": completions, "parallelism": completions}
    job = cluster.call("POST", JOBS, {"metadata": {"name": name}, "spec": {**spec, **counts}})
    for state in watch(cluster, name, job["metadata"]["resourceVersion"]):
        conditions = state["status"].get("conditions") or []
        if conditions:
            assert conditions[0]["type"] == "Complete", conditions
            return


@contextmanager
def system() -> Iterator[batch.System]:
    with tempfile.TemporaryDirectory() as folder:
        cluster = Cluster(Path(folder, "kubernetes"))
        cluster.start()
        os.environ.setdefault("PYTHONPATH", str(batch.HERE))
        node = Node(cluster, NAMESPACE, relist_seconds=1.0, places=os.cpu_count() or 2)
        try:
            node.ensure()
            config = {
                "load_config_options": {"config_file": str(cluster.kubeconfig)},
                "namespace": NAMESPACE,
                "image": "python",
                "command": [sys.executable, "-m", "wove.backend_worker"],
                "env": {"PYTHONPATH": str(batch.HERE), "WOVE_SPOOL_DIR": f"{folder}/spool"},
            }
            environment = {"executor": "kubernetes_jobs", "executor_config": config}
            yield batch.System(environment, lambda: run_native(cluster, 1), lambda jobs: run_native(cluster, jobs))
        finally:
            node.close()
            cluster.stop()


SUBJECT = batch.Subject("kubernetes_jobs", batch.BARS, system)
