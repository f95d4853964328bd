"""Proves the adapter with Wove's conformance kit: in a driver's session and in one of Ray Client."""

from collections.abc import Iterator

import pytest
from ray_backend import ClientDeployment, RayDeployment
from ray_cluster import RayCluster

from wove.testing import AdapterConformance
from wove_ray import RayAdapter


class OnRay(AdapterConformance):
    """The kit with waiting times that are no longer than they have to be, and a backend that takes its time to start
    processes.
    """

    heartbeat_seconds = 1.5
    outage_seconds = 2.0
    stop_seconds = 2.0
    step_seconds = 150.0
    cancel_seconds = 10.0
    fail_fast_seconds = 15.0
    exit_seconds = 5.0


@pytest.fixture(scope="class")
def cluster() -> Iterator[RayCluster]:
    cluster = RayCluster()
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.close()


@pytest.fixture(scope="class")
def as_driver(cluster: RayCluster) -> Iterator[RayDeployment]:
    deployment = RayDeployment(cluster)
    yield deployment
    deployment.close()


@pytest.fixture(scope="class")
def as_client(cluster: RayCluster) -> Iterator[ClientDeployment]:
    deployment = ClientDeployment(cluster)
    yield deployment
    deployment.close()


@pytest.mark.timeout(600)
class TestDriver(OnRay):
    """This process is a driver of the cluster. Ray carries every outcome back that it can, as it does for a driver with
    many tasks in flight; how outcomes are posted, `TestClient` shows.
    """

    adapter_class = RayAdapter
    subject = "ray"

    @pytest.fixture
    def deployment(self, as_driver: RayDeployment) -> RayDeployment:
        return as_driver

    @pytest.fixture(autouse=True)
    def _in_a_crowd(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(RayAdapter, "returns_from", 1)


@pytest.mark.timeout(600)
class TestClient(OnRay):
    """This process is a client of the cluster, which it reaches through a relay."""

    adapter_class = RayAdapter
    subject = "ray (ray://)"

    @pytest.fixture
    def deployment(self, as_client: ClientDeployment) -> ClientDeployment:
        return as_client
