"""Streams of a project, served by Taskiq's own command: nothing gets lost before the first worker, nothing stays."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from taskiq_backend import RedisServer, TaskiqDeployment, taskiq_command

import wove
from wove import weave

PATH = "project_brokers:stream_broker"


@pytest.fixture
def deployment(redis_server: RedisServer, tmp_path: Path) -> Iterator[TaskiqDeployment]:
    redis_server.clear()
    config = {"stream": True, "queue_name": "project-stream"}
    deployment = TaskiqDeployment(redis_server, tmp_path, command=taskiq_command(PATH), config=config)
    here = {"executor": "local"}
    wove.config(default_environment="here", environments={"here": here, "there": deployment.environment()})
    yield deployment
    wove.shutdown()
    deployment.close()


def test_a_task_that_is_sent_before_the_first_worker_is_executed(deployment: TaskiqDeployment) -> None:
    with weave() as w:

        @w.do
        def worker() -> None:
            deadline = time.monotonic() + 10.0
            while not deployment.leftovers():
                assert time.monotonic() < deadline
                time.sleep(0.02)
            deployment.ensure_worker()

        @w.do(environment="there")
        def answer() -> int:
            return 42

    assert w.result.answer == 42


def test_entries_of_a_project_s_stream_are_removed_when_they_are_acknowledged(deployment: TaskiqDeployment) -> None:
    deployment.ensure_worker()
    with weave() as w:

        @w.do(range(150), environment="there")
        def double(item: int) -> int:
            return 2 * item

    assert w.result.double == [2 * item for item in range(150)]
    deadline = time.monotonic() + 10.0
    while deployment.leftovers():
        assert time.monotonic() < deadline, deployment.leftovers()
        time.sleep(0.02)
