"""Which run an event belongs to, who may send it, and that nothing is unpickled before that is settled."""

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from wove.backend.callback_settings import CallbackSettings, read_callback_settings
from wove.backend.callbacks import Acceptance, Callback, CallbackTable, Refusal
from wove.backend.frames import serialize_frame
from wove.backend.inbox import MOST_WAITING, Inbox
from wove.backend.runs import Arrival
from wove.backend.types import EVENT_TYPES, FINAL_EVENTS

unpickled: list[str] = []


def _loaded(value: str) -> str:
    unpickled.append(value)
    return value


class Noted:
    """A value that says so when it is unpickled."""

    def __init__(self, value: str) -> None:
        self.value = value

    def __reduce__(self) -> tuple[Callable[[str], str], tuple[str]]:
        return _loaded, (self.value,)


def configured(**config: Any) -> CallbackSettings:
    return read_callback_settings({f"callback_{name}": value for name, value in config.items()})


def event(run_id: str, kind: str = "task_result", **more: Any) -> dict[str, Any]:
    if kind == "task_result":
        more.setdefault("result", Noted(run_id))
    if kind == "task_error":
        more.setdefault("error", {"message": "bad"})
    return serialize_frame({"type": kind, "run_id": run_id, "task_id": "report", **more})


def accept(callback: Callback, payload: dict[str, Any], *, size: int = 100, **arrival: Any) -> Acceptance:
    one = Arrival(kind=payload["type"], **{"now": 0.0, "identity": "some body", **arrival})
    return callback.accept(payload, one, size=size)


def refusal(callback: Callback, payload: dict[str, Any], **arrival: Any) -> int:
    with pytest.raises(Refusal) as caught:
        accept(callback, payload, **arrival)
    return caught.value.status


@pytest.fixture(autouse=True)
def _reset() -> None:
    unpickled.clear()


@pytest.fixture
def inbox() -> Inbox:
    return Inbox()


@pytest.fixture
def callback(inbox: Inbox) -> Callback:
    made = Callback("token")
    made.join(inbox, configured())
    return made


def test_an_event_of_an_open_run_is_delivered_with_its_value(callback: Callback, inbox: Inbox) -> None:
    callback.open("a", inbox, lease=30.0, claim=None)
    accepted = accept(callback, event("a"))
    assert accepted.deliver
    assert unpickled == []
    assert accepted.frame(event("a"))["result"] == "a"


def test_an_event_of_an_unknown_run_is_gone_and_not_unpickled(callback: Callback) -> None:
    assert refusal(callback, event("stranger")) == 410
    assert unpickled == []


def test_an_event_of_a_closed_run_is_gone_and_not_unpickled(callback: Callback, inbox: Inbox) -> None:
    callback.open("a", inbox, lease=30.0, claim=None)
    callback.close("a")
    callback.close("a")
    assert refusal(callback, event("a")) == 410
    assert unpickled == []


def test_an_unknown_type_is_refused_and_the_run_lives_on(callback: Callback, inbox: Inbox) -> None:
    callback.open("a", inbox, lease=30.0, claim=None)
    assert refusal(callback, event("a", "task_resalt")) == 400
    assert accept(callback, event("a")).deliver


def test_an_event_above_the_runs_own_limit_is_refused_also_where_another_session_takes_more(callback: Callback) -> None:
    small = Inbox()
    callback.join(small, configured(max_bytes=50))
    callback.open("a", small, lease=30.0, claim=None)
    assert refusal(callback, event("a"), size=51) == 413
    assert accept(callback, event("a"), size=50).deliver


def test_a_signed_session_refuses_unsigned_events_also_where_another_session_takes_them(callback: Callback) -> None:
    strict = Inbox()
    callback.join(strict, configured(security="signed"))
    callback.open("a", strict, lease=30.0, claim=None)
    assert callback.takes_unsigned
    assert refusal(callback, event("a")) == 401


def test_two_sessions_on_one_token_get_their_own_runs(callback: Callback, inbox: Inbox) -> None:
    other = Inbox()
    callback.join(other, configured())
    callback.open("a", inbox, lease=30.0, claim=None)
    callback.open("b", other, lease=30.0, claim=None)
    assert accept(callback, event("a")).run.inbox is inbox
    assert accept(callback, event("b")).run.inbox is other


def test_a_session_that_leaves_takes_only_its_own_runs_along(callback: Callback, inbox: Inbox) -> None:
    other = Inbox()
    callback.join(other, configured())
    callback.open("a", inbox, lease=30.0, claim=None)
    callback.open("b", other, lease=30.0, claim=None)
    assert callback.leave(other) is False
    assert refusal(callback, event("b")) == 410
    assert accept(callback, event("a")).deliver
    assert callback.leave(inbox) is True


def test_a_run_id_is_used_once(callback: Callback, inbox: Inbox) -> None:
    callback.open("a", inbox, lease=30.0, claim=None)
    with pytest.raises(ValueError, match="'a' was opened before"):
        callback.open("a", inbox, lease=30.0, claim=None)


def test_a_reader_that_is_far_behind_slows_the_workers_down(callback: Callback, inbox: Inbox) -> None:
    callback.open("a", inbox, lease=30.0, claim=None)
    for _ in range(MOST_WAITING):
        inbox.put({})
    assert refusal(callback, event("a")) == 503


def test_a_worker_learns_that_its_run_should_stop(callback: Callback, inbox: Inbox) -> None:
    callback.open("a", inbox, lease=30.0, claim=None)
    callback.request_cancel("a")
    callback.request_cancel("unknown")
    assert accept(callback, event("a", "heartbeat")).run.state.cancel


