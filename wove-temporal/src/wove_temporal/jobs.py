"""What Temporal is asked to execute for one run: its id, its argument, its options."""

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import timedelta
from typing import Any, Protocol

from temporalio.common import Priority, RetryPolicy
from temporalio.exceptions import (
    ActivityError,
    ApplicationError,
    CancelledError,
    ChildWorkflowError,
    TerminatedError,
    TimeoutError,
    TimeoutType,
)

from wove.integrations.base import JobState
from wove.integrations.jobs import job_id_of, seconds_left
from wove.serialization import describe
from wove_temporal.settings import DEFAULT_HEARTBEAT, DEFAULT_START_TO_CLOSE, Settings

# The column of MySQL's schema has 255 characters: https://github.com/temporalio/temporal/tree/main/schema/mysql
_LONGEST_ID = 200
# How long an event may take that was sent before its job has ended.
_GRACE_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class NewJob:
    """An activity or a workflow to be started.

    Attributes:
        id: of the activity or workflow.
        run_id: the run that it carries.
        payload: the argument.
        seconds: how long anybody will want it, or None.
        keyed: whether another run may have the same id.
    """

    id: str
    run_id: str
    payload: Mapping[str, Any]
    seconds: int | None
    keyed: bool


class Submitted:
    """The handle of a submission. Its adapter's loop only.

    Attributes:
        job: what was started.
        handle: the SDK's handle of it; None until Temporal has accepted it, which its worker's events may precede.
        given_up: whether it has been told to stop.
        heard: whether a worker has reported anything about its run.
        over: whether that was its final event.
    """

    __slots__ = ("given_up", "handle", "heard", "job", "over")

    def __init__(self, job: NewJob) -> None:
        self.job = job
        self.handle: Any = None
        self.given_up = False
        self.heard = False
        self.over = False

    def __repr__(self) -> str:
        return f"<Temporal job {self.job.id}>"


@dataclass(frozen=True, slots=True)
class End:
    """How a job has ended.

    Attributes:
        state: for the weave.
        silent: whether it is over because no worker has given a sign of life. It may not even have reached one.
    """

    state: JobState
    silent: bool = False


class TakenError(Exception):
    """The id of a job belongs to another one. Never leaves the adapter.

    Attributes:
        handle: the SDK's, of the other job.
    """

    def __init__(self, handle: Any) -> None:
        super().__init__(handle)
        self.handle = handle


class Jobs(Protocol):
    """How one kind of execution is started, stopped and waited for. Every method may raise ``RPCError``."""

    async def start(self, job: NewJob) -> Any:
        """Start a job and return the SDK's handle. Starting the same run again returns the handle of the first start.

        Raises:
            TakenError: another job has its id.
        """

    async def start_again(self, job: NewJob, handle: Any) -> Any:
        """Start a job whose earlier start has ended in silence, and return the SDK's handle."""

    async def stop(self, handle: Any) -> None:
        """End a job that is queued, and ask one that runs to stop."""

    async def end(self, handle: Any) -> End:
        """Return how a job has ended, as soon as it has."""


def new_job(payload: Mapping[str, Any], frame: Mapping[str, Any], *, prefix: str) -> NewJob:
    """Return the job of a ``run_task`` frame."""
    run_id = str(frame["run_id"])
    key = job_id_of(frame)
    return NewJob(
        id=legal_id(prefix + key),
        run_id=run_id,
        payload=payload,
        seconds=seconds_left(payload, frame),
        keyed=key != run_id,
    )


def legal_id(name: str) -> str:
    """Return a name as an id that every server takes."""
    if len(name) <= _LONGEST_ID and name.isprintable():
        return name
    return f"wove-key-{hashlib.sha256(name.encode(errors='surrogatepass')).hexdigest()[:40]}"


def activity_timeouts(settings: Settings, seconds: int | None) -> dict[str, timedelta]:
    """Return the timeouts of a job's activity: those that are configured, and what follows from the task's own."""
    timeouts = {"heartbeat_timeout": DEFAULT_HEARTBEAT, **settings.timeouts}
    if seconds is not None:
        left = timedelta(seconds=seconds)
        timeouts["schedule_to_close_timeout"] = min(left, timeouts.get("schedule_to_close_timeout", left))
    if not {"schedule_to_close_timeout", "start_to_close_timeout"} & timeouts.keys():
        timeouts["start_to_close_timeout"] = DEFAULT_START_TO_CLOSE
    return timeouts


def retry_policy(given: Any) -> RetryPolicy:
    """Return the ``retry_policy`` of a configuration."""
    if isinstance(given, int):
        return RetryPolicy(maximum_attempts=given)
    return RetryPolicy(**given) if isinstance(given, Mapping) else given


def retry_fields(given: Any) -> dict[str, Any]:
    """Return the ``retry_policy`` of a configuration as JSON, durations in seconds."""
    fields = asdict(retry_policy(given))
    return {
        key: value.total_seconds() if isinstance(value, timedelta) else value
        for key, value in fields.items()
        if value is not None
    }


def priority(given: Any) -> Priority:
    """Return the ``priority`` of a configuration."""
    if given is None:
        return Priority.default
    return Priority(**given) if isinstance(given, Mapping) else given


def end_by(cause: BaseException | None) -> End:
    """Return the end of a job that an error has ended."""
    while isinstance(cause, ActivityError | ChildWorkflowError) and cause.cause is not None:
        cause = cause.cause
    match cause:
        case TimeoutError():
            kind = cause.type.name.lower() if cause.type is not None else "unknown"
            return failed(f"timed out: {_TIMEOUTS.get(kind, kind)}", silent=cause.type is TimeoutType.HEARTBEAT)
        case CancelledError():
            return cancelled("it was cancelled")
        case TerminatedError():
            return cancelled(f"it was terminated: {cause.message}")
        case ApplicationError():
            return failed(f"{cause.type}: {cause.message}" if cause.type else cause.message)
    return failed("an unknown error" if cause is None else describe(cause))


def failed(reason: str, *, silent: bool = False) -> End:
    """Return the end of a job that has failed. What its worker had to say, it has said before."""
    return End(JobState("failed", reason=reason, grace=_GRACE_SECONDS), silent)


def cancelled(reason: str) -> End:
    """Return the end of a job that somebody has stopped."""
    return End(JobState("cancelled", reason=reason, grace=_GRACE_SECONDS))


_TIMEOUTS = {
    "heartbeat": "its worker has not been heard of for the heartbeat_timeout; it is dead or out of reach",
    "schedule_to_start": "no worker has taken it within the schedule_to_start_timeout",
    "schedule_to_close": "it was not done within the schedule_to_close_timeout",
    "start_to_close": "it was not done within the start_to_close_timeout",
}
