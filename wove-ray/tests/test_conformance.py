"""Proves the adapter with Wove's conformance kit: in a driver's session and in one of Ray Client."""

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from ray_backend import ClientDeployment, RayDeployment
from ray_cluster import RayCluster
from ray_programs import FORGOTTEN, GIVEN_UP, POSTED, TWICE, run_program

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
    with RayCluster() as cluster:
        yield cluster


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
    """This process is a client of the cluster, which it reaches through a relay.

    All that needs a Ray Client server is in this class, whose tests run one after another: every server of a machine
    gives the processes of its sessions the ports from 23000 on, asks some seconds before they listen whether a port is
    free, and lets two of them share it, so that a client may find itself in another cluster.
    """

    adapter_class = RayAdapter
    subject = "ray (ray://)"

    @pytest.fixture
    def deployment(self, as_client: ClientDeployment) -> ClientDeployment:
        return as_client

    @pytest.fixture(autouse=True)
    def _without_a_race_of_grpc(self, monkeypatch: pytest.MonkeyPatch) -> None:
        # When Ray connects anew, gRPC's own thread may look at the channel once more that was just closed:
        # https://github.com/grpc/grpc/issues/18995
        report = threading.excepthook

        def report_others(failure: threading.ExceptHookArgs) -> None:
            if "Cannot monitor channel state" not in str(failure.exc_value):
                report(failure)

        monkeypatch.setattr(threading, "excepthook", report_others)

    def test_a_session_that_wove_made_is_quiet_and_ends_with_wove(self, cluster: RayCluster, tmp_path: Path) -> None:
        done = run_program(tmp_path, TWICE, cluster.client_address)
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.splitlines() == ["hello Ray True", "False", "hello Ray"]

    def test_outcomes_are_posted(self, cluster: RayCluster, tmp_path: Path) -> None:
        done = run_program(tmp_path, POSTED, cluster.client_address)
        assert done.returncode == 0, done.stderr
        assert done.stdout.splitlines() == ["[0, 1, 4, 9, 16, 25]", "posted: 6"]

    def test_a_session_that_ray_client_has_given_up_is_made_again(self, cluster: RayCluster, tmp_path: Path) -> None:
        done = run_program(tmp_path, GIVEN_UP.replace("OWN", "False"), cluster.client_address)
        assert done.returncode == 0, done.stderr
        assert done.stdout.splitlines() == ["2", "False", "4"]

    def test_a_session_that_its_server_does_not_know_any_more_is_made_again(
        self, cluster: RayCluster, tmp_path: Path
    ) -> None:
        done = run_program(tmp_path, FORGOTTEN, cluster.client_address)
        assert done.returncode == 0, done.stderr
        assert done.stdout.splitlines() == ["2", "4"], done.stderr

    def test_the_program_s_own_session_that_is_lost_is_left_to_it(self, cluster: RayCluster, tmp_path: Path) -> None:
        done = run_program(tmp_path, GIVEN_UP.replace("OWN", "True"), cluster.client_address)
        assert done.returncode == 0, done.stderr
        assert done.stdout.splitlines() == ["2", "False", "True", "4"]
