"""The life of runs as pure state: any stories at all, made up by a state machine."""

from collections import Counter
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, multiple, rule

from wove.environment.inflight import Cancel, Forget, InFlight, Instructions, Resolve, Submit
from wove.environment.runs import Outcome, RunPolicy
from wove.errors import DeliveryError
from wove.integrations.base import JobState

POLICIES = st.builds(
    RunPolicy,
    timeout=st.none() | st.sampled_from([1.0, 5.0, 20.0]),
    heartbeat=st.none() | st.sampled_from([0.5, 3.0]),
    ack=st.none() | st.just(2.0),
    orphan=st.sampled_from(["fail", "cancel", "requeue", "detach"]),
    grace=st.sampled_from([0.5, 5.0]),
)
STATES = st.builds(JobState, st.sampled_from(["queued", "running", "finished", "failed", "cancelled", "gone"]))


class Deliveries(RuleBasedStateMachine):
    """Any order of stimuli, with a punctual clock: every ticket ends exactly once, and nothing happens afterwards."""

    runs = Bundle("runs")

    def __init__(self) -> None:
        super().__init__()
        self.names = 0
        self.now = 0.0
        self.inflight = InFlight(lambda ticket: self.fresh(f"{ticket}-again-"))
        self.policies: dict[str, RunPolicy] = {}
        self.opened_at: dict[str, float] = {}
        self.owner: dict[str, str] = {}
        self.submitted: Counter[str] = Counter()
        self.cancelled: Counter[str] = Counter()
        self.forgotten: Counter[str] = Counter()
        self.outcomes: dict[str, Outcome] = {}
        self.resolved_at: dict[str, float] = {}

    def fresh(self, prefix: str) -> str:
        self.names += 1
        return f"{prefix}{self.names}"

    def obey(self, instructions: Instructions) -> list[str]:
        """Carry out instructions as a driver would, and return the runs that were submitted."""
        submitted = []
        for instruction in instructions:
            match instruction:
                case Submit(ticket, run_id, replaces):
                    assert ticket not in self.outcomes
                    assert replaces is None or (self.cancelled[replaces] and self.forgotten[replaces])
                    self.owner[run_id] = ticket
                    self.submitted[run_id] += 1
                    submitted.append(run_id)
                case Cancel(run_id):
                    assert run_id in self.owner
                    self.cancelled[run_id] += 1
                case Forget(run_id, detached):
                    assert run_id not in self.inflight
                    assert not detached or self.policies[self.owner[run_id]].orphan == "detach"
                    self.forgotten[run_id] += 1
                case Resolve(ticket, outcome):
                    assert ticket not in self.outcomes, "resolved twice"
                    self.outcomes[ticket] = outcome
                    self.resolved_at[ticket] = self.now
        return submitted

    def ended(self, run_id: str) -> bool:
        return run_id not in self.inflight

    def stimulate(self, run_id: str, instructions: Instructions, *, ended: bool) -> list[str]:
        assert not (ended and instructions), "an ended run caused something"
        return self.obey(instructions)

    @rule(target=runs, policy=POLICIES)
    def open(self, policy: RunPolicy) -> Any:
        ticket = self.fresh("run-")
        self.policies[ticket] = policy
        self.opened_at[ticket] = self.now
        return multiple(*self.obey(self.inflight.open(ticket, policy, label=f"Task {ticket}", now=self.now)))

    @rule(run_id=runs)
    def is_taken(self, run_id: str) -> None:
        news = self.inflight.taken(run_id)
        assert not (news and self.ended(run_id))
        assert not self.inflight.taken(run_id)

    @rule(run_id=runs, lease=st.none() | st.just(3.0))
    def lives(self, run_id: str, lease: float | None) -> None:
        ended = self.ended(run_id)
        self.stimulate(run_id, self.inflight.alive(run_id, now=self.now, lease=lease), ended=ended)

    @rule(run_id=runs, value=st.integers())
    def ends(self, run_id: str, value: int) -> None:
        ended = self.ended(run_id)
        known = self.owner[run_id] in self.outcomes
        self.stimulate(run_id, self.inflight.finished(run_id, Outcome((run_id, value))), ended=ended)
        if not ended:
            assert not known
            outcome = self.outcomes[self.owner[run_id]]
            # A value comes from the ticket's current run, or the ticket had been given up before.
            assert outcome.value == (run_id, value) or outcome.error is not None

    @rule(run_id=consumes(runs))
    def ends_for_good(self, run_id: str) -> None:
        ended = self.ended(run_id)
        self.stimulate(run_id, self.inflight.finished(run_id, Outcome(run_id)), ended=ended)

    @rule(run_id=runs)
    def is_given_up(self, run_id: str) -> None:
        ticket = self.owner[run_id]
        known = ticket in self.outcomes
        self.stimulate(run_id, self.inflight.abandon(ticket, InterruptedError(), now=self.now), ended=known)

    @rule(run_id=runs)
    def breaks_the_protocol(self, run_id: str) -> None:
        ended = self.ended(run_id)
        self.stimulate(run_id, self.inflight.broke_protocol(run_id, InterruptedError(), now=self.now), ended=ended)

    @rule(run_id=runs, state=STATES)
    def is_reported(self, run_id: str, state: JobState) -> None:
        ended = self.ended(run_id)
        self.stimulate(run_id, self.inflight.reported(run_id, state, now=self.now), ended=ended)

    @rule()
    def executor_dies(self) -> None:
        self.obey(self.inflight.executor_lost(ConnectionResetError()))
        assert len(self.inflight) == 0

    @rule(target=runs, seconds=st.sampled_from([0.0, 0.1, 0.5, 1.0, 4.0, 30.0]))
    def time_passes(self, seconds: float) -> Any:
        end = self.now + seconds
        requeued = []
        while (due := self.inflight.next_due()) is not None and due <= end:
            assert due >= self.now - 1e-9, "a timer lies in the past"
            self.now = max(self.now, due)
            requeued += self.obey(self.inflight.tick(now=self.now))
        self.now = end
        return multiple(*requeued)

    @invariant()
    def a_ticket_is_either_open_or_resolved(self) -> None:
        still_open = set(self.inflight.tickets())
        assert still_open == self.policies.keys() - self.outcomes.keys()

    @invariant()
    def no_ticket_outlives_its_deadline(self) -> None:
        for ticket, policy in self.policies.items():
            if policy.timeout is not None:
                limit = self.opened_at[ticket] + policy.timeout + (policy.ack or 0.0)
                assert self.resolved_at.get(ticket, self.now) <= limit + 1e-9

    @invariant()
    def runs_are_submitted_cancelled_and_forgotten_once(self) -> None:
        for counter in (self.submitted, self.cancelled, self.forgotten):
            assert all(count == 1 for count in counter.values())
        for run_id, ticket in self.owner.items():
            if self.policies[ticket].orphan in ("fail", "detach"):
                assert not self.cancelled[run_id]

    @invariant()
    def a_ticket_is_requeued_once_at_most(self) -> None:
        for ticket, count in Counter(self.owner.values()).items():
            assert count <= (2 if self.policies[ticket].orphan == "requeue" else 1)

    @invariant()
    def every_run_that_ended_is_forgotten(self) -> None:
        for run_id in self.owner:
            assert self.forgotten[run_id] == self.ended(run_id)

    @invariant()
    def only_our_own_losses_and_given_errors_occur(self) -> None:
        for outcome in self.outcomes.values():
            assert outcome.error is None or isinstance(
                outcome.error, DeliveryError | InterruptedError | ConnectionResetError
            )

    def teardown(self) -> None:
        # Whatever state was reached: once everything with a limit has run out, no timer is left for an ended run.
        self.time_passes(1000.0)
        for ticket in self.inflight.tickets():
            self.obey(self.inflight.abandon(ticket, InterruptedError(), now=self.now))
        self.time_passes(10.0)
        assert len(self.inflight) == 0
        assert self.inflight.next_due() is None


TestDeliveries = Deliveries.TestCase
TestDeliveries.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
