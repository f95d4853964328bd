"""Posting events: what is sent, what is tried again, when it ends, and what the worker is told."""

import json
import threading
from collections.abc import Iterator
from email.utils import formatdate

import pytest

from tests.support.event_server import CANCEL, DROP, OVER, EventServer, Move, Request, event_server
from tests.support.virtual_clock import VirtualClock
from wove.backend.connections import Connections
from wove.backend.events import EventSender, post_event
from wove.backend.frames import deserialize_frame
from wove.backend.retries import DeliveryPolicy
from wove.backend.signing import CLAIM_REQUEST, EVENT_REQUEST, body_digest, derive_key, read_signature, verify_event
from wove.errors import DeliveryGivenUpError, EventRefusedError, SerializationError, SignatureError

KEY = derive_key(b"the weave's secret", "run-1")
BODY = b'{"type":"task_result","run_id":"run-1","result":42}'


@pytest.fixture
def server() -> Iterator[EventServer]:
    with event_server() as server:
        yield server


@pytest.fixture
def time() -> VirtualClock:
    return VirtualClock()


@pytest.fixture
def sender(server: EventServer, time: VirtualClock) -> Iterator[EventSender]:
    client = Connections()
    yield EventSender(server.url, "run-1", key=KEY, clock=time.clock, client=client)
    client.close()


def _verify(request: Request, *, now: float, kind: str = EVENT_REQUEST) -> None:
    signature = read_signature(request.headers)
    assert signature is not None
    verify_event(signature, KEY, length=len(request.body), now=now, request=kind)
    assert signature.digest == body_digest(request.body)


def test_an_event_is_signed_with_the_run_s_key(server: EventServer, sender: EventSender, time: VirtualClock) -> None:
    assert sender.post(sender.event(BODY)).accepted
    assert server.requests[0].body == BODY
    _verify(server.requests[0], now=time.clock.wall())


def test_events_are_numbered_from_one_and_a_repetition_keeps_its_number(
    server: EventServer, sender: EventSender
) -> None:
    first, second = sender.event(BODY), sender.event(BODY)
    for event in (first, second, first):
        sender.post(event)
    ids = [request.headers["webhook-id"] for request in server.requests]
    assert ids == [f"run-1.{sender.worker_id}.{number}" for number in (1, 2, 1)]
    assert "." not in sender.worker_id


def test_two_deliveries_of_a_run_in_one_process_are_two_workers(server: EventServer) -> None:
    ids = {EventSender(server.url, "run-1", key=KEY).worker_id for _ in range(2)}
    assert len(ids) == 2


def test_without_a_key_nothing_is_signed(server: EventServer) -> None:
    client = Connections()
    sender = EventSender(server.url, "run-1", key=None, client=client)
    sender.post(sender.event(BODY))
    client.close()
    assert not any(name.startswith("webhook") for name in server.requests[0].headers)


def test_the_answer_says_what_the_worker_should_do(server: EventServer, sender: EventSender) -> None:
    server.script(Move(body={"cancel": True, "lease": 12.5}))
    reply = sender.post(sender.event(BODY))
    assert (reply.accepted, reply.cancel, reply.lease) == (True, True, 12.5)


@pytest.mark.parametrize(
    "body",
    [b"", b"ok", b"[1]", b'{"cancel": "yes", "lease": "long"}', b'{"lease": -1}', b'{"lease": true}', b"[" * 60_000],
)
def test_an_accepting_answer_with_another_body_just_accepts(
    server: EventServer, sender: EventSender, body: bytes
) -> None:
    server.script(Move(body=body))
    reply = sender.post(sender.event(BODY))
    assert (reply.accepted, reply.cancel, reply.lease) == (True, False, None)


# Fault 1: the port is refused for three seconds when the result is ready.
def test_an_outage_is_outlasted(server: EventServer, sender: EventSender, time: VirtualClock) -> None:
    server.close()
    time.on_sleep = lambda now: server.open() if now >= 3.0 and not server.listening else None
    assert sender.deliver(sender.event(BODY)).accepted
    assert time.now >= 3.0
    assert server.kinds == ["task_result"]


# Fault 3.
def test_an_overloaded_receiver_is_asked_again(server: EventServer, sender: EventSender, time: VirtualClock) -> None:
    server.script(Move(503), Move(503), Move(503))
    assert sender.deliver(sender.event(BODY)).accepted
    assert len(server.requests) == 4
    assert len({request.headers["webhook-id"] for request in server.requests}) == 1
    assert time.now < 1.0


