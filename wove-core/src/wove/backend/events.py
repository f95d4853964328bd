"""Posts events to the weave that waits for them: `post_event` once, `EventSender` until they have arrived."""

import copy
import itertools
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from wove.backend.answers import Answer
from wove.backend.connections import LONGEST_ANSWER, Connections, Target, connections, target_of
from wove.backend.frames import frame_to_bytes
from wove.backend.replies import Reply, reply_of
from wove.backend.retries import DeliveryPolicy, RetrySchedule, may_pass
from wove.backend.returned import pack_outcome
from wove.backend.signing import CLAIM_REQUEST, EVENT_REQUEST, body_digest, sign_event
from wove.errors import DeliveryGivenUpError, EventRefusedError
from wove.serialization import describe

_SLICE = 0.5
_NOTICEABLE_SKEW = 5.0


@dataclass(frozen=True, slots=True)
class Clock:
    """The time that delivery goes by; tests give it another."""

    monotonic: Callable[[], float] = time.monotonic
    wall: Callable[[], float] = time.time
    sleep: Callable[[float], None] = time.sleep


_senders = itertools.count(1)


@lru_cache(maxsize=1)
def _process(pid: int) -> str:
    # By its id: a forked process is another one.
    return f"{pid}-{os.urandom(8).hex()}"


@dataclass(frozen=True, slots=True)
class Event:
    """One event, ready to be posted: every attempt sends the same bytes under the same number.

    Attributes:
        worker_id: the worker that numbered it.
        sequence: its number among the events of this run and worker.
        body: JSON.
        headers: more headers to send.
    """

    worker_id: str
    sequence: int
    body: bytes
    headers: Mapping[str, str] | None = None


