"""What happened in a simulated world, and whether it may happen."""

import asyncio
from dataclasses import dataclass, field
from typing import Any

from wove.backend.types import FINAL_EVENTS
from wove.plugins import hookimpl

# Beyond a deadline: confirming a cancel, finding out about dead jobs, and the pauses in between.
_DEADLINE_SLACK = 6.0


@dataclass(slots=True)
class Ticket:
    """One task of one weave.

    Attributes:
        number: unique in its world.
        began, ended: seconds; `ended` is None while it is open.
        limit: seconds within which it has to end, or None.
        runs: the ids of its runs, in order.
        value: what the weave got.
        error: or what it got instead.
        outcome: what the task itself does at its end: ``"return"`` or ``"raise"``.
    """

    number: int
    began: float
    limit: float | None
    outcome: str
    ended: float | None = None
    runs: list[str] = field(default_factory=list)
    value: Any = None
    error: BaseException | None = None


class History:
    """A record of one world; also the plugin that hears what the owner hears."""

    def __init__(self) -> None:
        self.tickets: dict[int, Ticket] = {}
        self.executions: dict[str, int] = {}
        self.finished_executions: set[str] = set()
        self.unpickled_forgeries = 0
        self.forgeries: list[int] = []
        self._events: dict[str, list[str]] = {}
        self._answers: list[tuple[str, str, int, float]] = []

    # --- recording ---

    @hookimpl
    def wove_task_submitted(self, task: str, run_id: str) -> None:
        """Note which run belongs to which ticket."""
        self.tickets[_number(task)].runs.append(run_id)

    @hookimpl
    def wove_task_finished(self, task: str) -> None:
        """Note when a ticket ended."""
        self._ended(task)

    @hookimpl
    def wove_task_failed(self, task: str) -> None:
        """Note when a ticket ended."""
        self._ended(task)

    @hookimpl
    def wove_task_cancelled(self, task: str) -> None:
        """Note when a ticket ended."""
        self._ended(task)

    def _ended(self, task: str) -> None:
        ticket = self.tickets.get(_number(task))
        if ticket is not None:
            ticket.ended = asyncio.get_running_loop().time()

    @hookimpl
    def wove_event_received(self, run_id: str, event_type: str) -> None:
        """Note an event that reached delivery."""
        self._events.setdefault(run_id, []).append(event_type)

    def executed(self, run_id: str) -> None:
        """Note that a worker begins to execute a run."""
        self.executions[run_id] = self.executions.get(run_id, 0) + 1

    def answered(self, frame: dict[str, Any], status: int, now: float) -> None:
        """Note what the receiver answered."""
        self._answers.append((str(frame.get("run_id")), str(frame.get("type")), status, now))

    @property
    def posted(self) -> set[str]:
        """The types of the events that workers have posted."""
        return {kind for _, kind, _, _ in self._answers}

    # --- judging ---

    def violations(self) -> list[str]:
        """Return every promise that was broken, in words."""
        return [
            *self._more_than_one_end(),
            *self._late_ends(),
            *self._foreign_values(),
            *self._unpickled(),
            *self._accepted_after_the_end(),
        ]

    def _more_than_one_end(self) -> list[str]:
        return [
            f"I1: run {run_id} had {kinds}"
            for run_id, kinds in self._events.items()
            if sum(kind in FINAL_EVENTS for kind in kinds) > 1
        ]

    def _late_ends(self) -> list[str]:
        found = []
        for ticket in self.tickets.values():
            if ticket.ended is None:
                found.append(f"I2: ticket {ticket.number} never ended")
            elif ticket.limit is not None and ticket.ended - ticket.began > ticket.limit + _DEADLINE_SLACK:
                found.append(f"I2: ticket {ticket.number} took {ticket.ended - ticket.began:.1f} s of {ticket.limit}")
        return found

    def _foreign_values(self) -> list[str]:
        found = []
        for ticket in self.tickets.values():
            if ticket.value is None:
                continue
            number, run_id = ticket.value
            if number != ticket.number or run_id != ticket.runs[-1]:
                found.append(f"I3: ticket {ticket.number} with the runs {ticket.runs} got {ticket.value}")
            if run_id not in self.executions:
                found.append(f"I3: run {run_id} has a value, but nobody executed it")
            if ticket.outcome != "return":
                found.append(f"I3: ticket {ticket.number} has a value, but its task raises")
        return found

    def _unpickled(self) -> list[str]:
        refused = [status for status in self.forgeries if status not in (400, 401, 404, 410)]
        exploded = ["I4: a forged event was unpickled"] if self.unpickled_forgeries else []
        return exploded + [f"I4: a forged event was answered with {status}" for status in refused]

    def _accepted_after_the_end(self) -> list[str]:
        found = []
        for run_id, kinds in self._events.items():
            finals = [index for index, kind in enumerate(kinds) if kind in FINAL_EVENTS]
            if finals and finals[0] != len(kinds) - 1:
                found.append(f"I6: run {run_id} went on after its end: {kinds}")
        return found


def _number(task: str) -> int:
    return int(task.rpartition("_")[2])
