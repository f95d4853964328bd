"""What DescribeJobs says about a job, as a `JobState`."""

import logging
import time
from collections.abc import Mapping
from typing import Any

from wove.integrations.base import JobPhase, JobState

# https://docs.aws.amazon.com/batch/latest/userguide/job_states.html
_PHASES: Mapping[str, JobPhase] = {
    "SUBMITTED": "queued",
    "PENDING": "queued",
    "RUNNABLE": "queued",
    "STARTING": "queued",
    "RUNNING": "running",
    "SUCCEEDED": "finished",
    "FAILED": "failed",
}
ENDED = ("SUCCEEDED", "FAILED")
_GONE = JobState("gone", reason="AWS Batch has no such job (any more)")
# What can be done about an end, by words of AWS or of the kernel.
_ADVICE = (
    ("OutOfMemory", "Give the job more 'memory'."),
    ("CannotPullContainer", "Is the image of the job definition right, and may the execution role pull it?"),
    ("ResourceInitializationError", "Can the job's network reach the registry, and its execution role read secrets?"),
    ("attempt duration exceeded timeout", "Raise 'timeout' if the task needs longer."),
    ("Host EC2", "Its host was taken away, as Spot instances are; with 'retries' Wove runs the task again."),
    ("Container Overrides length", "Lower 'max_payload_bytes', or set 'payload_bucket'."),
)
_DEFAULT_LOG_GROUP = "/aws/batch/job"

logger = logging.getLogger("wove")


def state_of(job: Mapping[str, Any]) -> JobState:
    """Return the state of a job as DescribeJobs describes it, with everything that is said about its end."""
    phase = _PHASES.get(job.get("status", ""), "queued")
    container = job.get("container") or {}
    if phase == "queued":
        return JobState(phase, reason=job.get("status"))
    if phase != "failed":
        return JobState(phase, exit_code=container.get("exitCode") if phase == "finished" else None)
    if job.get("isTerminated") or job.get("isCancelled"):
        phase = "cancelled"
    return JobState(phase, exit_code=_exit_code(job), reason=_reason(job))


def _attempt(job: Mapping[str, Any]) -> Mapping[str, Any]:
    attempts = job.get("attempts") or [{}]
    latest: Mapping[str, Any] = attempts[-1]
    return latest


def _exit_code(job: Mapping[str, Any]) -> int | None:
    for place in (job.get("container") or {}, _attempt(job).get("container") or {}):
        if isinstance(place.get("exitCode"), int):
            return int(place["exitCode"])
    return None


def _reason(job: Mapping[str, Any]) -> str:
    attempt = _attempt(job)
    said = [
        job.get("statusReason"),
        (job.get("container") or {}).get("reason"),
        attempt.get("statusReason"),
        (attempt.get("container") or {}).get("reason"),
    ]
    parts = list(dict.fromkeys(str(each).strip() for each in said if each))
    text = "; ".join(parts) or "AWS Batch gives no reason"
    return f"{text}. {advice}" if (advice := _advice(text)) else text


def _advice(text: str) -> str | None:
    return next((advice for word, advice in _ADVICE if word in text), None)


def log_place(job: Mapping[str, Any]) -> dict[str, str] | None:
    """Return group and stream of a job's log in CloudWatch, as parameters of GetLogEvents; None if it has none."""
    container = job.get("container") or {}
    stream = container.get("logStreamName") or (_attempt(job).get("container") or {}).get("logStreamName")
    about = container.get("logConfiguration") or {}
    if not stream or about.get("logDriver", "awslogs") != "awslogs":
        return None
    group = (about.get("options") or {}).get("awslogs-group", _DEFAULT_LOG_GROUP)
    return {"logGroupName": group, "logStreamName": stream}


class Submitted:
    """The handle of a job, and what has been seen of it. The adapter's loop only.

    Attributes:
        job_id: AWS's; that of an element of an array job ends in a colon and its index.
        name: the job's.
        state: how it ended, once everything that can be known about that is.
        looks: how often it has been looked at since it ended.
    """

    __slots__ = ("_complained", "_missed", "_runnable_since", "job_id", "looks", "name", "state")

    def __init__(self, job_id: str, name: str) -> None:
        self.job_id = job_id
        self.name = name
        self.state: JobState | None = None
        self.looks = 0
        self._missed = False
        self._complained = False
        self._runnable_since: float | None = None

    def __repr__(self) -> str:
        return f"<AWS Batch job {self.name} ({self.job_id})>"

    def judge(self, job: Mapping[str, Any] | None, *, runnable_timeout: float | None) -> JobState | None:
        """Return the job's state, or None where there is no news.

        Args:
            job: what DescribeJobs says; None where it does not know the job, which counts if it happens twice.
            runnable_timeout: seconds that it may wait in RUNNABLE, or None.
        """
        if job is None:
            missed, self._missed = self._missed, True
            return _GONE if missed else None
        self._missed = False
        if job.get("status") == "RUNNABLE":
            return self._waiting(job, runnable_timeout)
        self._runnable_since = None
        return state_of(job)

    def _waiting(self, job: Mapping[str, Any], limit: float | None) -> JobState:
        # DescribeJobs does not say since when.
        if self._runnable_since is None:
            self._runnable_since = time.monotonic()
        diagnosis = str(job.get("statusReason") or "").rstrip(".")
        if diagnosis.startswith(("MISCONFIGURATION:", "CAPACITY:")) and not self._complained:
            self._complained = True
            logger.warning("AWS Batch job %s waits in RUNNABLE: %s", self.name, diagnosis)
        waited = time.monotonic() - self._runnable_since
        if limit is None or waited < limit:
            return JobState("queued", reason=f"RUNNABLE: {diagnosis}" if diagnosis else "RUNNABLE")
        return JobState(
            "failed",
            reason=f"it found no host in {waited:.0f} s in RUNNABLE; {diagnosis or 'AWS Batch gives no reason'}. "
            "Compare what the job asks for with the compute environments of its queue, or raise 'runnable_timeout'",
        )