class EventSender:
    """Numbers, signs and posts the events of one run of one worker. May be used from several threads.

    Args:
        callback_url: where events go.
        run_id: the run that they are about.
        key: the run's key; None sends unsigned events.
        policy: timeouts, pauses and the limit of `deliver`.
        clock: the time to go by.
        client: the connections to use; the process's own if omitted.
    """

    def __init__(
        self,
        callback_url: str,
        run_id: str,
        *,
        key: str | None,
        policy: DeliveryPolicy | None = None,
        clock: Clock | None = None,
        client: Connections | None = None,
    ) -> None:
        self.worker_id = f"{_process(os.getpid())}-{next(_senders):x}"
        self.policy = policy or DeliveryPolicy()
        self.clock = clock or Clock()
        self._target = target_of(callback_url)
        self._run_id = run_id
        self._key = key
        self._client = client or connections()
        self._sequence = itertools.count(1)
        self._skew = 0.0
        self._hurry_until: float | None = None

    @contextmanager
    def apart(self) -> Iterator["EventSender"]:
        """Give a sender of the same worker that shares no lock with this one: for use in a signal handler."""
        twin = copy.copy(self)
        twin._client = Connections()
        try:
            yield twin
        finally:
            twin._client.close()

    @property
    def origin(self) -> str:
        """The receiver's address without the token, for messages."""
        return self._target.origin

    def event(self, body: bytes, headers: Mapping[str, str] | None = None) -> Event:
        """Number an event."""
        return Event(self.worker_id, next(self._sequence), body, headers)

    def packed(self, event: Event) -> bytes:
        """Return an event, signed, as a backend carries it back, see `wove.backend.returned`."""
        return pack_outcome(self._signature(event.worker_id, event.sequence, event.body, EVENT_REQUEST), event.body)

    def post(self, event: Event, *, connect: float | None = None, answer: float | None = None) -> Reply:
        """Post an event once; if the receiver's clock differs from this host's, once more by the receiver's.

        Args:
            event: from `event`.
            connect: seconds for opening a connection; the policy's if omitted.
            answer: seconds for the rest; the policy's for this size if omitted.

        Raises:
            OSError: the receiver was not reached or did not answer.
        """
        answer = self.policy.answer_seconds(len(event.body)) if answer is None else answer
        reply = reply_of(self._exchange(event, connect, answer))
        if reply.status == 401 and self._adjust_clock(reply):
            reply = reply_of(self._exchange(event, connect, answer))
        return reply

    def deliver(
        self, event: Event, *, limit: float | None = None, in_trouble: Callable[[Event], None] | None = None
    ) -> Reply:
        """Post an event until it has arrived, or nobody wants it any more, for as long as the policy says.

        Args:
            event: from `event`.
            limit: seconds in place of the policy's.
            in_trouble: is called with the event whenever it has not arrived, before anything else happens.

        Raises:
            EventRefusedError: the receiver refuses this event, and would refuse it again.
            DeliveryGivenUpError: it did not arrive within the limit; says what went wrong last.
        """
        arrived = False

        def attempt() -> Reply:
            nonlocal arrived
            try:
                reply = self.post(event)
                arrived = reply.accepted or reply.unwanted
                return reply
            finally:
                if not arrived and in_trouble is not None:
                    in_trouble(event)

        return self._persist(attempt, "The outcome", limit)

    def hurry(self, seconds: float) -> None:
        """Let a running `deliver`, and every later one, give up after so many seconds from now."""
        self._hurry_until = self.clock.monotonic() + seconds

    def fetch(self, size: int, *, apart: str | None = None) -> bytes | None:
        """Return the rest of a payload that waits at the receiver, tried for as long as the policy says; None where
        nobody wants this worker to execute the run.

        Args:
            size: its bytes; more are not read.
            apart: the digest of an argument that waits there apart from the payload, to be fetched instead.

        Raises:
            EventRefusedError: the receiver refuses to give it.
            DeliveryGivenUpError: the receiver was not reached within the policy's limit.
        """
        target = self._target
        path, _, query = target.path.partition("?")
        fields = "&".join(field for field in (query, f"apart={apart}" if apart else "") if field)
        claimed = Target(
            target.scheme, target.host, target.port, f"{path}/{self._run_id}{'?' + fields if fields else ''}"
        )
        reply = self._persist(lambda: self._fetch_once(claimed, size), "The payload", None)
        return None if reply.unwanted else reply.body

    def _persist(self, attempt: Callable[[], Reply], what: str, limit: float | None) -> Reply:
        clock = self.clock
        began = clock.monotonic()
        schedule = RetrySchedule(self.policy, began)
        if limit is not None:
            schedule.hurry(began + limit)
        while True:
            reply = None
            try:
                reply = attempt()
            except OSError as error:
                problem = describe(error)
            else:
                if reply.accepted or reply.unwanted:
                    return reply
                if not may_pass(reply.status):
                    raise self.refusal(reply)
                problem = f"status {reply.status}"
            pause = self._pause(schedule, reply)
            if pause is None:
                raise DeliveryGivenUpError(
                    f"{what} of run {self._run_id!r} did not pass between this worker and {self.origin} "
                    f"for {clock.monotonic() - began:.0f} s; the last problem was: {problem}."
                )
            self._sleep(pause)

    def refusal(self, reply: Reply) -> EventRefusedError:
        """Return the error that explains a status which will not change."""
        return EventRefusedError(
            f"{self.origin} refused an event of run {self._run_id!r} with status {reply.status}. {reply.advice}",
            status=reply.status,
        )

    def _fetch_once(self, target: Target, size: int) -> Reply:
        reply = reply_of(self._get(target, size))
        if reply.status == 401 and self._adjust_clock(reply):
            reply = reply_of(self._get(target, size))
        return reply

    def _get(self, target: Target, size: int) -> Answer:
        return self._client.exchange(
            target,
            method="GET",
            headers=self._signature(self.worker_id, next(self._sequence), b"", CLAIM_REQUEST),
            connect_seconds=self.policy.connect,
            answer_seconds=self.policy.answer_seconds(size),
            longest_answer=max(size, LONGEST_ANSWER),
        )

    def _exchange(self, event: Event, connect: float | None, answer: float) -> Answer:
        headers = {"content-type": "application/json"}
        if event.headers:
            headers.update(event.headers)
        headers.update(self._signature(event.worker_id, event.sequence, event.body, EVENT_REQUEST))
        return self._client.exchange(
            self._target,
            headers=headers,
            body=event.body,
            connect_seconds=self.policy.connect if connect is None else connect,
            answer_seconds=answer,
        )

    def _signature(self, worker_id: str, sequence: int, body: bytes, request: str) -> dict[str, str]:
        if self._key is None:
            return {}
        return sign_event(
            self._key,
            self._run_id,
            worker_id=worker_id,
            sequence=sequence,
            timestamp=int(self.clock.wall() + self._skew),
            digest=body_digest(body),
            length=len(body),
            request=request,
        )

    def _adjust_clock(self, reply: Reply) -> bool:
        """Go by the receiver's clock from now on; tell whether that makes a difference."""
        theirs = reply.clock
        if self._key is None or theirs is None:
            return False
        skew = theirs - self.clock.wall()
        if abs(skew - self._skew) < _NOTICEABLE_SKEW:
            return False
        self._skew = skew
        return True

    def _pause(self, schedule: RetrySchedule, reply: Reply | None) -> float | None:
        if self._hurry_until is not None:
            schedule.hurry(self._hurry_until)
        now = self.clock.monotonic()
        if reply is None:
            return schedule.pause(now)
        return schedule.pause(now, status=reply.status, retry_after=reply.retry_after)

    def _sleep(self, seconds: float) -> None:
        # In slices: a signal handler may have called `hurry` meanwhile.
        until = self.clock.monotonic() + seconds
        while (left := until - self.clock.monotonic()) > 0:
            if self._hurry_until is not None and self.clock.monotonic() > self._hurry_until:
                return
            self.clock.sleep(min(left, _SLICE))


def post_event(callback_url: str, frame: Mapping[str, Any], *, timeout: float | None = None) -> None:
    """Post one event frame to a callback URL, once and unsigned.

    Workers that call `wove.integrations.worker.run` need not post anything themselves.

    Args:
        callback_url: ``payload["callback_url"]``.
        frame: e.g. ``{"type": "task_result", "run_id": ..., "task_id": ..., "result": 42}``.
        timeout: seconds; 5 for connecting and 10, plus 1 for each MiB, for the answer if omitted.

    Raises:
        EventRefusedError: the receiver answered with an error; ``status`` tells which.
        OSError: the receiver was not reached or did not answer in time.
        SerializationError: the result cannot be pickled.
        ValueError: the URL or the frame is malformed.
    """
    policy = DeliveryPolicy() if timeout is None else DeliveryPolicy(connect=timeout, answer=timeout)
    sender = EventSender(callback_url, str(frame.get("run_id")), key=None, policy=policy)
    try:
        reply = sender.post(sender.event(frame_to_bytes(frame)))
    except OSError as error:
        error.add_note(f"Raised while an event of run {frame.get('run_id')!r} was posted to {sender.origin}.")
        raise
    if not reply.accepted:
        raise sender.refusal(reply)
