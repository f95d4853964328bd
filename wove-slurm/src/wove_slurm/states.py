"""What squeue and sacct print about jobs, and what it means. No I/O."""

import os
import re
import signal
from collections.abc import Mapping
from dataclasses import dataclass

from wove.integrations.base import JobPhase, JobState

# The text output, because the JSON of one release differs from that of the next.
SQUEUE_FORMAT = "JobArrayID:|,State:|,Reason:|,exit_code:|,NodeList:|,Name:|,JobID:|"
SACCT_FORMAT = "JobID,State,ExitCode,NodeList"

# https://slurm.schedmd.com/job_state_codes.html
_PHASES: Mapping[str, JobPhase] = {
    "COMPLETED": "finished",
    "CANCELLED": "cancelled",
    "BOOT_FAIL": "failed",
    "DEADLINE": "failed",
    "FAILED": "failed",
    "LAUNCH_FAILED": "failed",
    "NODE_FAIL": "failed",
    "OUT_OF_MEMORY": "failed",
    "PREEMPTED": "failed",
    "RECONFIG_FAIL": "failed",
    "REVOKED": "failed",
    "TIMEOUT": "failed",
    "PENDING": "queued",
    "CONFIGURING": "queued",
    "REQUEUED": "queued",
    "REQUEUE_FED": "queued",
    "REQUEUE_HOLD": "queued",
    "RESV_DEL_HOLD": "queued",
    "SPECIAL_EXIT": "queued",
}
# What a job that waits for it can never get, as long as neither it nor the cluster is changed. Priority, busy nodes and
# limits on how much runs at a time are not among them: https://slurm.schedmd.com/job_reason_codes.html
_HOPELESS = re.compile(
    r"BadConstraints|DependencyNeverSatisfied|PartitionConfig|PartitionNodeLimit|PartitionTimeLimit|PartitionDown|"
    r"PartitionInactive|Invalid\w+|\w*NotAllowed|NodeDown|NoReservation|ReservationDeleted|QOSMin\w+|"
    r"(Assoc|QOS|Partition)Max\w+PerJob\w*|\w*MaxWallDurationPerJob\w*|(Assoc|QOS)Grp\w+Minutes\w*",
    re.IGNORECASE,
)
_HINTS: Mapping[str, str] = {
    "OUT_OF_MEMORY": "ask for more with 'mem'",
    "TIMEOUT": "ask for more with 'time_limit'",
}
# For an event that has been received and not been read yet.
_SURE_SECONDS = 1.0
_SAYS_NOTHING = ("", "None", "NonZeroExitCode", "RaisedSignal", "(null)", "n/a", "N/A")


@dataclass(frozen=True, slots=True)
class Row:
    """One job, or one element of an array, as Slurm shows it.

    Attributes:
        key: ``17`` or ``17_3``.
        state: Slurm's word.
        reason: why it waits, or why it ended, in Slurm's word.
        exit_code: of its process; negative: the number of the signal that ended it. None where Slurm does not say.
        nodes: where it runs or ran.
        name: its name.
        number: its own id, also where it is an element of an array.
    """

    key: str
    state: str
    reason: str = ""
    exit_code: int | None = None
    nodes: str = ""
    name: str = ""
    number: str = ""

    @property
    def phase(self) -> JobPhase:
        """What the state means; any that is not known counts as running."""
        return _PHASES.get(self.state, "running")

    @property
    def is_over(self) -> bool:
        """Whether the job has ended for good."""
        return self.phase not in ("queued", "running")

    @property
    def waits_for(self) -> str | None:
        """Why it has not begun, in Slurm's word; None where it has, or Slurm does not say."""
        return self.reason if self.phase == "queued" and self.reason not in _SAYS_NOTHING else None

    @property
    def is_hopeless(self) -> bool:
        """Whether it waits for what it can never get."""
        return self.phase == "queued" and _HOPELESS.fullmatch(self.reason) is not None


def read_squeue(text: str) -> dict[str, Row]:
    """Return the rows of `SQUEUE_FORMAT` by their keys."""
    rows = {}
    for line in text.splitlines():
        fields = [each.strip() for each in line.split("|")]
        if len(fields) < 7:
            continue  # The heading of a cluster, where there are several.
        key, state, reason, status, nodes, name, number = fields[:7]
        rows[key] = Row(key, state, reason, _exit_code(status), nodes, name, number)
    return rows


def read_sacct(text: str) -> dict[str, Row]:
    """Return the rows of `SACCT_FORMAT` by their keys."""
    rows = {}
    for line in text.splitlines():
        fields = line.split("|")
        if len(fields) != 4 or not fields[1]:
            continue
        key, state, code, nodes = fields
        status, _, number = code.partition(":")
        exit_code = -int(number) if number.isdigit() and int(number) else int(status) if status.isdigit() else None
        # "CANCELLED by 1000"
        rows[key] = Row(key, state.split()[0].rstrip("+"), "", exit_code, nodes)
    return rows


def state_of(row: Row, *, what: str, tail: str = "") -> JobState:
    """Return what a row means for the run of its job.

    Args:
        row: of a job that is over, or waits for ever.
        what: names the job.
        tail: the last lines of its log.
    """
    phase, exit_code = (row.phase, row.exit_code) if row.is_over else ("failed", None)
    details = [row.reason] if row.reason not in _SAYS_NOTHING and row.reason != row.state else []
    if exit_code is not None and exit_code < 0:
        details.append(f"ended by {_signal_name(-exit_code)}")
    if row.state in _HINTS:
        details.append(_HINTS[row.state])
    more = f" ({', '.join(details)})" if details else ""
    node = f" on {row.nodes}" if row.nodes not in _SAYS_NOTHING else ""
    log = f"; its log ends with: {tail}" if tail else ""
    # Slurm says so after the process has ended, unless it cannot reach its node.
    grace = _SURE_SECONDS if row.is_over and row.state != "NODE_FAIL" else None
    return JobState(phase, exit_code, f"{what}{node} is {row.state}{more}{log}", grace)


def _exit_code(status: str) -> int | None:
    # As wait() gives it, not as the documentation says.
    return os.waitstatus_to_exitcode(int(status)) if status.isdigit() and int(status) < 2**16 else None


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
