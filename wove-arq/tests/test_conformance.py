"""Proves the adapter with Wove's conformance kit."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from arq_backend import ARQDeployment, RedisServer, arq_command

from wove.testing import AdapterConformance
from wove_arq import ARQAdapter


@pytest.fixture(scope="class")
def project(redis_server: RedisServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ARQDeployment]:
    directory: Path = tmp_path_factory.mktemp("project")
    command = arq_command("project_worker.WorkerSettings")
    deployment = ARQDeployment(redis_server, directory, command=command, config={"queue_name": "project"})
    yield deployment
    deployment.close()


class TestProjectWorker(AdapterConformance):
    """The worker is a project's own with ARQ's defaults, started by ARQ's command; jobs are pickled as ARQ does."""

    adapter_class = ARQAdapter
    subject = "arq"
    # No longer than they have to be.
    heartbeat_seconds = 1.5
    outage_seconds = 2.0
    stop_seconds = 2.0
    # ARQ is asked every other second, and the mark of a running job lasts for six.
    dead_job_seconds = 20.0

    @pytest.fixture
    def deployment(self, project: ARQDeployment) -> ARQDeployment:
        return project
