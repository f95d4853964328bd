"""Real jobs that die in the ways of AWS Batch, that nothing can start, or that are ended; and outages of AWS."""

import os
import signal
from collections.abc import Iterator
from typing import Any

import pytest
from batch_backend import UNFINISHED, BatchDeployment, BatchServer
from job_tasks import eat_memory, shout_and_leave

from tests.beds.batch_server import BUCKET
from wove.errors import DeliveryOrphanedError, DeliveryTimeoutError
from wove.testing import tasks
from wove.testing.stage import Stage, poll_until

SECONDS = 60.0


@pytest.fixture
def stage(deployment: BatchDeployment) -> Iterator[Stage]:
    deployment.ensure_worker()
    with Stage(deployment, seconds=SECONDS) as stage:
        yield stage


def lost(stage: Stage, task: Any, **arguments: Any) -> DeliveryOrphanedError:
    """Return the error of a task whose job dies."""
    error = stage.begin(task, **arguments).failure(SECONDS)
    assert isinstance(error, DeliveryOrphanedError), repr(error)
    return error


def test_too_much_memory_is_an_error_that_says_so(stage: Stage) -> None:
    stage.configure(memory=128)
    error = lost(stage, eat_memory, mebibytes=400)
    assert (error.state, error.exit_code) == ("failed", 137)
    assert "OutOfMemoryError: Container killed due to memory usage" in str(error)
    assert "'memory'" in str(error)


def test_a_killed_process_leaves_exit_code_and_the_end_of_its_log(stage: Stage) -> None:
    error = lost(stage, shout_and_leave, words="the last words", code=7)
    assert (error.state, error.exit_code) == ("failed", 7)
    assert "Its log ends with:" in str(error)
    assert "the last words" in str(error)


def test_an_image_that_cannot_be_pulled_is_an_error(server: BatchServer, stage: Stage) -> None:
    with server.definition(image="missing/image:1") as definition:
        stage.configure(job_definition=definition)
        error = lost(stage, tasks.add, left=1, right=2)
    assert "CannotPullContainerError" in str(error)
    assert "missing/image:1" in str(error)


def test_a_host_that_goes_away_is_an_error(deployment: BatchDeployment, stage: Stage) -> None:
    running = stage.begin(tasks.wait_at, board=stage.board.address, label="host")
    stage.wait_until_known(tasks.wait_at, "host")
    deployment.kill_worker()
    error = running.failure(SECONDS)
    assert isinstance(error, DeliveryOrphanedError), repr(error)
    assert "Host EC2" in str(error)
    assert "'retries'" in str(error)


def test_a_job_that_aws_times_out_says_so(stage: Stage, server: BatchServer) -> None:
    # AWS asks for a minute at least; a weave that waits for less ends before its job's own limit.
    options = {"delivery_timeout": 3.0}
    error = stage.begin(tasks.wait_at, options, board=stage.board.address, label="slow").failure(SECONDS)
    assert isinstance(error, DeliveryTimeoutError)
    run_id = stage.journal.wait_for_submission("wait_at", seconds=SECONDS)
    (job,) = [job for job in server.jobs() if job["jobName"] == f"wove-{run_id}"]
    assert server.job(job["jobId"])["timeout"] == {"attemptDurationSeconds": 60}


def test_a_job_that_finds_no_host_is_an_error_after_a_while(stage: Stage, server: BatchServer) -> None:
    stage.configure(gpus=1, runnable_timeout=2.0)
    error = lost(stage, tasks.add, left=1, right=2)
    assert "RUNNABLE" in str(error)
    assert "MISCONFIGURATION:JOB_RESOURCE_REQUIREMENT" in str(error)
    poll_until(lambda: not server.jobs(*UNFINISHED), seconds=SECONDS, what="the job has been ended")


def test_a_timeout_repeats_why_the_job_found_no_host(stage: Stage) -> None:
    stage.configure(gpus=1)
    error = stage.begin(tasks.add, {"delivery_timeout": 6.0}, left=1, right=2).failure(SECONDS)
    assert isinstance(error, DeliveryTimeoutError), repr(error)
    assert "RUNNABLE: MISCONFIGURATION:JOB_RESOURCE_REQUIREMENT" in str(error)


