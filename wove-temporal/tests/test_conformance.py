"""Proves the adapter with Wove's conformance kit: with standalone activities, and with the workflow around one."""

from collections.abc import Iterator

import pytest
from temporal_backend import TemporalDeployment, TemporalServer, own_command, project_command

from wove.testing import AdapterConformance
from wove_temporal import TemporalAdapter


class OnTemporal(AdapterConformance):
    """The kit with waiting times that are no longer than they have to be."""

    heartbeat_seconds = 1.5
    outage_seconds = 2.0
    stop_seconds = 2.0
    # The SDK's own threads end with the interpreter, which takes longer where many tests run at a time.
    exit_seconds = 5.0


@pytest.fixture(scope="class")
def with_activities(
    temporal_server: TemporalServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[TemporalDeployment]:
    command = own_command(temporal_server, "--task-queue", "reports")
    directory = tmp_path_factory.mktemp("activities")
    deployment = TemporalDeployment(
        temporal_server, directory, command=command, task_queue="reports", heartbeat_timeout=4
    )
    yield deployment
    deployment.close()


@pytest.fixture(scope="class")
def with_workflows(
    temporal_server: TemporalServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[TemporalDeployment]:
    command = project_command(temporal_server)
    directory = tmp_path_factory.mktemp("workflows")
    deployment = TemporalDeployment(
        temporal_server, directory, command=command, task_queue="project", workflow="wove.run", heartbeat_timeout=4
    )
    yield deployment
    deployment.close()


class TestActivities(OnTemporal):
    """Jobs are standalone activities; the worker is started by Wove's own line."""

    adapter_class = TemporalAdapter
    subject = "temporal (activity, wove_temporal.worker)"

    @pytest.fixture
    def deployment(self, with_activities: TemporalDeployment) -> TemporalDeployment:
        return with_activities


class TestWorkflows(OnTemporal):
    """Jobs are workflows, as on a server without standalone activities; the worker is a project's with the plugin."""

    adapter_class = TemporalAdapter
    subject = "temporal (workflow, WovePlugin)"

    @pytest.fixture
    def deployment(self, with_workflows: TemporalDeployment) -> TemporalDeployment:
        return with_workflows
