"""The life of a run as pure state, and its invariants under every order of events that Hypothesis finds."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from wove.backend.runs import WINDOW, Arrival, RunState, SeenSequences, Step, closed, step, with_cancel
from wove.backend.types import EVENT_TYPES, FINAL_EVENTS

FRESH = RunState(lease=30.0)


def arrival(kind: str, *, worker: str | None = "w1", sequence: int = 1, now: float = 0.0, **more: Any) -> Arrival:
    identity = more.pop("identity", f"{worker}.{sequence}" if worker else f"digest of {kind}")
    return Arrival(kind, now, identity, worker, sequence if worker else 0, **more)


def after(state: RunState, *arrivals: Arrival) -> RunState:
    for one in arrivals:
        state = step(state, one).state
    return state


def outcome(taken: Step) -> tuple[int, bool]:
    return taken.status, taken.deliver


@pytest.mark.parametrize("kind", sorted(EVENT_TYPES))
@pytest.mark.parametrize("worker", ["w1", None])
def test_every_event_of_an_open_run_is_accepted(kind: str, worker: str | None) -> None:
    assert outcome(step(FRESH, arrival(kind, worker=worker))) == (200, True)


@pytest.mark.parametrize("first", sorted(FINAL_EVENTS))
@pytest.mark.parametrize("second", sorted(EVENT_TYPES))
def test_after_a_final_event_everything_is_over(first: str, second: str) -> None:
    state = after(FRESH, arrival(first))
    assert outcome(step(state, arrival(second, sequence=2))) == (410, False)


def test_a_repeated_final_event_is_thanked_for_without_effect() -> None:
    state = after(FRESH, arrival("task_result", sequence=4))
    assert step(state, arrival("task_result", sequence=4)) == Step(state, 200, False)


def test_a_repeated_unsigned_final_event_is_thanked_for_without_effect() -> None:
    state = after(FRESH, arrival("task_result", worker=None, identity="same body"))
    assert outcome(step(state, arrival("task_result", worker=None, identity="same body"))) == (200, False)
    assert outcome(step(state, arrival("task_result", worker=None, identity="other body"))) == (410, False)


def test_a_result_that_overtakes_its_start_is_accepted() -> None:
    state = after(FRESH, arrival("task_result", sequence=2))
    assert outcome(step(state, arrival("task_started", sequence=1))) == (410, False)


def test_a_repeated_heartbeat_is_not_a_sign_of_life() -> None:
    state = after(FRESH, arrival("task_started", lease=30.0), arrival("heartbeat", sequence=2, now=10.0))
    assert step(state, arrival("heartbeat", sequence=2, now=35.0)) == Step(state, 200, False)


def test_events_that_overtake_each_other_are_not_taken_for_repetitions() -> None:
    state = after(FRESH, arrival("heartbeat", sequence=5))
    assert outcome(step(state, arrival("log", sequence=3))) == (200, True)
    state = after(state, arrival("log", sequence=3))
    assert outcome(step(state, arrival("log", sequence=3))) == (200, False)


def test_a_result_that_was_overtaken_by_heartbeats_for_hours_still_counts() -> None:
    state = after(FRESH, arrival("heartbeat", sequence=WINDOW * 10))
    assert outcome(step(state, arrival("task_result", sequence=2))) == (200, True)


def test_an_event_behind_the_window_is_taken_for_a_repetition() -> None:
    state = after(FRESH, arrival("heartbeat", sequence=WINDOW + 1))
    assert outcome(step(state, arrival("heartbeat", sequence=1))) == (200, False)
    assert outcome(step(state, arrival("heartbeat", sequence=2))) == (200, True)


def test_the_sequences_of_two_workers_are_told_apart() -> None:
    state = after(FRESH, arrival("log", worker="w1", sequence=7))
    assert outcome(step(state, arrival("log", worker="w2", sequence=7))) == (200, True)


def test_redelivery_forever_takes_bounded_memory() -> None:
    state = after(FRESH, *(arrival("log", worker=f"w{number}") for number in range(1000)))
    assert len(state.seen) <= 32


def test_the_first_signed_event_makes_a_run_signed_only() -> None:
    state = after(FRESH, arrival("task_started", worker=None), arrival("task_started", worker="w1"))
    assert outcome(step(state, arrival("task_result", worker=None))) == (401, False)


def test_a_run_that_must_be_signed_refuses_an_unsigned_event() -> None:
    assert outcome(step(replace(FRESH, signed_only=True), arrival("task_result", worker=None))) == (401, False)


def test_a_second_worker_is_told_that_the_first_one_executes_the_run() -> None:
    state = after(FRESH, arrival("task_started", lease=30.0))
    assert step(state, arrival("task_started", worker="w2", now=29.0, lease=30.0)) == Step(state, 409, False)


def test_a_second_worker_takes_over_when_the_lease_is_up() -> None:
    state = after(FRESH, arrival("task_started", lease=30.0))
    taken = step(state, arrival("task_started", worker="w2", now=31.0, lease=30.0))
    assert outcome(taken) == (200, True)
    assert outcome(step(taken.state, arrival("heartbeat", sequence=2, now=32.0))) == (409, False)


def test_nobody_takes_over_an_exclusive_run() -> None:
    state = after(replace(FRESH, exclusive=True), arrival("task_started", lease=30.0))
    assert outcome(step(state, arrival("task_started", worker="w2", now=31.0, lease=30.0))) == (409, False)
    assert outcome(step(state, arrival("heartbeat", sequence=2, now=32.0))) == (200, True)


def test_heartbeats_extend_the_lease_by_what_was_announced() -> None:
    state = after(FRESH, arrival("task_started", lease=6.0), arrival("heartbeat", sequence=2, now=5.0))
    assert outcome(step(state, arrival("task_started", worker="w2", now=10.0, lease=6.0))) == (409, False)
    assert outcome(step(state, arrival("task_started", worker="w2", now=11.5, lease=6.0))) == (200, True)


def test_a_log_event_of_the_holder_is_a_sign_of_life_and_anothers_is_not() -> None:
    state = after(FRESH, arrival("task_started", lease=6.0), arrival("log", worker="w2", now=4.0))
    assert outcome(step(state, arrival("task_started", worker="w2", sequence=2, now=7.0))) == (200, True)
    state = after(FRESH, arrival("task_started", lease=6.0), arrival("log", sequence=2, now=4.0))
    assert outcome(step(state, arrival("task_started", worker="w2", now=7.0))) == (409, False)


def test_a_heartbeat_after_a_lost_start_holds_the_run() -> None:
    state = after(FRESH, arrival("heartbeat", sequence=2))
    assert outcome(step(state, arrival("task_started", worker="w2", now=10.0, lease=30.0))) == (409, False)


def test_a_worker_that_announces_nothing_holds_nothing() -> None:
    state = after(FRESH, arrival("task_started", worker=None))
    assert outcome(step(state, arrival("task_started", worker="w1", lease=30.0))) == (200, True)


def test_the_result_of_a_worker_that_lost_its_lease_counts_if_it_is_first() -> None:
    state = after(FRESH, arrival("task_started", lease=1.0), arrival("task_started", worker="w2", now=2.0, lease=30.0))
    assert outcome(step(state, arrival("task_result", sequence=2, now=3.0))) == (200, True)


def test_a_closed_run_accepts_nothing_and_closing_twice_changes_nothing() -> None:
    state = closed(FRESH)
    assert outcome(step(state, arrival("task_result"))) == (410, False)
    assert closed(state) == state


def test_asking_for_cancellation_refuses_nothing() -> None:
    state = with_cancel(FRESH)
    assert state.cancel
    assert outcome(step(state, arrival("task_result"))) == (200, True)


def test_the_window_of_sequences_forgets_nothing_within_its_width() -> None:
    seen = SeenSequences()
    for number in (5, 1, 200, 3, 2 * WINDOW):
        seen = seen.with_one(number)
        assert number in seen
    assert WINDOW + 1 not in seen
    assert WINDOW in seen


class OneRun(RuleBasedStateMachine):
    """One run, three workers, any order of events, repetitions and closings; a history is kept beside the state."""

    @initialize()
    def begin(self) -> None:
        self.now = 0.0
        self.state = FRESH
        self.accepted: list[Arrival] = []
        self.sent: list[Arrival] = []
        self.accepted_after_end = 0

    def receive(self, one: Arrival) -> Step:
        before = self.state
        taken = step(before, one)
        self.state = taken.state
        assert taken.status == 200 if taken.deliver else taken.state == before
        if taken.deliver:
            self.accepted.append(one)
            self.accepted_after_end += before.phase == "over"
        return taken

    @rule(
        worker=st.sampled_from(["w1", "w2", None]),
        kind=st.sampled_from(sorted(EVENT_TYPES)),
        lease=st.sampled_from([None, 5.0, 30.0]),
    )
    def send(self, worker: str | None, kind: str, lease: float | None) -> None:
        number = len(self.sent) + 1
        one = Arrival(kind, self.now, f"{worker}.{number}", worker, number if worker else 0, lease)
        self.sent.append(one)
        self.receive(one)

    @precondition(lambda self: self.sent)
    @rule(data=st.data())
    def repeat(self, data: st.DataObject) -> None:
        one = replace(data.draw(st.sampled_from(self.sent)), now=self.now)
        known = [accepted.identity for accepted in self.accepted]
        taken = self.receive(one)
        assert not (taken.deliver and one.worker is not None and one.identity in known)

    @rule(seconds=st.floats(0.1, 40.0))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @rule()
    def close(self) -> None:
        self.state = closed(self.state)

    @rule()
    def cancel(self) -> None:
        self.state = with_cancel(self.state)

    @invariant()
    def at_most_one_final_event_is_accepted(self) -> None:
        assert len([one for one in self.accepted if one.kind in FINAL_EVENTS]) <= 1

    @invariant()
    def nothing_is_accepted_after_the_end(self) -> None:
        assert not self.accepted_after_end
        assert not [one for one in self.accepted[:-1] if one.kind in FINAL_EVENTS]

    @invariant()
    def no_unsigned_event_is_accepted_after_a_signed_one(self) -> None:
        signed = [one.worker is not None for one in self.accepted]
        assert signed == sorted(signed)


OneRun.TestCase.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)
test_the_invariants_hold_in_any_order_of_events = OneRun.TestCase
