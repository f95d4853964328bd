"""Outcomes that the scheduler carries, and workers that die before or after it has them."""

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from secrets import token_hex
from typing import Any

import pytest
from dask_backend import DaskDeployment, Scheduler
from distributed import Client

import wove
from tests.support.waiting import wait_until
from wove import weave
from wove.errors import DeliveryOrphanedError
from wove.testing import tasks
from wove.testing.board import Attendance
from wove.testing.proxy import FaultProxy
from wove.testing.servers import free_port
from wove.testing.stage import Stage

# A machine that is busy takes its time to start a worker.
SECONDS = 80.0


@pytest.fixture(scope="module")
def deployment(scheduler: Scheduler, tmp_path_factory: pytest.TempPathFactory) -> Iterator[DaskDeployment]:
    deployment = DaskDeployment(scheduler, tmp_path_factory.mktemp("outcomes"))
    yield deployment
    deployment.close()


@pytest.fixture
def stage(deployment: DaskDeployment) -> Iterator[Stage]:
    deployment.ensure_worker()
    with Stage(deployment, seconds=SECONDS) as stage:
        yield stage


@contextmanager
def receiver(deployment: DaskDeployment, stage: Stage, **config: Any) -> Iterator[FaultProxy]:
    """Let events pass a proxy, which notes what workers post."""
    port, token = free_port(deployment.host), token_hex(16)
    with FaultProxy((deployment.host, port), host=deployment.host) as proxy:
        url = proxy.url(f"/wove/events/{token}")
        stage.configure(
            callback_host=deployment.host, callback_port=port, callback_token=token, callback_url=url, **config
        )
        yield proxy


def use_both_workers(deployment: DaskDeployment, stage: Stage) -> None:
    """Let each worker execute a task: the first one of Wove's on a worker prepares it for those that follow."""
    label = token_hex(4)
    running = stage.begin_map(tasks.attend_for, range(2), board=stage.board.address, label=label)
    stage.board.wait_for(label, count=2, seconds=SECONDS)
    stage.board.release(label)
    assert len(set(running.result(SECONDS))) == 2


def make_fatal() -> Callable[[str, str], None]:
    """Return a task, by value, whose process dies as soon as it has begun."""

    def fatal(board: str, label: str) -> None:
        attendance = Attendance(board, label)
        attendance.report_in()
        os.kill(os.getpid(), signal.SIGKILL)

    return fatal


def make_unsent() -> Callable[[str, str], Any]:
    """Return a task, by value, whose process dies when it has ended, before its outcome has left."""

    def unsent(board: str, label: str) -> object:
        class Bomb:
            def __reduce__(self) -> str:
                os.kill(os.getpid(), signal.SIGKILL)
                return "never"

        with Attendance(board, label) as attendance:
            attendance.report_in()
        return Bomb()

    return unsent


def assert_both_workers_are_free(deployment: DaskDeployment, stage: Stage) -> None:
    """Whatever Dask has started again would be executed by now."""
    deployment.ensure_worker()
    use_both_workers(deployment, stage)


# --- how outcomes come back ---


@pytest.mark.parametrize("config", [{}, {"callback_security": "signed"}], ids=["unsigned", "signed"])
def test_small_outcomes_need_no_connection_of_their_worker(
    deployment: DaskDeployment, stage: Stage, config: dict[str, Any]
) -> None:
    use_both_workers(deployment, stage)
    with receiver(deployment, stage, **config) as proxy:
        assert stage.begin_map(tasks.double, range(20)).result(SECONDS) == [2 * item for item in range(20)]
        assert isinstance(stage.begin(tasks.fail, message="no").failure(SECONDS), ValueError)
        assert proxy.requests() == []


def test_a_large_outcome_is_posted(deployment: DaskDeployment, stage: Stage) -> None:
    use_both_workers(deployment, stage)
    with receiver(deployment, stage) as proxy:
        assert stage.call(tasks.make_blob, size=1 << 20) == tasks.make_blob(1 << 20)
        assert len(proxy.requests("task_result")) == 1


def test_a_task_that_takes_its_time_is_announced(deployment: DaskDeployment, stage: Stage) -> None:
    use_both_workers(deployment, stage)
    running = stage.begin(tasks.wait_at, board=stage.board.address, label="long")
    stage.wait_until_known(tasks.wait_at, "long")
    stage.board.release("long")
    assert running.result(SECONDS) == "released"


