"""What the kit does not ask for: the worker's commands, the project's own app, limits, and deaths of other kinds."""

import asyncio
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from celery import Celery
from celery.exceptions import SoftTimeLimitExceeded
from celery_backend import CeleryDeployment, RabbitBroker, RedisBroker, Stand, app_command, own_command

import wove
from wove.errors import DeliveryOrphanedError, TaskCancelledError
from wove.testing import tasks
from wove.testing.stage import Stage, poll_until
from wove_celery import CeleryAdapter
from wove_celery.worker import main

SECONDS = 30.0


def late_command(directory: Path, url: str) -> Sequence[str]:
    """The command of a project whose messages are acknowledged when they have been executed."""
    return app_command(directory, url, "app.conf.task_acks_late = app.conf.task_reject_on_worker_lost = True")


@pytest.fixture
def lost_seconds(monkeypatch: pytest.MonkeyPatch) -> float:
    """Silent workers count as dead much sooner than by default."""
    monkeypatch.setattr("wove_celery.sightings.LOST_SECONDS", 3.0)
    return 3.0


@pytest.fixture
def staged() -> Iterator[Callable[[CeleryDeployment], Stage]]:
    """Returns a function that starts a deployment's worker and configures Wove for it."""
    stages: list[Stage] = []

    def stage(deployment: CeleryDeployment) -> Stage:
        deployment.ensure_worker()
        stages.append(Stage(deployment, seconds=SECONDS).__enter__())
        return stages[-1]

    yield stage
    for each in stages:
        each.__exit__(None, None, None)


Staged = Callable[[CeleryDeployment], Stage]


# --- the worker's commands ---


