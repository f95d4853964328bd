"""Tasks on real workers: workflows of a project, a server that goes away, tasks that get lost on the way."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from project_worker import ReportWorkflow
from temporal_backend import TemporalDeployment, TemporalServer, own_command, project_command
from temporalio.api.taskqueue.v1 import TaskQueue
from temporalio.api.workflowservice.v1 import PollActivityTaskQueueRequest
from temporalio.client import Client

from tests.support.servers import HOST
from wove.errors import DeliveryOrphanedError, TaskCancelledError
from wove.testing import FaultProxy, tasks
from wove.testing.servers import free_port
from wove.testing.stage import Stage

SECONDS = 60.0


@pytest.fixture(scope="module")
def project(temporal_server: TemporalServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TemporalDeployment]:
    directory = tmp_path_factory.mktemp("project")
    deployment = TemporalDeployment(
        temporal_server, directory, command=project_command(temporal_server), task_queue="project"
    )
    yield deployment
    deployment.close()


@pytest.fixture
def stage(project: TemporalDeployment) -> Iterator[Stage]:
    project.ensure_worker()
    with Stage(project, seconds=SECONDS) as stage:
        yield stage


# --- workflows of a project ---


@pytest.mark.parametrize("workflow", ["ReportWorkflow", ReportWorkflow.run])
def test_a_workflow_of_the_project_executes_the_task(stage: Stage, workflow: object) -> None:
    stage.configure(workflow=workflow, start_options={"memo": {"tenant": "acme"}})
    assert stage.begin_map(tasks.double, range(5)).result(SECONDS) == [0, 2, 4, 6, 8]


def test_a_workflow_that_ends_without_a_result_is_reported(stage: Stage) -> None:
    stage.configure(workflow="ForgetfulWorkflow")
    error = stage.begin(tasks.add, left=1, right=2).failure(SECONDS)
    assert isinstance(error, DeliveryOrphanedError)
    assert error.state == "finished"


def test_a_task_in_a_workflow_of_the_project_stops_when_its_weave_does(stage: Stage) -> None:
    stage.configure(workflow="ReportWorkflow")
    options = {"delivery_heartbeat_seconds": 2.0}
    running = stage.begin(tasks.wait_at_later, options, board=stage.board.address, label="project")
    (visit,) = stage.board.wait_for("project", seconds=SECONDS)
    running.abandon()
    assert stage.board.wait_for_end(visit, seconds=SECONDS) != "released"


# --- large arguments ---


def test_an_input_that_all_items_of_a_map_need_crosses_once(project: TemporalDeployment, stage: Stage) -> None:
    def digest_for(item: int, blob: bytes) -> str:
        return f"{item} {tasks.digest(blob)}"

    port, token = free_port(), "shared-inputs-token"
    table = os.urandom(3_000_000)
    with FaultProxy((HOST, port)) as proxy:
        url = proxy.url(f"/wove/events/{token}")
        stage.configure(callback_port=port, callback_token=token, callback_url=url)
        digests = stage.begin_map(digest_for, range(12), blob=table).result(SECONDS)
        fetched = [request for request in proxy.requests() if request.method == "GET"]
    assert digests == [f"{item} {tasks.digest(table)}" for item in range(12)]
    assert len(fetched) == 1


# --- jobs that others end, or that get lost ---


def test_a_job_that_an_operator_terminates_is_reported_and_stops(project: TemporalDeployment, stage: Stage) -> None:
    stage.configure(heartbeat_timeout=4)
    running = stage.begin(tasks.wait_at_later, board=stage.board.address, label="terminated")
    visit = stage.wait_until_known(tasks.wait_at_later, "terminated")
    run_id = stage.journal.run_ids("wait_at_later")[-1]

    async def terminate(client: Client) -> None:
        await client.get_activity_handle(f"wove-{run_id}").terminate(reason="by hand")

    project.server.ask(terminate)
    error = running.failure(SECONDS)
    # Whichever comes first: the server's word, or the worker's.
    assert isinstance(error, DeliveryOrphanedError | TaskCancelledError), repr(error)
    assert stage.board.wait_for_end(visit, seconds=SECONDS) != "released"


def test_a_task_that_temporal_hands_out_and_no_worker_gets_is_started_again(
    project: TemporalDeployment, stage: Stage, tmp_path: Path
) -> None:
    stage.configure(task_queue="lossy", heartbeat_timeout=1)
    running = stage.begin(tasks.add, left=40, right=2)

    async def take_and_forget(client: Client) -> bytes:
        request = PollActivityTaskQueueRequest(namespace=client.namespace, task_queue=TaskQueue(name="lossy"))
        return (await client.workflow_service.poll_activity_task_queue(request)).task_token

    assert project.server.ask(take_and_forget)
    worker = TemporalDeployment(project.server, tmp_path, command=own_command(project.server, "--task-queue", "lossy"))
    try:
        worker.ensure_worker()
        assert running.result(SECONDS) == 42
    finally:
        worker.close()


# --- servers ---


def test_a_server_may_be_started_again_while_tasks_run_and_wait(tmp_path: Path) -> None:
    with TemporalServer(database=tmp_path / "temporal.db") as server:
        command = own_command(server, "--task-queue", "reports", "--max-concurrent-activities", "1")
        deployment = TemporalDeployment(server, tmp_path, command=command, task_queue="reports", heartbeat_timeout=60)
        try:
            deployment.ensure_worker()
            with Stage(deployment, seconds=SECONDS) as stage:
                running = stage.begin(tasks.wait_at, board=stage.board.address, label="running")
                stage.board.wait_for("running", seconds=SECONDS)
                queued = stage.begin(tasks.add, left=40, right=2)
                stage.journal.wait_for_submission("add", seconds=SECONDS)
                server.stop()
                server.start()
                stage.board.release("running")
                assert running.result(SECONDS) == "released"
                assert queued.result(SECONDS) == 42
        finally:
            deployment.close()


def test_a_server_without_standalone_activities_gets_workflows(tmp_path: Path) -> None:
    with TemporalServer("--dynamic-config-value", "activity.enableStandalone=false") as server:
        deployment = TemporalDeployment(server, tmp_path, command=own_command(server))
        try:
            deployment.ensure_worker()
            with Stage(deployment, seconds=SECONDS) as stage:
                assert stage.call(tasks.add, left=40, right=2) == 42
            assert server.ask(_count_workflows) == 1
        finally:
            deployment.close()


async def _count_workflows(client: Client) -> int:
    return (await client.count_workflows()).count


# --- the ends of processes ---

_DETACHING = """
import sys, wove
from wove import weave

