"""Keeps a run alive in its weave's eyes while the task is busy, and hears from there when the task should stop."""

import threading
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, Literal

from wove.backend.events import Event, EventSender
from wove.backend.frames import frame_to_bytes
from wove.backend.pacemaker import Pacemaker, pacemaker
from wove.backend.replies import Reply

DEFAULT_LEASE = 30.0
# The weave's process is gone when it has not been heard for that many leases.
_SILENT_LEASES = 3
_BEATS_PER_LEASE = 3
_SHORTEST_INTERVAL = 0.1
# A start event that is still to arrive is tried again this soon, and after twice the time each further time.
_FIRST_PAUSE = 0.2

_MOST_LOGS = 100
_LOGS_PER_SECOND = 20.0
_FLUSH_SECONDS = 0.5

Verdict = Literal["cancel", "taken", "over", "silent"]


class Heartbeat:
    """Posts, on other threads than the task's: the start event if it has not arrived yet, log records, heartbeats.

    When the answers say that the task is not wanted any more, or there are none for three leases, `verdict` says so and
    `stop` is called, again with each beat until the task has ended.

    Args:
        sender: posts the events.
        ids: ``run_id`` and ``task_id``.
        stop: asks the task to stop; called from other threads, maybe several times.
        lease: seconds that the run may go without a sign of life; a third of it is the time between two beats.
        timing: the pacemaker; the process's own if omitted.
    """

    def __init__(
        self,
        sender: EventSender,
        ids: Mapping[str, Any],
        *,
        stop: Callable[[], None],
        lease: float = DEFAULT_LEASE,
        timing: Pacemaker | None = None,
    ) -> None:
        self.verdict: Verdict | None = None
        self._sender = sender
        self._clock = sender.clock.monotonic
        self._ids = ids
        self._stop = stop
        self.lease = lease
        self._timing = timing or pacemaker()
        self._posting = threading.Lock()
        self._start: Event | None = None
        self._owes_start = False
        self._pause = _FIRST_PAUSE
        self._logs: deque[Mapping[str, Any]] = deque()
        self._dropped = 0
        self._flushed = False
        self._allowance = float(_MOST_LOGS)
        self._allowed_at = self._heard = self._clock()
        self._beat_at = self._heard + self.interval

    @property
    def interval(self) -> float:
        """Seconds between two heartbeats."""
        return max(self.lease / _BEATS_PER_LEASE, _SHORTEST_INTERVAL)

    @property
    def wanted(self) -> bool:
        """Whether the weave may still wait for this worker's outcome."""
        return self.verdict not in ("taken", "over")

    @property
    def has_logs(self) -> bool:
        """Whether log records wait to be posted, or are on their way."""
        return bool(self._logs or self._dropped)

    def start_event(self) -> Event:
        """Return the event that says that the run has started and that heartbeats will follow."""
        return self._event("task_started")

    def begin(self, unsent: Event | None) -> None:
        """Begin to beat.

        Args:
            unsent: the start event where its arrival is unknown; it is posted before anything else.
        """
        self._start = unsent
        self._begin(announced=unsent is None)

    def begin_unasked(self) -> None:
        """Begin to beat where the weave has not been asked: the first beat posts the start event. Most tasks have ended
        by then, so it is not made before.
        """
        self._owes_start = True
        self._begin(announced=False)

    def _begin(self, *, announced: bool) -> None:
        now = self._clock()
        self._beat_at = now + self.interval
        self._timing.add(self.beat, self._beat_at if announced else now + self._pause)

    def end(self) -> None:
        """Beat no more."""
        self._timing.remove(self.beat)

    def log(self, frame: Mapping[str, Any]) -> None:
        """Post a ``log`` event soon, or drop it where there are too many. Never waits."""
        now = self._clock()
        allowance = self._allowance + (now - self._allowed_at) * _LOGS_PER_SECOND
        self._allowance = min(allowance, float(_MOST_LOGS))
        self._allowed_at = now
        if self._flushed:
            return
        if self._allowance < 1.0 or len(self._logs) >= _MOST_LOGS:
            self._dropped += 1
            return
        self._allowance -= 1.0
        self._logs.append(frame)
        self._timing.hasten(self.beat)

    def flush(self) -> None:
        """Post the log records that wait, and wait for one that is on its way.

        Takes half a second at most; what is left then, and what comes later, is dropped.
        """
        if self._logs or self._dropped:
            deadline = self._clock() + _FLUSH_SECONDS
            if self._posting.acquire(timeout=_FLUSH_SECONDS):
                try:
                    self._post_logs(deadline)
                finally:
                    self._posting.release()
        self._flushed = True

    def heed(self, reply: Reply) -> None:
        """Do what an answer to any event of the run asks for."""
        if reply.status == 409:
            self._stop_because("taken")
        elif reply.status == 410:
            self._stop_because("over")
        elif reply.accepted:
            self._heard = self._clock()
            if reply.lease is not None:
                self.lease = reply.lease
            if reply.cancel:
                self._stop_because("cancel")

    def beat(self) -> float:
        """Post what is due and return when to be called again. Called by the pacemaker, on any thread."""
        with self._posting:
            if self.verdict is not None:
                self._stop()
            if not self.wanted:
                return self._clock() + self.interval
            if self._owes_start:
                self._owes_start, self._start = False, self.start_event()
            if self._start is not None and not self._post_start(self._start):
                return self._clock() + min(self._pause, self.interval)
            self._post_logs(self._clock() + self.lease)
            now = self._clock()
            if now >= self._beat_at:
                self._post(self._event("heartbeat"))
                self._beat_at = now + self.interval
            return self._beat_at

    def _post_start(self, start: Event) -> bool:
        self._pause *= 2
        if self._post(start) is None:
            return False
        self._start = None
        self._beat_at = self._clock() + self.interval
        return True

    def _post_logs(self, deadline: float) -> None:
        while self._logs and self._clock() < deadline and self.wanted and not self._flushed:
            # It is taken away when it has arrived: until then, `flush` must wait for it.
            self._post_log(self._logs[0], deadline)
            self._logs.popleft()
        if self._dropped and not self._logs and not self._flushed:
            dropped, self._dropped = self._dropped, 0
            self._post_log({"level": 30, "message": f"{dropped} more log records were not forwarded."}, deadline)

    def _post_log(self, frame: Mapping[str, Any], deadline: float) -> None:
        event = self._sender.event(frame_to_bytes({"type": "log", **self._ids, **frame}))
        self._post(event, seconds=max(deadline - self._clock(), 0.01))

    def _post(self, event: Event, seconds: float | None = None) -> Reply | None:
        """Post an event once and do what the answer asks for; return the answer of the weave, if there was one."""
        patience = max(1.0, self.lease)
        policy = self._sender.policy
        connect = min(policy.connect, patience, seconds or patience)
        try:
            reply = self._sender.post(event, connect=connect, answer=min(policy.answer, patience, seconds or patience))
        except OSError:
            reply = None
        if reply is not None and (reply.accepted or reply.unwanted):
            self.heed(reply)
            return reply
        if self._clock() - self._heard > _SILENT_LEASES * self.lease:
            self._stop_because("silent")
        return None

    def _stop_because(self, verdict: Verdict) -> None:
        if self.verdict is None or self.wanted:
            self.verdict = verdict
        self._stop()

    def _event(self, kind: str) -> Event:
        body = frame_to_bytes({"type": kind, **self._ids})
        return self._sender.event(body, {"wove-lease": f"{self.lease:g}"})
