"""Workers, nannies and schedulers that die while tasks run."""

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from dask_backend import DaskDeployment, Scheduler, running_scheduler

from wove import BackendAdapterEnvironmentExecutor
from wove.errors import DeliveryOrphanedError
from wove.testing import tasks
from wove.testing.stage import Stage
from wove_dask import DaskAdapter

# A machine that is busy takes its time to start a worker.
SECONDS = 80.0


class DeafAdapter(DaskAdapter):
    """One that has heard of no start, as when the news of it is late."""

    def heard(self, run_id: str, event_type: str) -> None:
        """Take no note."""


@pytest.fixture(scope="module")
def deployment(scheduler: Scheduler, tmp_path_factory: pytest.TempPathFactory) -> Iterator[DaskDeployment]:
    deployment = DaskDeployment(scheduler, tmp_path_factory.mktemp("deaths"))
    yield deployment
    deployment.close()


@pytest.fixture
def stage(deployment: DaskDeployment) -> Iterator[Stage]:
    deployment.ensure_worker()
    with Stage(deployment, seconds=SECONDS) as stage:
        yield stage


def assert_both_workers_are_free(deployment: DaskDeployment, stage: Stage) -> None:
    """Whatever Dask has started again would be executed by now."""
    deployment.ensure_worker()
    for address in deployment.scheduler.workers():
        stage.configure(submit_options={"workers": [address]})
        assert stage.call(tasks.add, left=1, right=2) == 3


def test_a_task_whose_worker_dies_is_reported_at_once_and_not_executed_again(
    deployment: DaskDeployment, stage: Stage
) -> None:
    running = stage.begin(tasks.wait_at, board=stage.board.address, label="doomed")
    visit = stage.wait_until_known(tasks.wait_at, "doomed")
    deployment.kill_process(visit.pid)
    error = running.failure(SECONDS)
    assert isinstance(error, DeliveryOrphanedError)
    assert error.state == "failed"
    assert "has left the cluster" in str(error)
    assert_both_workers_are_free(deployment, stage)
    assert len(stage.board.visits("doomed")) == 1


def test_a_task_that_dask_starts_again_is_refused_by_the_weave(deployment: DaskDeployment, stage: Stage) -> None:
    stage.configure(BackendAdapterEnvironmentExecutor("dask", adapter_class=DeafAdapter))
    running = stage.begin(tasks.wait_at, board=stage.board.address, label="repeated")
    visit = stage.wait_until_known(tasks.wait_at, "repeated")
    deployment.kill_process(visit.pid)
    error = running.failure(SECONDS)
    assert isinstance(error, DeliveryOrphanedError)
    assert "it is not executed a second time" in str(error)
    assert_both_workers_are_free(deployment, stage)
    assert len(stage.board.visits("repeated")) == 1


def test_a_task_that_may_run_twice_is_executed_again(deployment: DaskDeployment, stage: Stage) -> None:
    options = {"delivery_orphan_policy": "requeue"}
    running = stage.begin(tasks.wait_at, options, board=stage.board.address, label="again")
    visit = stage.wait_until_known(tasks.wait_at, "again")
    deployment.kill_process(visit.pid)
    stage.board.wait_for("again", count=2, seconds=SECONDS)
    stage.board.release("again")
    assert running.result(SECONDS) == "released"


def test_tasks_that_wait_behind_one_that_dies_go_on_elsewhere(deployment: DaskDeployment, stage: Stage) -> None:
    doomed = stage.begin(tasks.wait_at, board=stage.board.address, label="first")
    visit = stage.wait_until_known(tasks.wait_at, "first")
    others = stage.begin_map(tasks.attend_for, range(20), board=stage.board.address, label="others")
    stage.board.wait_for("others", seconds=SECONDS)
    deployment.kill_process(visit.pid)
    stage.board.release("others")
    assert visit.pid not in others.result(SECONDS)
    assert isinstance(doomed.failure(SECONDS), DeliveryOrphanedError)
    assert len(stage.board.visits("others")) == 20


def test_the_death_of_the_scheduler_is_noticed_and_the_next_one_is_found(tmp_path: Path) -> None:
    with running_scheduler(tmp_path) as scheduler:
        deployment = DaskDeployment(scheduler, tmp_path)
        try:
            with Stage(deployment, seconds=SECONDS) as stage:
                deployment.ensure_worker()
                running = stage.begin(tasks.wait_at, board=stage.board.address, label="headless")
                stage.wait_until_known(tasks.wait_at, "headless")
                scheduler.kill()
                began = time.monotonic()
                error = running.failure(SECONDS)
                assert isinstance(error, DeliveryOrphanedError)
                assert "lost the connection to the scheduler" in str(error)
                assert time.monotonic() - began < 10.0
        finally:
            deployment.close()


def test_a_worker_that_is_told_to_end_stops_its_task_and_tells_the_weave(
    deployment: DaskDeployment, stage: Stage
) -> None:
    running = stage.begin(tasks.wait_at, board=stage.board.address, label="evicted")
    (visit,) = stage.board.wait_for("evicted", seconds=SECONDS)
    for worker in deployment.workers:
        os.kill(worker.pid, signal.SIGTERM)
    assert stage.board.wait_for_end(visit, seconds=SECONDS) == "stopped: TaskStopped"
    assert running.wait(SECONDS)
    deployment.kill_worker()