def test_the_receiver_s_retry_after_is_honoured(server: EventServer, sender: EventSender, time: VirtualClock) -> None:
    server.script(Move(503, headers={"retry-after": "7"}))
    assert sender.deliver(sender.event(BODY)).accepted
    assert 7.0 <= time.now <= 7.2


@pytest.mark.parametrize("header", ["soon", "-3", "", "9" * 40, "Wed, 21 Oct 2015 07:28:00 GMT"])
def test_a_retry_after_that_is_no_number_of_seconds_is_ignored(
    server: EventServer, sender: EventSender, time: VirtualClock, header: str
) -> None:
    server.script(Move(503, headers={"retry-after": header}))
    assert sender.deliver(sender.event(BODY)).accepted
    assert time.now <= 0.1


# Faults 4 and 5: the receiver has the event, but its answer is lost.
def test_a_lost_answer_is_asked_for_again_under_the_same_id(server: EventServer, sender: EventSender) -> None:
    server.script(DROP, DROP)
    assert sender.deliver(sender.event(BODY)).accepted
    assert len(server.requests) == 3
    assert len({request.headers["webhook-id"] for request in server.requests}) == 1


# Fault 6.
def test_a_black_hole_ends_in_a_timeout_and_another_attempt(server: EventServer, time: VirtualClock) -> None:
    client = Connections()
    policy = DeliveryPolicy(answer=0.05)
    sender = EventSender(server.url, "run-1", key=KEY, policy=policy, clock=time.clock, client=client)
    released = threading.Event()
    server.script(Move(after=released.wait), Move(after=released.wait))
    assert sender.deliver(sender.event(BODY)).accepted
    assert len(server.requests) == 3
    released.set()
    client.close()


# Fault 10.
def test_after_ten_minutes_without_success_the_worker_gives_up(
    server: EventServer, sender: EventSender, time: VirtualClock
) -> None:
    server.close()
    with pytest.raises(DeliveryGivenUpError, match="ConnectionRefusedError") as raised:
        sender.deliver(sender.event(BODY))
    assert 580 < time.now <= 600
    assert "run-1" in str(raised.value)
    assert "the-token" not in str(raised.value)


def test_a_limit_of_its_own_is_kept(server: EventServer, sender: EventSender, time: VirtualClock) -> None:
    server.close()
    with pytest.raises(DeliveryGivenUpError):
        sender.deliver(sender.event(BODY), limit=5.0)
    assert time.now <= 5.0


def test_a_worker_that_is_told_to_hurry_gives_up_soon(
    server: EventServer, sender: EventSender, time: VirtualClock
) -> None:
    server.close()
    told: list[float] = []

    def tell(now: float) -> None:
        if now > 100 and not told:
            told.append(now)
            sender.hurry(2.0)

    time.on_sleep = tell
    with pytest.raises(DeliveryGivenUpError):
        sender.deliver(sender.event(BODY))
    assert 100 < time.now < 103


@pytest.mark.parametrize("status", [409, 410])
def test_an_outcome_that_nobody_wants_is_not_posted_again(
    server: EventServer, sender: EventSender, status: int
) -> None:
    server.rule = lambda request: Move(status)
    reply = sender.deliver(sender.event(BODY))
    assert reply.unwanted
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    ("status", "advice"),
    [
        (400, "malformed"),
        (401, "key is not the one"),
        (403, "lead to Wove's receiver"),
        (405, "lead to Wove's receiver"),
        (413, "callback_max_bytes"),
        (301, "Redirects are not followed"),
        (307, "Redirects are not followed"),
    ],
)
def test_a_refusal_that_will_not_change_ends_the_delivery_with_advice(
    server: EventServer, sender: EventSender, status: int, advice: str
) -> None:
    server.rule = lambda request: Move(status)
    with pytest.raises(EventRefusedError, match=advice) as raised:
        sender.deliver(sender.event(BODY))
    assert raised.value.status == status
    assert len(server.requests) == 1
    assert "the-token" not in str(raised.value)


def test_a_wrong_path_is_tried_for_half_a_minute(server: EventServer, sender: EventSender, time: VirtualClock) -> None:
    server.rule = lambda request: Move(404)
    with pytest.raises(DeliveryGivenUpError, match="status 404"):
        sender.deliver(sender.event(BODY))
    assert 10 < time.now <= 30


# Fault 43.
@pytest.mark.parametrize("skew", [-600, 600])
def test_a_clock_that_is_wrong_is_set_by_the_receiver_s_once(
    server: EventServer, sender: EventSender, time: VirtualClock, skew: int
) -> None:
    def strict(request: Request) -> Move:
        now = time.clock.wall() + skew
        try:
            _verify(request, now=now)
        except SignatureError:
            return Move(401, headers={"date": formatdate(now, usegmt=True)})
        return Move()

    server.rule = strict
    assert sender.deliver(sender.event(BODY)).accepted
    assert len(server.requests) == 2
    sender.post(sender.event(BODY))
    assert len(server.requests) == 3


