"""Proves the adapter with Wove's conformance kit, with ARQ's own command and with Wove's."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from arq_backend import ARQDeployment, RedisServer, arq_command, own_command

from wove.testing import AdapterConformance
from wove_arq import ARQAdapter


class OnARQ(AdapterConformance):
    """The kit with waiting times that are no longer than they have to be."""

    heartbeat_seconds = 1.5
    outage_seconds = 2.0
    stop_seconds = 2.0


@pytest.fixture(scope="class")
def project(redis_server: RedisServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ARQDeployment]:
    directory: Path = tmp_path_factory.mktemp("project")
    command = arq_command("project_worker.WorkerSettings")
    deployment = ARQDeployment(redis_server, directory, command=command, config={"queue_name": "project"})
    yield deployment
    deployment.close()


@pytest.fixture(scope="class")
def own(redis_server: RedisServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ARQDeployment]:
    directory: Path = tmp_path_factory.mktemp("own")
    command = own_command(redis_server.url(), "--queue-name", "reports", "--function-name", "report", "--json")
    config = {"queue_name": "reports", "function_name": "report", "job_serializer": "json"}
    deployment = ARQDeployment(redis_server, directory, command=command, config=config)
    yield deployment
    deployment.close()


class TestProjectWorker(OnARQ):
    """The worker is a project's own with ARQ's defaults, started by ARQ's command; jobs are pickled as ARQ does."""

    adapter_class = ARQAdapter
    subject = "arq (arq)"

    @pytest.fixture
    def deployment(self, project: ARQDeployment) -> ARQDeployment:
        return project


class TestOwnWorker(OnARQ):
    """The worker is started by Wove's own line, on a queue of another name, and jobs are JSON."""

    adapter_class = ARQAdapter
    subject = "arq (wove_arq.worker)"

    @pytest.fixture
    def deployment(self, own: ARQDeployment) -> ARQDeployment:
        return own
