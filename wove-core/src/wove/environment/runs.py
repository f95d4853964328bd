"""What is known about one run that has left the process: its policy, its progress, and the words for its loss."""

from dataclasses import dataclass
from typing import Literal, NamedTuple, TypeVar

from wove.errors import DeliveryError, DeliveryOrphanedError, DeliveryTimeoutError
from wove.integrations.base import JobState
from wove.options import OrphanPolicy

E = TypeVar("E", bound=DeliveryError)

LEASE_SECONDS = 30.0
# A worker beats at a third of its lease: four beats in a row must be missing before it counts as lost.
LOST_AFTER_LEASES = 4 / 3
DEAD_JOB_GRACE_SECONDS = 5.0
REQUEUES = 1

Phase = Literal["submitting", "submitted", "running"]

_PROGRESS: dict[Phase, str] = {
    "submitting": "the backend has not accepted it yet",
    "submitted": "it was submitted, but no worker has started it",
    "running": "it has started, but not finished",
}
_UNHEARD = (
    "the backend says that its job runs, but nothing was heard of the worker in it. It may still be starting; "
    "otherwise see to it that callback_url leads from there to this process"
)


@dataclass(frozen=True, slots=True)
class RunPolicy:
    """How one ticket is delivered.

    A run is *given up* when its time is over or its weave does not want it any more, and *lost* when its heartbeats
    stop or its job is dead. Then `orphan` counts. ``cancel``: the executor is asked to stop it. ``fail``: it is not
    asked; a job that is still queued stays where it is, and its events are refused. ``requeue``: a lost run is
    cancelled and replaced, once; one that is given up is cancelled. ``detach``: nobody is asked to stop, and nothing is
    refused.

    Attributes:
        timeout: seconds from submitting to the final event, or None.
        heartbeat: seconds without a sign of life after which a started run is lost; None leaves it to the lease that
            its worker announces, if it announces one.
        ack: seconds to wait for the confirmation of a cancel; None does not wait.
        orphan: what happens to a run that is given up or lost.
        grace: seconds that a final event may still take after the backend has said that the job is over.
    """

    timeout: float | None = None
    heartbeat: float | None = None
    ack: float | None = None
    orphan: OrphanPolicy = "cancel"
    grace: float = DEAD_JOB_GRACE_SECONDS


class Outcome(NamedTuple):
    """What a ticket ends with: a value, or the error in its place."""

    value: object = None
    error: BaseException | None = None


class Run:
    """The current run of one ticket.

    Attributes:
        label: names the task, for error messages.
        deadline: when the whole ticket has failed, or None.
        requeues: how often a lost run may still be replaced.
        sealed: the outcome of a ticket that waits for the confirmation of its cancel.
        seen: the last sign of life; None before the start.
        lease: seconds within which the worker promised its next sign of life, or None.
        report: what the backend said, if it said that the job is over.
        waits_for: what the backend said about a job that is not over, such as why it still waits.
        executing: whether the backend said that the job does not wait any more.
        armed: the due time under which the run is scheduled.
    """

    __slots__ = (
        "ack_due",
        "armed",
        "deadline",
        "executing",
        "label",
        "lease",
        "phase",
        "policy",
        "report",
        "report_due",
        "requeues",
        "run_id",
        "sealed",
        "seen",
        "ticket",
        "waits_for",
    )

    def __init__(self, ticket: str, policy: RunPolicy, *, label: str, now: float) -> None:
        self.ticket = ticket
        self.policy = policy
        self.label = label
        self.deadline = None if policy.timeout is None else now + policy.timeout
        self.requeues = REQUEUES
        self.sealed: Outcome | None = None
        self.ack_due: float | None = None
        self.begin(ticket)

    def begin(self, run_id: str) -> None:
        """Go on as a new run, of which nothing is known yet."""
        self.run_id = run_id
        self.phase: Phase = "submitting"
        self.seen: float | None = None
        self.lease: float | None = None
        self.report: JobState | None = None
        self.report_due: float | None = None
        self.waits_for: str | None = None
        self.executing = False
        self.armed: float | None = None

    @property
    def silence_limit(self) -> float | None:
        """Seconds that a started run may stay silent, or None for any time."""
        if self.policy.heartbeat is not None:
            return self.policy.heartbeat
        return None if self.lease is None else self.lease * LOST_AFTER_LEASES

    @property
    def silent_due(self) -> float | None:
        """When the run counts as lost unless it gives a sign of life."""
        limit = self.silence_limit
        return None if self.seen is None or limit is None else self.seen + limit

    @property
    def due(self) -> float | None:
        """When the run needs attention next."""
        if self.sealed is not None:
            return self.ack_due
        dues = [due for due in (self.deadline, self.silent_due, self.report_due) if due is not None]
        return min(dues, default=None)

    def timed_out(self) -> DeliveryTimeoutError:
        """Return the error for a ticket that has passed its deadline."""
        said = f" The backend says: {self.waits_for}." if self.waits_for and self.phase != "running" else ""
        progress = _PROGRESS[self.phase]
        if self.phase == "submitted" and self.executing:
            progress = _UNHEARD
        return _with_report(
            DeliveryTimeoutError(
                f"{self.label} did not complete within its delivery_timeout of {self.policy.timeout:g} s: "
                f"{progress}.{said}"
            ),
            self.report,
        )

    def fell_silent(self) -> DeliveryTimeoutError:
        """Return the error for a started run whose worker is not heard of any more."""
        if self.policy.heartbeat is not None:
            allowed = f"its delivery_heartbeat_seconds of {self.policy.heartbeat:g} s"
        else:
            allowed = f"{self.silence_limit:g} s, although its worker promised one every {self.lease:g} s"
        return _with_report(
            DeliveryTimeoutError(
                f"{self.label} has started, but gave no sign of life for {allowed}. "
                "Its worker has died or cannot reach this process."
            ),
            self.report,
        )

    def grace_of(self, state: JobState) -> float:
        """Return the seconds that a final event may still take after the backend has said that the job is over."""
        return self.policy.grace if state.grace is None else min(state.grace, self.policy.grace)

    def orphaned(self, state: JobState) -> DeliveryOrphanedError:
        """Return the error for a run whose job is over without a final event."""
        said = "it does not know the job any more" if state.phase == "gone" else f"the job is {state.phase}"
        details = [f"exit code {state.exit_code}"] if state.exit_code is not None else []
        details += [state.reason] if state.reason else []
        more = f" ({': '.join(details)})" if details else ""
        return _with_report(
            DeliveryOrphanedError(
                f"{self.label} is lost: the backend says that {said}{more}, and no final event came within "
                f"{self.grace_of(state):g} s."
            ),
            state,
        )

    def unconfirmed(self) -> None:
        """Note on the sealed error that nothing has confirmed the cancel."""
        if self.sealed is not None and self.sealed.error is not None:
            self.sealed.error.add_note(
                f"Nothing confirmed within {self.policy.ack:g} s that the run was cancelled: it may still go on."
            )


def _with_report(error: E, state: JobState | None) -> E:
    if state is not None:
        error.state, error.exit_code, error.reason = state.phase, state.exit_code, state.reason
    return error
