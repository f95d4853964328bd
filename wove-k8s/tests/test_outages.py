"""A control plane that goes away for a while: what runs goes on, and what dies meanwhile is noticed."""

from collections.abc import Iterator

import pytest
from kubernetes_backend import KubernetesDeployment

from tests.beds.kubernetes import Cluster
from tests.beds.kubernetes_node import Node
from wove.errors import DeliveryOrphanedError
from wove.testing import tasks
from wove.testing.stage import Stage, poll_until

SECONDS = 90.0


@pytest.fixture(scope="module")
def own_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A control plane that others do not suffer from."""
    cluster = Cluster(tmp_path_factory.mktemp("own"))
    # While the API server is away, nodes cannot give signs of life.
    cluster.start(node_grace_seconds=60)
    witness = Node(cluster, "witness", idle=True)
    witness.ensure()
    yield cluster
    witness.close()
    cluster.stop()


@pytest.fixture
def deployment(own_cluster: Cluster) -> Iterator[KubernetesDeployment]:
    deployment = KubernetesDeployment(own_cluster)
    yield deployment
    deployment.close()


@pytest.fixture
def stage(deployment: KubernetesDeployment) -> Iterator[Stage]:
    deployment.ensure_worker()
    with Stage(deployment, seconds=SECONDS) as stage:
        yield stage


def test_tasks_outlive_ten_seconds_without_api_server(
    own_cluster: Cluster, deployment: KubernetesDeployment, stage: Stage
) -> None:
    # What has ended stays until the watches are back.
    stage.configure(ttl_seconds_after_finished=60)
    survivor = stage.begin(tasks.wait_at, board=stage.board.address, label="survivor")
    # Its silence shall not be what is noticed.
    options = {"delivery_heartbeat_seconds": 300.0}
    doomed = stage.begin(tasks.wait_at_later, options, board=stage.board.address, label="doomed")
    stage.wait_until_known(tasks.wait_at, "survivor")
    visit = stage.wait_until_known(tasks.wait_at_later, "doomed")
    own_cluster.kill_apiserver()
    try:
        deployment.kill_process(visit.pid)
        # That time passes is what this is about.
        assert not doomed.wait(10.0)
        stage.board.release("survivor")
        assert survivor.result(SECONDS) == "released"
    finally:
        own_cluster.start_apiserver()
    error = doomed.failure(SECONDS)
    assert isinstance(error, DeliveryOrphanedError), repr(error)
    assert error.exit_code == 137
    assert stage.call(tasks.add, left=1, right=2) == 3


def test_a_job_waits_for_a_controller_that_is_away(own_cluster: Cluster, stage: Stage) -> None:
    assert stage.call(tasks.add, left=1, right=2) == 3
    own_cluster.kill_controller()
    try:
        running = stage.begin(tasks.double, item=2)
        stage.journal.wait_for_submission("double", seconds=SECONDS)
        assert not running.wait(1.0)
    finally:
        own_cluster.start_controller()
    assert running.result(SECONDS) == 4


def test_a_death_is_noticed_without_controller(
    own_cluster: Cluster, deployment: KubernetesDeployment, stage: Stage
) -> None:
    running = stage.begin(tasks.wait_at, board=stage.board.address, label="doomed")
    visit = stage.wait_until_known(tasks.wait_at, "doomed")
    own_cluster.kill_controller()
    try:
        deployment.kill_process(visit.pid)
        error = running.failure(SECONDS)
    finally:
        own_cluster.start_controller()
    assert isinstance(error, DeliveryOrphanedError), repr(error)
    assert error.exit_code == 137


def test_a_cancel_that_could_not_be_sent_is_sent_later(deployment: KubernetesDeployment, stage: Stage) -> None:
    stage.configure(ttl_seconds_after_finished=600)
    deployment.stop_workers()
    running = stage.begin(tasks.add, left=1, right=2)
    stage.journal.wait_for_submission("add", seconds=SECONDS)
    deployment.take_backend_down()
    try:
        running.abandon()
        assert running.wait(SECONDS)
        assert len(deployment.list("jobs")) == 1
    finally:
        deployment.bring_backend_up()
    poll_until(lambda: not deployment.list("jobs"), seconds=SECONDS, what="the Job is deleted")
