"""Heartbeats: what they post and when, and how the answers end a task that nobody wants."""

import threading
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.event_server import CANCEL, DROP, EventServer, Move, Request, event_server
from tests.support.virtual_clock import VirtualClock
from wove.backend.connections import Connections
from wove.backend.events import EventSender
from wove.backend.heartbeat import Heartbeat
from wove.backend.pacemaker import Pacemaker
from wove.backend.replies import Reply
from wove.backend.signing import derive_key

IDS = {"run_id": "run-1", "task_id": "report"}


class Timing(Pacemaker):
    """A pacemaker whose beats the test calls."""

    def __init__(self) -> None:
        self.due: float | None = None
        self.hastened = 0

    def add(self, beat: Any, due: float) -> None:
        self.due = due

    def remove(self, beat: Any) -> None:
        self.due = None

    def hasten(self, beat: Any) -> None:
        self.hastened += 1


@pytest.fixture
def server() -> Iterator[EventServer]:
    with event_server() as server:
        yield server


@pytest.fixture
def time() -> VirtualClock:
    return VirtualClock()


@pytest.fixture
def timing() -> Timing:
    return Timing()


@pytest.fixture
def stops() -> list[str]:
    return []


@pytest.fixture
def heartbeat(server: EventServer, time: VirtualClock, timing: Timing, stops: list[str]) -> Iterator[Heartbeat]:
    client = Connections()
    sender = EventSender(server.url, "run-1", key=derive_key(b"x", "run-1"), clock=time.clock, client=client)
    yield Heartbeat(sender, IDS, stop=lambda: stops.append("stop"), lease=30.0, timing=timing)
    client.close()


def _beat_on(heartbeat: Heartbeat, time: VirtualClock, *, until: float) -> None:
    """Beat at every time that the beats ask for."""
    due = heartbeat.beat()
    while due <= until:
        time.now = due
        due = heartbeat.beat()


def _verdict(heartbeat: Heartbeat) -> str | None:
    return heartbeat.verdict


def test_the_start_event_announces_the_lease(heartbeat: Heartbeat) -> None:
    start = heartbeat.start_event()
    assert start.body == b'{"type":"task_started","run_id":"run-1","task_id":"report"}'
    assert start.headers == {"wove-lease": "30"}


def test_beats_go_out_at_a_third_of_the_lease(
    heartbeat: Heartbeat, server: EventServer, time: VirtualClock, timing: Timing
) -> None:
    heartbeat.begin(None)
    assert timing.due == 10.0
    time.now = 10.0
    _beat_on(heartbeat, time, until=45.0)
    assert server.kinds == ["heartbeat"] * 4
    assert server.requests[0].event == {"type": "heartbeat", **IDS}


def test_a_shorter_lease_in_an_answer_quickens_the_beat(
    heartbeat: Heartbeat, server: EventServer, time: VirtualClock
) -> None:
    server.rule = lambda request: Move(body={"cancel": False, "lease": 3.0})
    heartbeat.begin(None)
    time.now = 10.0
    heartbeat.beat()
    _beat_on(heartbeat, time, until=20.5)
    assert 8 <= len(server.kinds) <= 11


def test_no_beat_is_posted_before_its_time(heartbeat: Heartbeat, server: EventServer) -> None:
    heartbeat.begin(None)
    assert heartbeat.beat() == 10.0
    assert server.kinds == []


# Fault 7 in part: the start event is lost at first.
def test_a_start_event_that_did_not_arrive_goes_out_before_anything_else(
    heartbeat: Heartbeat, server: EventServer, time: VirtualClock, timing: Timing
) -> None:
    server.close()
    start = heartbeat.start_event()
    heartbeat.begin(start)
    assert timing.due == pytest.approx(0.2)
    first = heartbeat.beat()
    second = heartbeat.beat()
    assert first < second < 10.0
    server.open()
    heartbeat.beat()
    assert server.kinds == ["task_started"]
    assert server.requests[0].headers["webhook-id"].endswith(".1")
    time.now = 10.0
    heartbeat.beat()
    assert server.kinds == ["task_started", "heartbeat"]


def test_where_nobody_was_asked_the_first_beat_posts_the_start_event(
    heartbeat: Heartbeat, server: EventServer, time: VirtualClock, timing: Timing
) -> None:
    heartbeat.begin_unasked()
    assert timing.due == pytest.approx(0.2)
    assert heartbeat.beat() == 10.0
    time.now = 10.0
    heartbeat.beat()
    assert server.kinds == ["task_started", "heartbeat"]


# Fault 30.
def test_a_weave_that_gives_up_stops_the_task(
    heartbeat: Heartbeat, server: EventServer, time: VirtualClock, stops: list[str]
) -> None:
    server.rule = lambda request: CANCEL
    time.now = 10.0
    heartbeat.beat()
    assert _verdict(heartbeat) == "cancel"
    assert heartbeat.wanted
    assert stops == ["stop"]


def test_a_task_that_goes_on_is_asked_again_with_each_beat(
    heartbeat: Heartbeat, server: EventServer, time: VirtualClock, stops: list[str]
) -> None:
    server.script(Move(), CANCEL)
    for now in (10.0, 20.0, 30.0, 40.0):
        time.now = now
        heartbeat.beat()
    assert len(stops) == 3
    assert server.kinds == ["heartbeat"] * 4


@pytest.mark.parametrize(("status", "verdict"), [(409, "taken"), (410, "over")])
def test_a_run_that_is_over_or_another_s_is_stopped_and_not_posted_about_any_more(
    heartbeat: Heartbeat, server: EventServer, time: VirtualClock, stops: list[str], status: int, verdict: str
) -> None:
    server.rule = lambda request: Move(status)
    time.now = 10.0
    _beat_on(heartbeat, time, until=35.0)
    assert _verdict(heartbeat) == verdict
    assert not heartbeat.wanted
    assert server.kinds == ["heartbeat"]
    assert len(stops) >= 2


