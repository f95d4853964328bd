"""A message whose first sending may have failed, on a list that two processes read."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from taskiq_backend import RedisServer, TaskiqDeployment, lose_first_answer, own_command

from wove.testing import tasks
from wove.testing.proxy import FaultProxy
from wove.testing.servers import free_port
from wove.testing.stage import Stage, poll_until

SECONDS = 30.0


@pytest.fixture
def deployment(redis_server: RedisServer, tmp_path: Path) -> Iterator[TaskiqDeployment]:
    # One process would not even ask about a run that it executes itself.
    command = own_command(redis_server.url(), "--queue-name", "again", "--max-async-tasks", "1")
    deployment = TaskiqDeployment(redis_server, tmp_path, command=command, config={"queue_name": "again"})
    deployment.ensure_worker()
    yield deployment
    deployment.close()


def test_of_a_message_that_was_sent_again_one_copy_is_executed(
    deployment: TaskiqDeployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    lose_first_answer(monkeypatch)
    port = free_port()
    with Stage(deployment, seconds=SECONDS) as stage, FaultProxy(("127.0.0.1", port)) as proxy:
        address = {
            "callback_port": port,
            "callback_token": "t" * 32,
            "callback_url": proxy.url(f"/wove/events/{'t' * 32}"),
        }
        stage.configure(**address)
        running = stage.begin(tasks.wait_at, board=stage.board.address, label="copy")
        poll_until(
            lambda: any(409 in each.statuses for each in proxy.requests("task_started")),
            seconds=SECONDS,
            what="the second copy has been refused",
        )
        assert len(stage.board.visits("copy")) == 1
        stage.board.release("copy")
        assert running.result(SECONDS) == "released"