def test_the_own_command_says_that_it_needs_a_broker(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CELERY_BROKER_URL", raising=False)
    with pytest.raises(SystemExit, match=r"which broker\? Give its URL, e.g. -b redis://localhost:6379/0"):
        main([])


def test_the_own_command_names_an_app_that_cannot_be_imported() -> None:
    with pytest.raises(SystemExit, match=r"-A no_such_module leads to no Celery app .*ModuleNotFoundError"):
        main(["-A", "no_such_module"])


def test_the_own_command_serves_another_task_name(stand: Stand, redis_server: RedisBroker, staged: Staged) -> None:
    arguments = ("--task-name", "myapp.wove_task")
    stage = staged(stand.deployment(redis_server, command=own_command, arguments=arguments))
    stage.configure(task_name="myapp.wove_task")
    assert stage.call(tasks.add, left=1, right=2) == 3
    stage.configure()
    assert stage.call(tasks.add, left=1, right=2) == 3, "and the default one"


def test_a_task_name_that_no_worker_knows_is_said(stand: Stand, redis_server: RedisBroker, staged: Staged) -> None:
    arguments = ("--task-name", "myapp.wove_task")
    stage = staged(stand.deployment(redis_server, command=own_command, arguments=arguments))
    stage.configure(task_name="myapp.other")
    error = stage.begin(tasks.add, left=1, right=2).failure(SECONDS)
    assert isinstance(error, DeliveryOrphanedError)
    assert "knows no Celery task 'myapp.other'" in str(error)
    assert "--task-name myapp.other" in str(error)


def test_the_project_s_own_app_on_both_sides(
    stand: Stand, redis_server: RedisBroker, staged: Staged, project: Path
) -> None:
    deployment = stand.deployment(redis_server, command=partial(app_command, project))
    stage = staged(deployment)
    url = redis_server.celery_url()
    app = Celery("shop", broker=url, backend=url, set_as_current=False)
    wove.config(environments={"shop": {"executor": "celery", "executor_config": {"app": app}}})
    assert stage.call(tasks.add, {"environment": "shop"}, left=1, right=2) == 3
    before = set(deployment.leftovers())
    values = stage.begin_map(tasks.double, range(5), {"environment": "shop"}).result(SECONDS)
    assert values == [0, 2, 4, 6, 8]
    assert set(deployment.leftovers()) <= before


@pytest.mark.parametrize("pool", ["prefork", "threads"])
def test_revoked_tasks_leave_no_results_behind(
    stand: Stand, redis_server: RedisBroker, staged: Staged, project: Path, pool: str
) -> None:
    deployment = stand.deployment(redis_server, pool=pool, command=partial(app_command, project))
    stage = staged(deployment)
    assert stage.call(tasks.add, left=1, right=2) == 3
    before = set(deployment.leftovers())
    board = stage.board.address
    options = {"delivery_heartbeat_seconds": 1.5}
    running = [stage.begin(tasks.wait_at, options, board=board, label="running") for _ in range(2)]
    stage.board.wait_for("running", count=2, seconds=SECONDS)
    # The worker executes two at a time, so this one waits in its main process.
    waiting = stage.begin(tasks.attend, board=board, label="waiting")
    stage.journal.wait_for_submission("attend", seconds=SECONDS)
    for weave in (waiting, *running):
        weave.abandon()
        assert weave.wait(SECONDS)
    poll_until(lambda: set(deployment.leftovers()) <= before, seconds=SECONDS, what="nothing is left")
    assert stage.board.visits("waiting") == []


def test_a_task_that_ended_before_it_was_revoked_leaves_no_result_behind(
    stand: Stand, redis_server: RedisBroker, staged: Staged, project: Path
) -> None:
    deployment = stand.deployment(redis_server, pool="threads", command=partial(app_command, project))
    stage = staged(deployment)
    assert stage.call(tasks.add, left=1, right=2) == 3
    (run_id,) = stage.journal.run_ids("add")
    asyncio.run(cancel(run_id, redis_server.celery_url()))
    # A worker takes commands in their order, so this one comes after the other.
    app = Celery(broker=redis_server.celery_url(), set_as_current=False)
    assert app.control.ping(timeout=1.0)
    assert [name for name in deployment.leftovers() if run_id in name] == []


async def cancel(run_id: str, url: str) -> None:
    adapter = CeleryAdapter(name="celery", config={"broker_url": url}, callback_url="http://here", run_config={})
    await adapter.start()
    try:
        await adapter.cancel(run_id, run_id, {})
    finally:
        await adapter.close()


def test_a_revoke_that_does_not_come_from_wove_is_celery_s_own(
    stand: Stand, redis_server: RedisBroker, staged: Staged, project: Path
) -> None:
    staged(stand.deployment(redis_server, pool="threads", command=partial(app_command, project)))
    app = Celery(broker=redis_server.celery_url(), set_as_current=False)
    (answer,) = app.control.revoke("somebody-else-s", reply=True, timeout=1.0)
    assert "tasks {'somebody-else-s'} flagged as revoked" in str(answer)


def test_a_broker_holds_nothing_of_weaves_that_have_ended(
    stand: Stand, redis_server: RedisBroker, staged: Staged
) -> None:
    deployment = stand.deployment(redis_server, pool="prefork")
    deployment.ensure_worker()
    before = set(deployment.leftovers())
    stage = staged(deployment)
    assert stage.begin_map(tasks.double, range(20)).result(SECONDS) == list(range(0, 40, 2))
    given_up = stage.begin(tasks.wait_at, board=stage.board.address, label="given up")
    stage.board.wait_for("given up", seconds=SECONDS)
    given_up.abandon()
    assert given_up.wait(SECONDS)
    wove.shutdown()
    poll_until(lambda: set(deployment.leftovers()) <= before, seconds=SECONDS, what="all is as before")


# --- equal tasks ---


def test_the_worker_gives_the_result_of_an_idempotency_key_again(
    stand: Stand, redis_server: RedisBroker, staged: Staged
) -> None:
    stage = staged(stand.deployment(redis_server, pool="prefork"))
    options = {"delivery_idempotency_key": f"once-{stage.board.address}"}
    place = {"board": stage.board.address, "label": "once"}
    first = stage.call(tasks.attend, options, **place)
    assert stage.call(tasks.attend, options, **place) == first
    assert len(stage.board.visits("once")) == 1


# --- what stops a task ---


def test_a_cancelled_task_ends_with_its_process_unless_that_is_switched_off(
    stand: Stand, redis_server: RedisBroker, staged: Staged
) -> None:
    stage = staged(stand.deployment(redis_server, pool="prefork"))
    endings = []
    for terminate in (True, False):
        stage.configure(terminate_on_cancel=terminate)
        options = {"delivery_heartbeat_seconds": 1.5}
        running = stage.begin(tasks.wait_at, options, board=stage.board.address, label=f"terminate {terminate}")
        (visit,) = stage.board.wait_for(f"terminate {terminate}", seconds=SECONDS)
        running.abandon()
        endings.append(stage.board.wait_for_end(visit, seconds=SECONDS))
    assert endings == ["stopped: SystemExit", "stopped: TaskStopped"]


def test_a_hard_time_limit_ends_the_task(stand: Stand, redis_server: RedisBroker, staged: Staged) -> None:
    stage = staged(stand.deployment(redis_server, pool="prefork"))
    stage.configure(time_limit=1)
    error = stage.begin(tasks.wait_at, board=stage.board.address, label="limited").failure(SECONDS)
    # The process is told with SIGTERM first, and says goodbye.
    assert isinstance(error, TaskCancelledError)


def test_a_soft_time_limit_is_raised_in_the_task(stand: Stand, redis_server: RedisBroker, staged: Staged) -> None:
    stage = staged(stand.deployment(redis_server, pool="prefork"))
    stage.configure(soft_time_limit=1)
    error = stage.begin(tasks.wait_at, board=stage.board.address, label="limited").failure(SECONDS)
    assert isinstance(error, SoftTimeLimitExceeded)


# --- deaths ---


def test_a_worker_that_executes_in_its_main_thread_is_not_taken_for_dead(
    stand: Stand, redis_server: RedisBroker, staged: Staged, lost_seconds: float
) -> None:
    stage = staged(stand.deployment(redis_server, pool="solo"))
    stage.configure(dead_job_grace=0.1)
    running = stage.begin(tasks.wait_at, board=stage.board.address, label="busy")
    stage.board.wait_for("busy", seconds=SECONDS)
    # Any other worker would have been given up by then.
    assert not running.wait(lost_seconds + 1.5)
    stage.board.release("busy")
    assert running.result(SECONDS) == "released"


def test_the_death_of_a_prefork_process_is_the_reason_of_the_error(
    stand: Stand, redis_server: RedisBroker, staged: Staged
) -> None:
    deployment = stand.deployment(redis_server, pool="prefork")
    stage = staged(deployment)
    running = stage.begin(tasks.wait_at, board=stage.board.address, label="doomed")
    (visit,) = stage.board.wait_for("doomed", seconds=SECONDS)
    deployment.kill_process(visit.pid)
    error = running.failure(SECONDS)
    assert isinstance(error, DeliveryOrphanedError)
    assert error.state == "failed"
    assert "signal 9" in str(error.reason)


def test_a_worker_that_shuts_down_and_waits_for_its_task_is_not_taken_for_dead(
    stand: Stand, redis_server: RedisBroker, staged: Staged, lost_seconds: float
) -> None:
    deployment = stand.deployment(redis_server, pool="prefork")
    stage = staged(deployment)
    stage.configure(dead_job_grace=0.1)
    printed = len(deployment.worker.output())
    running = stage.begin(tasks.wait_at, board=stage.board.address, label="last")
    stage.board.wait_for("last", seconds=SECONDS)
    deployment.terminate_worker()
    # Any other worker would have been given up by then.
    assert not running.wait(lost_seconds + 1.5)
    stage.board.release("last")
    assert running.result(SECONDS) == "released"
    poll_until(lambda: not deployment.worker.running, seconds=SECONDS, what="the worker has ended")
    assert "Traceback" not in deployment.worker.output()[printed:]


def test_what_a_dead_worker_had_prefetched_is_lost_with_redis(
    stand: Stand, redis_server: RedisBroker, staged: Staged, lost_seconds: float
) -> None:
    deployment = stand.deployment(redis_server, pool="prefork")
    stage = staged(deployment)
    board = stage.board.address
    running = [stage.begin(tasks.wait_at, board=board, label="running") for _ in range(2)]
    stage.board.wait_for("running", count=2, seconds=SECONDS)
    prefetched = stage.begin(tasks.attend, board=board, label="prefetched")
    poll_until(
        lambda: deployment.worker.output().count("Task attend[") >= 1, seconds=SECONDS, what="the worker has taken it"
    )
    deployment.kill_worker()
    for weave in (prefetched, *running):
        assert "has not been heard of" in str(weave.failure(SECONDS))
    assert stage.board.visits("prefetched") == []


def test_a_message_that_comes_back_at_once_leaves_it_to_the_weave_what_becomes_of_the_task(
    stand: Stand, rabbitmq_server: RabbitBroker, staged: Staged, project: Path
) -> None:
    deployment = stand.deployment(rabbitmq_server, command=partial(late_command, project))
    stage = staged(deployment)
    options = {"delivery_orphan_policy": "requeue"}
    running = stage.begin(tasks.wait_at, options, board=stage.board.address, label="rejected")
    visit = stage.wait_until_known(tasks.wait_at, "rejected")
    deployment.kill_process(visit.pid)
    stage.journal.wait_for_submission("wait_at", count=2, seconds=SECONDS)
    stage.board.wait_for("rejected", count=2, seconds=SECONDS)
    stage.board.release("rejected")
    assert running.result(SECONDS) == "released"
    assert len(stage.board.visits("rejected")) == 2


def test_a_task_of_a_dead_worker_runs_once_more_and_no_oftener(
    stand: Stand, rabbitmq_server: RabbitBroker, staged: Staged, project: Path
) -> None:
    """The broker delivers a late-acknowledged message again, and the weave's own policy submits another one."""
    deployment = stand.deployment(rabbitmq_server, command=partial(late_command, project))
    stage = staged(deployment)
    options: dict[str, Any] = {"delivery_orphan_policy": "requeue", "delivery_heartbeat_seconds": 1.5}
    running = stage.begin(tasks.wait_at, options, board=stage.board.address, label="again")
    stage.wait_until_known(tasks.wait_at, "again")
    deployment.kill_worker()
    stage.journal.wait_for_submission("wait_at", count=2, seconds=SECONDS)
    deployment.ensure_worker()
    stage.board.wait_for("again", count=2, seconds=SECONDS)
    # The next task has been taken after both messages of the first one.
    assert stage.call(tasks.add, left=1, right=2) == 3
    stage.board.release("again")
    assert running.result(SECONDS) == "released"
    assert len(stage.board.visits("again")) == 2
