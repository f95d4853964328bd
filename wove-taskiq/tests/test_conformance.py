"""Proves the adapter with Wove's conformance kit: on a list and on a stream, with Taskiq's command and with Wove's."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from taskiq_backend import RedisServer, TaskiqDeployment, own_command, taskiq_command

from wove.testing import AdapterConformance
from wove_taskiq import TaskiqAdapter


class OnTaskiq(AdapterConformance):
    """The kit with waiting times that are no longer than they have to be."""

    heartbeat_seconds = 1.5
    outage_seconds = 2.0
    stop_seconds = 2.0


@pytest.fixture(scope="class")
def on_list(redis_server: RedisServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TaskiqDeployment]:
    directory: Path = tmp_path_factory.mktemp("list")
    command = taskiq_command("project_brokers:list_broker")
    deployment = TaskiqDeployment(redis_server, directory, command=command, config={"queue_name": "project"})
    yield deployment
    deployment.close()


@pytest.fixture(scope="class")
def on_own_list(redis_server: RedisServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TaskiqDeployment]:
    directory: Path = tmp_path_factory.mktemp("own-list")
    command = own_command(redis_server.url(), "--queue-name", "own")
    deployment = TaskiqDeployment(redis_server, directory, command=command, config={"queue_name": "own"})
    yield deployment
    deployment.close()


@pytest.fixture(scope="class")
def on_stream(redis_server: RedisServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TaskiqDeployment]:
    directory: Path = tmp_path_factory.mktemp("stream")
    command = own_command(redis_server.url(), "--stream", "--queue-name", "reports", "--task-name", "report")
    config = {"stream": True, "queue_name": "reports", "task_name": "report"}
    deployment = TaskiqDeployment(redis_server, directory, command=command, config=config)
    yield deployment
    deployment.close()


class TestListBroker(OnTaskiq):
    """The worker is a project's own, started by Taskiq's command, with a list broker and results that are kept."""

    adapter_class = TaskiqAdapter
    subject = "taskiq (list, taskiq worker)"

    @pytest.fixture
    def deployment(self, on_list: TaskiqDeployment) -> TaskiqDeployment:
        return on_list


class TestOwnListWorker(OnTaskiq):
    """The worker is started by Wove's own line, with a list broker: it begins without asking."""

    adapter_class = TaskiqAdapter
    subject = "taskiq (list, wove_taskiq.worker)"

    @pytest.fixture
    def deployment(self, on_own_list: TaskiqDeployment) -> TaskiqDeployment:
        return on_own_list


class TestStreamBroker(OnTaskiq):
    """The worker is started by Wove's own line, with a stream broker and a task of another name."""

    adapter_class = TaskiqAdapter
    subject = "taskiq (stream, wove_taskiq.worker)"

    @pytest.fixture
    def deployment(self, on_stream: TaskiqDeployment) -> TaskiqDeployment:
        return on_stream