# Fault 32: the owner is killed.
def test_three_silent_leases_stop_the_task(
    heartbeat: Heartbeat, server: EventServer, time: VirtualClock, stops: list[str]
) -> None:
    server.close()
    time.now = 10.0
    _beat_on(heartbeat, time, until=89.0)
    assert _verdict(heartbeat) is None
    assert stops == []
    _beat_on(heartbeat, time, until=101.0)
    assert _verdict(heartbeat) == "silent"
    assert stops


@pytest.mark.parametrize("fault", [DROP, Move(503), Move(404), Move(502, body=b"<html>")], ids=str)
def test_only_an_accepted_event_is_a_sign_of_the_weave(
    heartbeat: Heartbeat, server: EventServer, time: VirtualClock, fault: Move
) -> None:
    server.rule = lambda request: fault
    time.now = 10.0
    _beat_on(heartbeat, time, until=101.0)
    assert _verdict(heartbeat) == "silent"


def test_a_short_outage_changes_nothing(
    heartbeat: Heartbeat, server: EventServer, time: VirtualClock, stops: list[str]
) -> None:
    server.close()
    time.now = 10.0
    _beat_on(heartbeat, time, until=61.0)
    server.open()
    _beat_on(heartbeat, time, until=131.0)
    assert _verdict(heartbeat) is None
    assert stops == []


def test_any_answer_of_the_run_counts(heartbeat: Heartbeat, stops: list[str]) -> None:
    heartbeat.heed(Reply(200, lease=6.0))
    assert heartbeat.interval == 2.0
    heartbeat.heed(Reply(503, cancel=True))
    assert _verdict(heartbeat) is None
    heartbeat.heed(Reply(200, cancel=True))
    assert _verdict(heartbeat) == "cancel"
    heartbeat.heed(Reply(410))
    assert _verdict(heartbeat) == "over"
    assert len(stops) == 2


def test_log_records_go_out_with_the_next_beat_which_comes_soon(
    heartbeat: Heartbeat, server: EventServer, timing: Timing
) -> None:
    heartbeat.log({"level": 30, "message": "half way", "logger": "job"})
    assert timing.hastened == 1
    heartbeat.beat()
    assert server.requests[0].event == {"type": "log", **IDS, "level": 30, "message": "half way", "logger": "job"}


def test_what_waits_to_be_logged_is_posted_before_the_end(heartbeat: Heartbeat, server: EventServer) -> None:
    heartbeat.log({"level": 30, "message": "last words"})
    heartbeat.flush()
    assert server.kinds == ["log"]
    heartbeat.flush()
    assert server.kinds == ["log"]


def test_a_flood_of_log_records_is_cut_and_counted(heartbeat: Heartbeat, server: EventServer) -> None:
    for number in range(250):
        heartbeat.log({"level": 30, "message": str(number)})
    heartbeat.flush()
    messages = [request.event["message"] for request in server.requests]
    assert messages[:100] == [str(number) for number in range(100)]
    assert messages[100:] == ["150 more log records were not forwarded."]


def test_twenty_records_a_second_may_follow_a_flood(
    heartbeat: Heartbeat, server: EventServer, time: VirtualClock
) -> None:
    for _ in range(101):
        heartbeat.log({"level": 30, "message": "flood"})
    heartbeat.beat()
    time.now = 1.0
    for _ in range(30):
        heartbeat.log({"level": 30, "message": "later"})
    heartbeat.flush()
    assert sum(request.event["message"] == "later" for request in server.requests) == 20


def test_logging_never_waits_for_a_slow_path(heartbeat: Heartbeat, server: EventServer) -> None:
    released = threading.Event()
    server.rule = lambda request: Move(after=released.wait)
    heartbeat.log({"level": 30, "message": "first"})
    beating = threading.Thread(target=heartbeat.beat)
    beating.start()
    server.wait_for("log")
    heartbeat.log({"level": 30, "message": "second"})
    released.set()
    beating.join(20)
    assert not beating.is_alive()


def test_the_end_of_a_task_waits_half_a_second_at_most_for_its_logs(heartbeat: Heartbeat, server: EventServer) -> None:
    released = threading.Event()

    def silent(request: Request) -> Move:
        return Move(after=released.wait)

    server.rule = silent
    heartbeat.log({"level": 30, "message": "first"})
    flushing = threading.Thread(target=heartbeat.flush)
    flushing.start()
    flushing.join(20)
    assert not flushing.is_alive()
    released.set()


def test_the_end_of_a_task_waits_for_a_record_that_is_on_its_way(heartbeat: Heartbeat, server: EventServer) -> None:
    released = threading.Event()
    server.rule = lambda request: Move(after=released.wait)
    heartbeat.log({"level": 30, "message": "on its way"})
    beating = threading.Thread(target=heartbeat.beat)
    beating.start()
    server.wait_for("log")
    flushing = threading.Thread(target=heartbeat.flush)
    flushing.start()
    flushing.join(0.1)
    assert flushing.is_alive()
    released.set()
    for thread in (beating, flushing):
        thread.join(20)
        assert not thread.is_alive()


def test_what_is_logged_after_the_end_is_dropped(heartbeat: Heartbeat, server: EventServer, timing: Timing) -> None:
    heartbeat.flush()
    heartbeat.log({"level": 30, "message": "too late"})
    heartbeat.beat()
    assert server.kinds == []
    assert timing.hastened == 0


def test_when_it_ends_no_more_beats_are_due(heartbeat: Heartbeat, timing: Timing) -> None:
    heartbeat.begin(None)
    heartbeat.end()
    assert timing.due is None