def test_a_start_that_announces_a_lease_is_delivered_with_it(callback: Callback, inbox: Inbox) -> None:
    callback.open("a", inbox, lease=30.0, claim=None)
    payload = event("a", "task_started")
    assert accept(callback, payload, worker="w1", sequence=1, lease=6.0).frame(payload)["lease"] == 6.0
    callback.open("b", inbox, lease=30.0, claim=None)
    payload = event("b", "task_started")
    assert "lease" not in accept(callback, payload).frame(payload)


def test_runs_that_are_over_are_remembered_in_bounded_memory(callback: Callback, inbox: Inbox) -> None:
    for number in range(6000):
        callback.open(f"run-{number}", inbox, lease=30.0, claim=b"large")
        callback.close(f"run-{number}")
    remembered = [number for number in range(6000) if callback.find(f"run-{number}") is not None]
    assert 0 < len(remembered) < 5000
    assert refusal(callback, event("run-0")) == refusal(callback, event("run-5999")) == 410


def test_a_receiver_of_any_run_takes_runs_that_nobody_announced() -> None:
    callback = Callback("token")
    callback.join(Inbox(), configured(), any_run=True)
    assert accept(callback, event("a")).deliver
    assert not accept(callback, event("a")).deliver
    assert refusal(callback, event("a"), identity="another body") == 410


def test_a_wrong_token_finds_nothing_and_a_token_of_the_past_is_gone() -> None:
    table = CallbackTable()
    callback = table.enter("right")
    assert table.enter("right") is callback
    assert table.find("right") is callback
    for wrong in ("", "wrong", "right ", "r\u0131ght", "\ud800"):
        with pytest.raises(Refusal) as caught:
            table.find(wrong)
        assert caught.value.status == 404
    table.remove("right")
    with pytest.raises(Refusal) as caught:
        table.find("right")
    assert caught.value.status == 410
    assert table.enter("right") is not callback


class Events(RuleBasedStateMachine):
    """Three runs of two sessions on one token; any order of events, repetitions, forgeries and closings.

    I1: at most one final event of a run. I3: a value comes from its own run. I4: nothing is unpickled but what has been
    accepted. I6: nothing is accepted after the end.
    """

    runs = st.sampled_from(["a", "b", "c", "stranger"])

    @initialize()
    def begin(self) -> None:
        unpickled.clear()
        self.callback = Callback("token")
        self.inboxes = {"a": Inbox(), "c": Inbox()}
        self.inboxes["b"] = self.inboxes["a"]
        self.callback.join(self.inboxes["a"], configured())
        self.callback.join(self.inboxes["c"], configured(security="signed"))
        for run in "abc":
            self.callback.open(run, self.inboxes[run], lease=30.0, claim=None)
        self.sent: list[tuple[dict[str, Any], Arrival]] = []
        self.delivered: dict[str, list[dict[str, Any]]] = {"a": [], "b": [], "c": [], "stranger": []}
        self.ended: set[str] = set()
        self.accepted_after_end = 0
        self.wrong_reader = 0

    def receive(self, payload: dict[str, Any], arrival: Arrival) -> None:
        run = payload["run_id"]
        try:
            accepted = self.callback.accept(payload, arrival, size=100)
        except Refusal:
            return
        if accepted.deliver:
            self.accepted_after_end += run in self.ended
            self.wrong_reader += accepted.run.inbox is not self.inboxes[run]
            self.delivered[run].append(accepted.frame(payload))
            if payload["type"] in FINAL_EVENTS:
                self.ended.add(run)

    @rule(run=runs, worker=st.sampled_from(["w1", "w2", None]), kind=st.sampled_from([*sorted(EVENT_TYPES), "strange"]))
    def send(self, run: str, worker: str | None, kind: str) -> None:
        number = len(self.sent) + 1
        payload = (
            event(run, kind, result_pickle=event(run)["result_pickle"]) if kind == "heartbeat" else event(run, kind)
        )
        arrival = Arrival(kind, float(number), f"{run}.{worker}.{number}", worker, number if worker else 0, 30.0)
        self.sent.append((payload, arrival))
        self.receive(payload, arrival)

    @precondition(lambda self: self.sent)
    @rule(data=st.data())
    def repeat(self, data: st.DataObject) -> None:
        self.receive(*data.draw(st.sampled_from(self.sent)))

    @rule(run=runs)
    def close(self, run: str) -> None:
        self.callback.close(run)
        self.ended.add(run)

    @rule(run=runs)
    def cancel(self, run: str) -> None:
        self.callback.request_cancel(run)

    @invariant()
    def at_most_one_final_event_of_a_run_is_delivered(self) -> None:
        for frames in self.delivered.values():
            assert len([frame for frame in frames if frame["type"] in FINAL_EVENTS]) <= 1

    @invariant()
    def a_value_comes_from_its_own_run_and_reaches_its_own_session(self) -> None:
        for run, frames in self.delivered.items():
            assert {frame["result"] for frame in frames if "result" in frame} <= {run}
        assert not self.wrong_reader
        assert not self.delivered["stranger"]

    @invariant()
    def nothing_is_unpickled_but_what_was_accepted(self) -> None:
        results = [frame["result"] for frames in self.delivered.values() for frame in frames if "result" in frame]
        assert sorted(unpickled) == sorted(results)

    @invariant()
    def nothing_is_accepted_after_the_end(self) -> None:
        assert not self.accepted_after_end


Events.TestCase.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)
test_the_invariants_hold_in_any_order_of_events = Events.TestCase
