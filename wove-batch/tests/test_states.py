"""What AWS Batch says about jobs, and what becomes of it. The descriptions are of real jobs, shortened."""

import logging
from typing import Any

import pytest

from wove.integrations.base import JobState
from wove_batch.states import Submitted, log_place, state_of


def failed(reason: str, **changes: Any) -> dict[str, Any]:
    return {"jobId": "1", "status": "FAILED", "statusReason": reason, "attempts": [], **changes}


@pytest.mark.parametrize(
    ("status", "phase"),
    [
        ("SUBMITTED", "queued"),
        ("PENDING", "queued"),
        ("STARTING", "queued"),
        ("RUNNING", "running"),
        ("SUCCEEDED", "finished"),
    ],
)
def test_each_status_has_its_phase(status: str, phase: str) -> None:
    assert state_of({"status": status}).phase == phase


def test_a_job_that_ran_out_of_memory_says_so_with_advice() -> None:
    container = {"exitCode": 137, "reason": "OutOfMemoryError: Container killed due to memory usage"}
    state = state_of(failed("Essential container in task exited", container=container))
    assert (state.phase, state.exit_code) == ("failed", 137)
    assert "OutOfMemoryError" in str(state.reason)
    assert "'memory'" in str(state.reason)


def test_the_last_attempt_tells_what_the_container_does_not() -> None:
    attempts = [
        {"statusReason": "first", "container": {"exitCode": 1}},
        {"statusReason": "Task failed to start", "container": {"reason": "CannotPullContainerError: no such image"}},
    ]
    state = state_of(failed("Task failed to start", attempts=attempts, container={}))
    assert state.exit_code is None
    assert str(state.reason).startswith("Task failed to start; CannotPullContainerError: no such image.")
    assert "first" not in str(state.reason)


@pytest.mark.parametrize(
    ("reason", "advice"),
    [
        ("Job attempt duration exceeded timeout", "Raise 'timeout'"),
        ("Host EC2 (instance i-1) terminated.", "'retries'"),
        ("Container Overrides length must be at most 8192", "payload_bucket"),
    ],
)
def test_advice_follows_the_reason(reason: str, advice: str) -> None:
    assert advice in str(state_of(failed(reason)).reason)


@pytest.mark.parametrize("how", ["isTerminated", "isCancelled"])
def test_a_job_that_somebody_ended_is_cancelled(how: str) -> None:
    assert state_of(failed("by hand", **{how: True})) == JobState("cancelled", reason="by hand")


def test_a_job_without_a_reason_says_that() -> None:
    assert state_of({"status": "FAILED"}).reason == "AWS Batch gives no reason"


def test_an_unknown_job_is_gone_when_it_is_missed_twice() -> None:
    handle = Submitted("1", "report")
    assert handle.judge(None, runnable_timeout=None) is None
    assert handle.judge({"status": "RUNNING"}, runnable_timeout=None) == JobState("running")
    assert handle.judge(None, runnable_timeout=None) is None
    state = handle.judge(None, runnable_timeout=None)
    assert state is not None
    assert state.phase == "gone"


def test_why_a_job_finds_no_host_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    handle = Submitted("1", "wove-report")
    job = {"status": "RUNNABLE", "statusReason": "MISCONFIGURATION:JOB_RESOURCE_REQUIREMENT - too much"}
    with caplog.at_level(logging.WARNING, "wove"):
        for _ in range(3):
            assert handle.judge(job, runnable_timeout=None) == JobState(
                "queued", reason=f"RUNNABLE: {job['statusReason']}"
            )
    assert [record.getMessage() for record in caplog.records] == [
        "AWS Batch job wove-report waits in RUNNABLE: MISCONFIGURATION:JOB_RESOURCE_REQUIREMENT - too much"
    ]


def test_the_log_is_where_the_job_says() -> None:
    assert log_place({"container": {}}) is None
    assert log_place({"container": {"logStreamName": "a/b"}}) == {
        "logGroupName": "/aws/batch/job",
        "logStreamName": "a/b",
    }
    elsewhere = {"logDriver": "awslogs", "options": {"awslogs-group": "/acme"}}
    place = log_place({"container": {"logStreamName": "a/b", "logConfiguration": elsewhere}})
    assert place == {"logGroupName": "/acme", "logStreamName": "a/b"}
    assert log_place({"container": {"logStreamName": "a", "logConfiguration": {"logDriver": "splunk"}}}) is None


def test_a_handle_shows_its_job() -> None:
    assert repr(Submitted("1:7", "wove-report")) == "<AWS Batch job wove-report (1:7)>"
