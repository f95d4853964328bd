"""The life of everything that has left the process, as pure state: stimuli in, instructions out; no I/O and no clock.

A *ticket* is one request of a weave. It starts with one run and may, after a loss, go on with another one
(``delivery_orphan_policy="requeue"``); it is resolved exactly once. Whoever drives an `InFlight` passes the time with
the stimuli, carries out the instructions in order, and calls `InFlight.tick` when `InFlight.next_due` has come.
"""

from collections.abc import Callable, Iterator
from heapq import heappop, heappush
from typing import NamedTuple

from wove.environment.runs import Outcome, Run, RunPolicy
from wove.integrations.base import JobState

# A tick that comes later than this says that our own loop stood still, and that unread events may be waiting.
STALL_SECONDS = 1.0
CATCH_UP_SECONDS = 2.0


class Submit(NamedTuple):
    """Hand the ticket's task to the executor under this run id; after `replaces`, if any, has been cancelled."""

    ticket: str
    run_id: str
    replaces: str | None = None


class Cancel(NamedTuple):
    """Ask the executor to stop the run."""

    run_id: str


class Forget(NamedTuple):
    """Nothing of the run is expected any more; once any cancel is done, the executor is told so, unless `detached`."""

    run_id: str
    detached: bool = False


class Resolve(NamedTuple):
    """Give the outcome to whoever waits for the ticket. Comes exactly once for each ticket."""

    ticket: str
    outcome: Outcome


Instructions = list[Submit | Cancel | Forget | Resolve]


