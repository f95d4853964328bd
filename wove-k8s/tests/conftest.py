"""One control plane for the whole test run, and a namespace with a node of its own for whoever wants one."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from kubernetes_backend import KubernetesDeployment

from tests.beds.kubernetes import Cluster, shared_cluster
from tests.beds.kubernetes_node import Node


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    base = tmp_path_factory.getbasetemp()
    # Of pytest-xdist's workers, each has its own folder below the run's.
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    with shared_cluster(shared / "kubernetes") as cluster:
        witness = Node(cluster, f"witness-{os.getpid()}", idle=True)
        witness.ensure()
        yield cluster
        witness.close()


@pytest.fixture(scope="module")
def deployment(cluster: Cluster) -> Iterator[KubernetesDeployment]:
    deployment = KubernetesDeployment(cluster)
    yield deployment
    deployment.close()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    # The first one waits for the API server to be compiled, where that is still going on.
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.timeout(900))
