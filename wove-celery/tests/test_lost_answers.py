"""A task whose message has arrived, although the broker's answer that said so was lost: it is sent again."""

import time

import pytest
from celery_backend import CeleryDeployment, RedisBroker, Stand

from wove.testing import tasks
from wove.testing.proxy import FaultProxy
from wove.testing.servers import free_port
from wove.testing.stage import Stage, poll_until

SECONDS = 30.0
# A worker begins what it is sent for the first time without asking the weave, once it has listened for five seconds.
TRUSTED_SECONDS = 6.0
# How redis-py writes the command with which kombu publishes.
PUBLISHING = b"*3\r\n$5\r\nLPUSH\r\n"
TOKEN = "t" * 32


@pytest.fixture
def deployment(stand: Stand, redis_server: RedisBroker) -> CeleryDeployment:
    # Two processes: one alone would not even ask about a run that it executes itself.
    deployment = stand.deployment(redis_server, pool="prefork")
    deployment.ensure_worker()
    return deployment


def test_a_task_whose_message_is_sent_again_runs_once(deployment: CeleryDeployment) -> None:
    since, port = time.monotonic(), free_port()
    with Stage(deployment, seconds=SECONDS) as stage, FaultProxy(("127.0.0.1", port)) as proxy:
        stage.configure(callback_port=port, callback_token=TOKEN, callback_url=proxy.url(f"/wove/events/{TOKEN}"))
        # So that there is a connection to break.
        assert stage.call(tasks.add, left=1, right=2) == 3
        poll_until(lambda: time.monotonic() - since > TRUSTED_SECONDS, seconds=SECONDS, what="the worker need not ask")
        deployment.relay.lose_answer(PUBLISHING)
        running = stage.begin(tasks.wait_at, board=stage.board.address, label="copy")
        stage.board.wait_for("copy", seconds=SECONDS)
        poll_until(
            lambda: any(409 in each.statuses for each in proxy.requests("task_started")),
            seconds=SECONDS,
            what="the second copy has been refused",
        )
        assert len(stage.board.visits("copy")) == 1
        stage.board.release("copy")
        assert running.result(SECONDS) == "released"
        assert len(stage.board.visits("copy")) == 1
