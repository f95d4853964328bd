"""What follows from the roll calls of workers, and from their silence."""

from collections.abc import Mapping

import pytest

from wove_celery.sightings import LOST_SECONDS, News, RollCall, Sightings, read_roll_call


def call(
    runs: str = "",
    waiting: str = "",
    *,
    worker: str = "w1",
    ended: Mapping[str, tuple[str, str]] | None = None,
    complete: bool = True,
    leaving: bool = False,
) -> RollCall:
    return RollCall(
        worker=worker,
        node=f"{worker}@host",
        runs=frozenset(runs.split()),
        waiting=frozenset(waiting.split()),
        ended=ended or {},
        complete=complete,
        leaving=leaving,
    )


def phases(news: News) -> dict[str, str]:
    return {run_id: state.phase for run_id, state in news}


@pytest.fixture
def sightings() -> Sightings:
    return Sightings(requeues=False)


def test_a_worker_that_speaks_is_no_news(sightings: Sightings) -> None:
    assert sightings.heard(call("a", "b"), now=0.0) == []
    assert sightings.heard(call("a b"), now=1.0) == []
    assert sightings.lost(now=1.0 + LOST_SECONDS) == []


def test_a_silent_worker_has_lost_what_it_held(sightings: Sightings) -> None:
    sightings.heard(call("a", "b"), now=0.0)
    news = sightings.lost(now=LOST_SECONDS + 0.1)
    assert phases(news) == {"a": "gone", "b": "gone"}
    assert "w1@host has not been heard of for 6 s" in str(news[0][1].reason)
    assert sightings.lost(now=100.0) == [], "it is said once"


def test_what_waited_at_a_dead_worker_is_not_lost_where_the_broker_delivers_it_again() -> None:
    sightings = Sightings(requeues=True)
    sightings.heard(call("a", "b"), now=0.0)
    assert phases(sightings.lost(now=10.0)) == {"a": "gone"}


def test_a_run_that_another_worker_holds_is_not_lost(sightings: Sightings) -> None:
    sightings.heard(call("a"), now=0.0)
    sightings.heard(call("a", worker="w2"), now=6.0)
    assert sightings.lost(now=LOST_SECONDS + 0.1) == []


def test_a_run_that_its_worker_does_not_hold_any_more_is_finished(sightings: Sightings) -> None:
    sightings.heard(call("a b"), now=0.0)
    assert phases(sightings.heard(call("b"), now=1.0)) == {"a": "finished"}


def test_a_run_that_did_not_start_and_left_its_worker_is_not_finished(sightings: Sightings) -> None:
    sightings.heard(call("a", "b"), now=0.0)
    assert sightings.heard(call("a"), now=1.0) == []


def test_an_incomplete_roll_call_finishes_nothing(sightings: Sightings) -> None:
    sightings.heard(call("a b"), now=0.0)
    assert sightings.heard(call("b", complete=False), now=1.0) == []


def test_the_end_of_a_run_comes_with_the_reason(sightings: Sightings) -> None:
    sightings.heard(call("a b"), now=0.0)
    news = sightings.heard(call("b", ended={"a": ("failed", "WorkerLostError: signal 9")}), now=1.0)
    assert phases(news) == {"a": "failed"}
    assert news[0][1].reason == "WorkerLostError: signal 9"


def test_a_worker_that_leaves_may_still_finish_its_runs(sightings: Sightings) -> None:
    sightings.heard(call("a"), now=0.0)
    assert sightings.heard(call("a", leaving=True), now=1.0) == []
    assert sightings.lost(now=100.0) == []


def test_a_lost_run_that_is_held_again_is_taken_back(sightings: Sightings) -> None:
    sightings.heard(call("a"), now=0.0)
    sightings.lost(now=10.0)
    assert phases(sightings.heard(call("a", worker="w2"), now=11.0)) == {"a": "running"}
    assert sightings.heard(call("a", worker="w2"), now=12.0) == []


def test_silence_means_nothing_when_nobody_listened(sightings: Sightings) -> None:
    sightings.heard(call("a"), now=0.0)
    sightings.forget()
    assert sightings.lost(now=100.0) == []


def test_the_node_of_a_run_is_known(sightings: Sightings) -> None:
    sightings.heard(call("a", "b"), now=0.0)
    assert [sightings.node_of(run_id) for run_id in ("a", "b", "c")] == ["w1@host", "w1@host", None]


def test_an_event_of_a_worker_is_read() -> None:
    event = {
        "hostname": "w1@host",
        "pid": 7,
        "runs": ["a"],
        "waiting": ["b"],
        "ended": {"c": ["failed", "why"]},
        "complete": True,
        "leaving": False,
    }
    read = read_roll_call(event)
    assert (read.worker, read.node, read.held) == ("w1@host/7", "w1@host", frozenset("ab"))
    assert read.ended == {"c": ("failed", "why")}


@pytest.mark.parametrize("event", [{}, {"hostname": "w"}, {"hostname": "w", "pid": 1, "runs": 5}, []])
def test_a_malformed_event_is_refused(event: object) -> None:
    with pytest.raises(ValueError, match="malformed"):
        read_roll_call(event)  # type: ignore[arg-type]