def test_outcomes_are_posted_where_the_scheduler_takes_no_plugin(
    deployment: DaskDeployment, stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refuse(*args: object, **kwargs: object) -> None:
        raise ValueError("no plugins here")

    with monkeypatch.context() as patch:
        patch.setattr(Client, "register_plugin", refuse)
        with receiver(deployment, stage) as proxy:
            assert stage.begin_map(tasks.double, range(5)).result(SECONDS) == [0, 2, 4, 6, 8]
            assert len(proxy.requests("task_result")) == 5


def test_a_project_s_own_client_gets_outcomes_too(deployment: DaskDeployment, stage: Stage) -> None:
    use_both_workers(deployment, stage)
    port, token = free_port(deployment.host), token_hex(16)
    with (
        Client(deployment.scheduler.address(), set_as_default=False) as client,
        FaultProxy((deployment.host, port), host=deployment.host) as proxy,
    ):
        own = {"client": client, "callback_port": port, "callback_token": token}
        url = proxy.url(f"/wove/events/{token}")
        wove.config(environments={"own": {"executor": "dask", "executor_config": {**own, "callback_url": url}}})
        with weave() as w:
            w.do(range(20), environment="own")(tasks.double)
        assert w.result.double == [2 * item for item in range(20)]
        assert proxy.requests() == []
        wove.shutdown()


# --- workers that die ---


def test_a_task_that_kills_its_worker_at_once_is_not_executed_again(deployment: DaskDeployment, stage: Stage) -> None:
    use_both_workers(deployment, stage)
    error = stage.begin(make_fatal(), board=stage.board.address, label="fatal").failure(SECONDS)
    assert isinstance(error, DeliveryOrphanedError)
    assert_both_workers_are_free(deployment, stage)
    assert len(stage.board.visits("fatal")) == 1


def test_nor_is_it_by_a_worker_that_has_executed_no_task_of_wove_s(deployment: DaskDeployment, stage: Stage) -> None:
    deployment.kill_worker()
    deployment.ensure_worker()
    # One after the other, so that they are executed by the same worker.
    (address, *_) = deployment.scheduler.workers()
    stage.configure(submit_options={"workers": [address], "allow_other_workers": True})
    assert stage.call(tasks.add, left=1, right=2) == 3
    error = stage.begin(make_fatal(), board=stage.board.address, label="fresh").failure(SECONDS)
    assert isinstance(error, DeliveryOrphanedError)
    deployment.ensure_worker()
    assert_both_workers_are_free(deployment, stage)
    assert len(stage.board.visits("fresh")) == 1


def test_an_outcome_that_dies_with_its_worker_is_a_lost_run_and_not_executed_again(
    deployment: DaskDeployment, stage: Stage
) -> None:
    use_both_workers(deployment, stage)
    error = stage.begin(make_unsent(), board=stage.board.address, label="unsent").failure(SECONDS)
    assert isinstance(error, DeliveryOrphanedError)
    assert_both_workers_are_free(deployment, stage)
    assert len(stage.board.visits("unsent")) == 1


def test_what_may_run_twice_is_executed_again(deployment: DaskDeployment, stage: Stage) -> None:
    use_both_workers(deployment, stage)
    options = {"delivery_orphan_policy": "requeue"}
    running = stage.begin(make_fatal(), options, board=stage.board.address, label="again")
    stage.board.wait_for("again", count=2, seconds=SECONDS)
    assert isinstance(running.failure(SECONDS), DeliveryOrphanedError)
    deployment.ensure_worker()


def test_tasks_that_wait_behind_one_that_kills_its_worker_go_on_elsewhere(
    deployment: DaskDeployment, stage: Stage
) -> None:
    use_both_workers(deployment, stage)
    doomed = stage.begin(make_fatal(), board=stage.board.address, label="first")
    others = stage.begin_map(tasks.double, range(20))
    assert others.result(SECONDS) == [2 * item for item in range(20)]
    assert isinstance(doomed.failure(SECONDS), DeliveryOrphanedError)
    deployment.ensure_worker()


# --- weaves that give up ---


def test_a_task_that_has_just_begun_stops_when_its_weave_is_cancelled(deployment: DaskDeployment, stage: Stage) -> None:
    use_both_workers(deployment, stage)
    running = stage.begin(tasks.wait_at, board=stage.board.address, label="begun")
    (visit,) = stage.board.wait_for("begun", seconds=SECONDS)
    running.abandon()
    assert running.wait(SECONDS)
    assert stage.board.wait_for_end(visit, seconds=SECONDS) == "stopped: TaskStopped"


def test_nothing_is_left_of_tasks_that_are_taken_back_while_their_outcomes_are_on_their_way(
    deployment: DaskDeployment, stage: Stage
) -> None:
    use_both_workers(deployment, stage)
    for round_ in range(5):
        running = stage.begin_map(tasks.attend_for, range(8), board=stage.board.address, label=f"crowd {round_}")
        (visit, *_) = stage.board.wait_for(f"crowd {round_}", seconds=SECONDS)
        stage.board.release(f"crowd {round_}")
        stage.board.wait_for_end(visit, seconds=SECONDS)
        running.abandon()
        assert running.wait(SECONDS)
    wait_until(lambda: not deployment.leftovers())
    assert stage.call(tasks.add, left=1, right=2) == 3