def test_a_job_that_somebody_terminates_is_an_error(server: BatchServer, stage: Stage) -> None:
    running = stage.begin(tasks.wait_at, board=stage.board.address, label="by hand")
    visit = stage.wait_until_known(tasks.wait_at, "by hand")
    os.kill(visit.pid, signal.SIGSTOP)  # So that it cannot report the signal that it gets.
    (job,) = server.jobs("RUNNING")
    server.batch.terminate_job(jobId=job["jobId"], reason="the budget is spent")
    error = running.failure(SECONDS)
    assert isinstance(error, DeliveryOrphanedError), repr(error)
    assert error.state == "cancelled"
    assert "the budget is spent" in str(error)


@pytest.mark.parametrize("bucket", [None, BUCKET])
def test_a_terminated_job_reports_that_its_task_was_cancelled(
    server: BatchServer, stage: Stage, bucket: str | None
) -> None:
    stage.configure(payload_bucket=bucket)
    running = stage.begin(tasks.wait_at, board=stage.board.address, label="told")
    (visit,) = stage.board.wait_for("told", seconds=SECONDS)
    (job,) = server.jobs("RUNNING")
    server.batch.terminate_job(jobId=job["jobId"], reason="the budget is spent")
    assert running.wait(SECONDS)
    run_id = stage.journal.wait_for_submission("wait_at", seconds=SECONDS)
    assert stage.journal.events(run_id)[-1] == "task_cancelled"
    assert stage.board.wait_for_end(visit, seconds=SECONDS) != "released"


def test_the_jobs_of_a_map_that_is_given_up_end(server: BatchServer, stage: Stage) -> None:
    stage.configure(payload_bucket=BUCKET)
    running = stage.begin_map(tasks.attend_for, [1, 2, 3, 4], board=stage.board.address, label="map")
    visits = stage.board.wait_for("map", count=4, seconds=SECONDS)
    assert any(":" in job["jobId"] for job in server.jobs("RUNNING")), "elements of an array"
    running.abandon()
    assert running.wait(SECONDS)
    for visit in visits:
        assert stage.board.wait_for_end(visit, seconds=SECONDS) != "released"
    poll_until(lambda: not server.jobs(*UNFINISHED), seconds=SECONDS, what="the jobs have ended")


def test_one_element_of_an_array_may_fail_alone(stage: Stage) -> None:
    stage.configure(payload_bucket=BUCKET)
    error = stage.begin_map(tasks.fail, ["first", "second"]).failure(SECONDS)
    assert type(error) is ValueError


def test_a_command_that_is_not_there_is_an_error(stage: Stage) -> None:
    stage.configure(container_overrides={"command": ["sh", "-c", "echo no such worker >&2; exit 127"]})
    error = lost(stage, tasks.add, left=1, right=2)
    assert error.exit_code == 127
    assert "no such worker" in str(error)


def test_a_payload_that_cannot_be_read_is_an_error(stage: Stage) -> None:
    broken = {"AWS_ACCESS_KEY_ID": "", "AWS_EC2_METADATA_DISABLED": "true"}
    stage.configure(payload_bucket=BUCKET, container_overrides={"environment": broken})
    error = lost(stage, tasks.add, left=1, right=2)
    assert error.exit_code == 78
    assert "jobRoleArn" in str(error)


def test_a_running_task_survives_an_outage_of_aws(deployment: BatchDeployment, stage: Stage) -> None:
    running = stage.begin(tasks.wait_at, board=stage.board.address, label="outage")
    stage.wait_until_known(tasks.wait_at, "outage")
    deployment.take_backend_down()
    # That time passes is what this is about.
    assert not running.wait(10.0)
    deployment.bring_backend_up()
    stage.board.release("outage")
    assert running.result(SECONDS) == "released"


def test_a_death_during_an_outage_of_aws_is_reported_afterwards(deployment: BatchDeployment, stage: Stage) -> None:
    running = stage.begin(tasks.wait_at, board=stage.board.address, label="dark")
    visit = stage.wait_until_known(tasks.wait_at, "dark")
    deployment.take_backend_down()
    os.kill(visit.pid, signal.SIGKILL)
    assert not running.wait(5.0)
    deployment.bring_backend_up()
    error = running.failure(SECONDS)
    assert isinstance(error, DeliveryOrphanedError | DeliveryTimeoutError), repr(error)