class InFlight:
    """The tickets of one executor session and their runs.

    Args:
        new_run_id: makes the id of the run that replaces a lost one, given the ticket.
    """

    def __init__(self, new_run_id: Callable[[str], str]) -> None:
        self._new_run_id = new_run_id
        self._runs: dict[str, Run] = {}
        self._tickets: dict[str, Run] = {}
        # Entries may be stale: a run's `armed` says which one counts.
        self._dues: list[tuple[float, str]] = []

    def __len__(self) -> int:
        return len(self._tickets)

    def __contains__(self, run_id: object) -> bool:
        return run_id in self._runs

    def tickets(self) -> list[str]:
        """Return the tickets that are not resolved yet."""
        return list(self._tickets)

    def submitted_runs(self) -> list[str]:
        """Return the runs that the executor has taken."""
        return [run.run_id for run in self._runs.values() if run.phase != "submitting"]

    def awaits_confirmation(self) -> bool:
        """Tell whether the cancel of any run still waits to be confirmed."""
        return any(run.sealed is not None for run in self._runs.values())

    def ticket_of(self, run_id: str) -> str | None:
        """Return the ticket to which a current run belongs, or None for an unknown or replaced run."""
        run = self._runs.get(run_id)
        return None if run is None else run.ticket

    def wanted(self, run_id: str) -> bool:
        """Tell whether a run is in flight and is not being cancelled."""
        run = self._runs.get(run_id)
        return run is not None and run.sealed is None

    # Stimuli of the weave.

    def open(self, ticket: str, policy: RunPolicy, *, label: str, now: float) -> Instructions:
        """Take a new ticket.

        Args:
            ticket: a run id that has never been used; the first run bears it.
            policy: how it is delivered.
            label: names the task and its environment in error messages.
            now: seconds, on any clock that only goes forward; the same one for every stimulus.
        """
        run = Run(ticket, policy, label=label, now=now)
        self._runs[ticket] = self._tickets[ticket] = run
        self._arm(run)
        return [Submit(ticket, ticket)]

    def abandon(self, ticket: str, error: BaseException, *, now: float) -> Instructions:
        """Nobody waits for the ticket any more; it ends with `error`."""
        run = self._tickets.get(ticket)
        return [] if run is None or run.sealed is not None else self._give_up(run, error, now)

    # Stimuli of the executor.

    def taken(self, run_id: str) -> bool:
        """The executor has taken the run. Return whether that is news."""
        run = self._runs.get(run_id)
        if run is None or run.phase != "submitting":
            return False
        run.phase = "submitted"
        return True

    def alive(self, run_id: str, *, now: float, lease: float | None = None) -> Instructions:
        """The run has started, or given another sign of life.

        Args:
            run_id: the run.
            now: seconds.
            lease: seconds within which its worker promises the next sign; None where it promises nothing.
        """
        run = self._runs.get(run_id)
        if run is None:
            return []
        run.phase = "running"
        run.seen = now
        run.lease = lease or run.lease
        # It lives, whatever the backend said before.
        run.report = run.report_due = None
        self._arm(run)
        return []

    def finished(self, run_id: str, outcome: Outcome) -> Instructions:
        """The run is over: a final event has come, or the executor could not even take it. The first outcome wins."""
        run = self._runs.get(run_id)
        return [] if run is None else self._end(run, outcome)

    def broke_protocol(self, run_id: str, error: BaseException, *, now: float) -> Instructions:
        """Something that makes no sense has come for the run; it ends with `error`."""
        run = self._runs.get(run_id)
        return [] if run is None or run.sealed is not None else self._give_up(run, error, now)

    def reported(self, run_id: str, state: JobState, *, now: float) -> Instructions:
        """The backend has said how the run's job is doing."""
        run = self._runs.get(run_id)
        if run is None:
            return []
        if not state.over:
            run.report = run.report_due = None
            run.waits_for = state.reason
            run.executing = state.phase == "running"
            return []
        if run.sealed is not None:
            return self._end(run, run.sealed)
        if run.report is None:
            run.report_due = now + run.grace_of(state)
        run.report = state
        self._arm(run)
        return []

    def executor_lost(self, error: BaseException) -> Instructions:
        """The executor is gone, and every run with it."""
        return [
            instruction for run in list(self._runs.values()) for instruction in self._end(run, Outcome(None, error))
        ]

    # Time.

    def next_due(self) -> float | None:
        """Return when `tick` must be called next, or None while nothing is due."""
        while self._dues:
            due, run_id = self._dues[0]
            run = self._runs.get(run_id)
            if run is not None and run.armed == due:
                return due
            heappop(self._dues)
        return None

    def tick(self, *, now: float) -> Instructions:
        """Act on everything that has become due."""
        instructions: Instructions = []
        for run in list(self._pop_due(now)):
            if run.due is not None and run.due <= now:
                instructions += self._expire(run, now)
            else:
                # Signs of life have moved it.
                self._arm(run)
        return instructions

    def _pop_due(self, now: float) -> Iterator[Run]:
        while self._dues and self._dues[0][0] <= now:
            due, run_id = heappop(self._dues)
            run = self._runs.get(run_id)
            if run is not None and run.armed == due:
                run.armed = None
                yield run

    def _arm(self, run: Run) -> None:
        due = run.due
        if due is not None and (run.armed is None or due < run.armed):
            run.armed = due
            heappush(self._dues, (due, run.run_id))

    def _expire(self, run: Run, now: float) -> Instructions:
        if run.sealed is not None:
            run.unconfirmed()
            return self._end(run, run.sealed)
        if run.deadline is not None and run.deadline <= now:
            return self._give_up(run, run.timed_out(), now)
        if self._catch_up(run, now):
            return []
        if run.report is not None and run.report_due is not None and run.report_due <= now:
            return self._lose(run, run.orphaned(run.report), now)
        return self._lose(run, run.fell_silent(), now)

    def _catch_up(self, run: Run, now: float) -> bool:
        """Put a loss off if our own loop stood still: the sign of life or the final event may wait unread."""
        overdue = min(due for due in (run.silent_due, run.report_due) if due is not None)
        if now - overdue <= STALL_SECONDS:
            return False
        if run.report_due is not None:
            run.report_due = max(run.report_due, now + CATCH_UP_SECONDS)
        if run.silent_due is not None and run.silence_limit is not None:
            run.seen = max(run.silent_due, now + CATCH_UP_SECONDS) - run.silence_limit
        self._arm(run)
        return True

    # How a run ends.

    def _lose(self, run: Run, error: BaseException, now: float) -> Instructions:
        if run.policy.orphan == "requeue" and run.requeues:
            return self._requeue(run)
        return self._give_up(run, error, now)

    def _requeue(self, run: Run) -> Instructions:
        lost = run.run_id
        del self._runs[lost]
        run.requeues -= 1
        run.begin(self._new_run_id(run.ticket))
        self._runs[run.run_id] = run
        self._arm(run)
        return [Cancel(lost), Forget(lost), Submit(run.ticket, run.run_id, replaces=lost)]

    def _give_up(self, run: Run, error: BaseException, now: float) -> Instructions:
        outcome = Outcome(None, error)
        if run.policy.orphan == "detach":
            return self._end(run, outcome, detached=True)
        if run.policy.orphan == "fail":
            return self._end(run, outcome)
        if run.policy.ack is None or run.report is not None:
            # A job that the backend calls over has nothing left to confirm.
            return [Cancel(run.run_id), *self._end(run, outcome)]
        run.sealed = outcome
        run.ack_due = now + run.policy.ack
        # Whatever else was due has lost its meaning.
        run.armed = None
        self._arm(run)
        return [Cancel(run.run_id)]

    def _end(self, run: Run, outcome: Outcome, *, detached: bool = False) -> Instructions:
        del self._runs[run.run_id], self._tickets[run.ticket]
        return [Resolve(run.ticket, run.sealed or outcome), Forget(run.run_id, detached)]