def nothing(item): ...

config = {"target_host": sys.argv[1], "task_queue": "nobody"}
there = {"executor": "temporal", "executor_config": config}
there |= {"delivery_timeout": 2.0, "delivery_orphan_policy": "detach"}
wove.config(default_environment="here", environments={"here": {"executor": "local"}, "there": there})
with weave() as w:
    w.do(range(20), environment="there")(nothing)
assert isinstance(w.result.exception, wove.DeliveryTimeoutError), w.result.exception
"""


def test_the_interpreter_ends_while_jobs_are_waited_for(temporal_server: TemporalServer, tmp_path: Path) -> None:
    program = tmp_path / "detaching.py"
    program.write_text(_DETACHING)
    for _ in range(3):
        command = [sys.executable, str(program), temporal_server.address]
        ended = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)
        assert ended.returncode == 0, ended.stderr


def test_a_worker_says_which_namespace_is_missing(temporal_server: TemporalServer) -> None:
    command = own_command(temporal_server, "--namespace", "absent")
    ended = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)
    assert ended.returncode == 1
    assert "absent" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_a_worker_says_which_server_it_cannot_reach() -> None:
    address = f"{HOST}:{free_port()}"
    command = [sys.executable, "-m", "wove_temporal.worker", "--task-queue", "reports"]
    environ: dict[str, Any] = {**os.environ, "TEMPORAL_ADDRESS": address}
    ended = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=SECONDS, check=False)
    assert ended.returncode == 1
    assert address in ended.stderr
    assert "Traceback" not in ended.stderr
    assert "Is the server running there" in ended.stderr


def test_a_worker_says_which_module_it_cannot_preload() -> None:
    command = [sys.executable, "-m", "wove_temporal.worker", "--preload", "nowhere.tasks"]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)
    assert ended.returncode == 1
    assert "--preload nowhere.tasks: there is no module 'nowhere' here" in ended.stderr
    assert "Traceback" not in ended.stderr