def test_a_refused_signature_is_not_made_again_by_the_same_clock(
    server: EventServer, sender: EventSender, time: VirtualClock
) -> None:
    server.rule = lambda request: Move(401, headers={"date": formatdate(time.clock.wall(), usegmt=True)})
    with pytest.raises(EventRefusedError):
        sender.deliver(sender.event(BODY))
    assert len(server.requests) == 1


@pytest.mark.parametrize("date", ["yesterday", "", "Wed, 99 Oct 2015 07:28:00 GMT"])
def test_a_refused_signature_without_a_clock_stays_refused(server: EventServer, sender: EventSender, date: str) -> None:
    server.rule = lambda request: Move(401, headers={"date": date})
    with pytest.raises(EventRefusedError):
        sender.deliver(sender.event(BODY))
    assert len(server.requests) == 1


def test_a_claimed_body_is_fetched_with_a_signature(
    server: EventServer, sender: EventSender, time: VirtualClock
) -> None:
    server.rule = lambda request: Move(body=b"x" * 100_000)
    assert sender.fetch(100_000) == b"x" * 100_000
    request = server.requests[0]
    assert (request.method, request.path) == ("GET", "/wove/events/the-token/run-1")
    _verify(request, now=time.clock.wall(), kind=CLAIM_REQUEST)


def test_fetching_is_tried_again_and_gives_up_like_posting(
    server: EventServer, sender: EventSender, time: VirtualClock
) -> None:
    server.script(Move(503), DROP, Move(body=b"body"))
    assert sender.fetch(4) == b"body"
    server.close()
    with pytest.raises(DeliveryGivenUpError, match="payload of run 'run-1'"):
        sender.fetch(4)


def test_a_body_that_is_not_wanted_any_more_is_none(server: EventServer, sender: EventSender) -> None:
    server.script(OVER)
    assert sender.fetch(10) is None


def test_a_sender_apart_continues_the_numbers_over_its_own_connection(server: EventServer, sender: EventSender) -> None:
    sender.post(sender.event(BODY))
    with sender.apart() as apart:
        apart.post(apart.event(BODY))
    assert [request.headers["webhook-id"][-2:] for request in server.requests] == [".1", ".2"]
    assert server.connections == 2


def test_post_event_posts_once_and_returns_nothing(server: EventServer) -> None:
    frame = {"type": "task_result", "run_id": "run-1", "task_id": "t", "result": {1, 2}}
    assert post_event(server.url, frame) is None  # type: ignore[func-returns-value]
    assert deserialize_frame(json.loads(server.requests[0].body))["result"] == {1, 2}


def test_post_event_raises_for_a_refusal(server: EventServer) -> None:
    server.rule = lambda request: Move(404)
    with pytest.raises(EventRefusedError, match="callback_token") as raised:
        post_event(server.url, {"type": "heartbeat", "run_id": "run-1", "task_id": "t"})
    assert raised.value.status == 404
    assert len(server.requests) == 1


def test_post_event_raises_where_nobody_listens(server: EventServer) -> None:
    server.close()
    with pytest.raises(OSError, match="refused") as caught:
        post_event(server.url, {"type": "heartbeat", "run_id": "run-1", "task_id": "t"}, timeout=5.0)
    origin, _, token = server.url.partition("/wove/events/")
    assert caught.value.__notes__ == [f"Raised while an event of run 'run-1' was posted to {origin}."]
    assert token not in caught.value.__notes__[0]


def test_post_event_has_a_timeout(server: EventServer) -> None:
    released = threading.Event()
    server.rule = lambda request: Move(after=released.wait)
    with pytest.raises(TimeoutError):
        post_event(server.url, {"type": "heartbeat", "run_id": "run-1", "task_id": "t"}, timeout=0.05)
    released.set()


def test_post_event_refuses_what_cannot_travel_before_anything_is_sent(server: EventServer) -> None:
    frame = {"type": "task_result", "run_id": "run-1", "task_id": "t", "result": threading.Lock()}
    with pytest.raises(SerializationError):
        post_event(server.url, frame)
    with pytest.raises(ValueError, match="http://host:port"):
        post_event("nowhere", {"type": "heartbeat", "run_id": "run-1", "task_id": "t"})
    assert server.requests == []


def test_a_cancel_in_the_answer_to_a_result_is_only_told(server: EventServer, sender: EventSender) -> None:
    server.script(CANCEL)
    assert sender.deliver(sender.event(BODY)).cancel
