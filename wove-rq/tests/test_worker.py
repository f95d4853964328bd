"""Real workers, where RQ has ways of its own to die and to stop."""

import os
import signal
import time
from collections.abc import Iterator

import pytest
from rq_backend import RedisServer, RQDeployment

from wove.testing import tasks
from wove.testing.stage import Stage

SECONDS = 30.0


@pytest.fixture(scope="module")
def deployment(redis_server: RedisServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RQDeployment]:
    deployment = RQDeployment(redis_server, tmp_path_factory.mktemp("worker"), workers=1)
    yield deployment
    deployment.close()


@pytest.fixture
def stage(deployment: RQDeployment) -> Iterator[Stage]:
    deployment.ensure_worker()
    with Stage(deployment, seconds=SECONDS) as stage:
        yield stage


def test_a_job_outlives_its_worker(deployment: RQDeployment, stage: Stage) -> None:
    running = stage.begin(tasks.wait_at, board=stage.board.address, label="orphan")
    visit = stage.wait_until_known(tasks.wait_at, "orphan")
    os.kill(deployment.workers[0].pid, signal.SIGKILL)
    # Long enough for a worker that is gone to be noticed, twice over.
    assert not running.wait(8.0)
    stage.board.release("orphan")
    assert running.result(SECONDS) == "released"
    assert visit.pid != deployment.workers[0].pid


def test_without_termination_the_answer_to_a_heartbeat_stops_a_task(stage: Stage) -> None:
    stage.configure(terminate_on_cancel=False)
    options = {"delivery_heartbeat_seconds": 1.5}
    running = stage.begin(tasks.wait_at, options, board=stage.board.address, label="unwanted")
    (visit,) = stage.board.wait_for("unwanted", seconds=SECONDS)
    running.abandon()
    assert running.wait(SECONDS)
    assert stage.board.wait_for_end(visit, seconds=5.0) == "stopped: TaskStopped"


def test_a_stopped_job_leaves_nothing(deployment: RQDeployment, stage: Stage) -> None:
    before = set(deployment.leftovers())
    running = stage.begin(tasks.wait_at, board=stage.board.address, label="stopped")
    stage.board.wait_for("stopped", seconds=SECONDS)
    running.abandon()
    deadline = time.monotonic() + SECONDS
    while not set(deployment.leftovers()) <= before and time.monotonic() < deadline:
        time.sleep(0.05)
    assert set(deployment.leftovers()) - before == set()
