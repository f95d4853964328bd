"""What the receiver's answer to an event means for the worker that posted it."""

import json
from dataclasses import dataclass
from typing import Any

from wove.backend.answers import Answer
from wove.backend.connections import LONGEST_ANSWER

_ADVICE = {
    400: "The event was malformed.",
    401: "The worker's key is not the one that the weave expects: was the payload changed on its way?",
    404: "Does callback_url end with /wove/events/<callback_token>, and does a proxy in between keep that path?",
    409: "Another worker executes the run.",
    410: "The run is over, or its weave is gone.",
    413: "The event is larger than the receiver's callback_max_bytes.",
}


@dataclass(frozen=True, slots=True)
class Reply:
    """What the receiver answered to an event.

    Attributes:
        status: 200 accepted or seen before, 409 another worker has the run, 410 the run is over or unknown.
        cancel: the weave wants the task to stop.
        lease: seconds that the run stays alive without another event, or None.
        retry_after: seconds that a refused event should wait, or None.
        date: the receiver's clock as in its ``date`` header, or None.
        body: the answer itself.
    """

    status: int
    cancel: bool = False
    lease: float | None = None
    retry_after: float | None = None
    date: str | None = None
    body: bytes = b""

    @property
    def accepted(self) -> bool:
        """Whether the event has arrived."""
        return 200 <= self.status < 300

    @property
    def unwanted(self) -> bool:
        """Whether nobody waits for this worker's events of the run any more."""
        return self.status in (409, 410)

    @property
    def advice(self) -> str:
        """What to look at where an event is refused."""
        if 300 <= self.status < 400:
            return "Redirects are not followed: set callback_url to the final address."
        return _ADVICE.get(self.status, "Does callback_url lead to Wove's receiver?")

    @property
    def clock(self) -> float | None:
        """The receiver's clock, unix seconds, or None where it did not tell."""
        if self.date is None:
            return None
        # Takes milliseconds to import, and only a wrong clock needs it.
        from datetime import UTC
        from email.utils import parsedate_to_datetime

        try:
            parsed = parsedate_to_datetime(self.date)
        except ValueError:
            return None
        return (parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)).timestamp()


def reply_of(answer: Answer) -> Reply:
    """Read an HTTP answer to an event."""
    told = _told(answer)
    return Reply(
        status=answer.status,
        cancel=told.get("cancel") is True,
        lease=_seconds(told.get("lease")),
        retry_after=_retry_after(answer.headers.get("retry-after")),
        date=answer.headers.get("date"),
        body=answer.body,
    )


def _told(answer: Answer) -> dict[str, Any]:
    if answer.status >= 300 or len(answer.body) > LONGEST_ANSWER:
        return {}
    try:
        said = json.loads(answer.body)
    except (ValueError, RecursionError):
        return {}  # Accepted is accepted, whatever a proxy made of the body.
    return said if isinstance(said, dict) else {}


def _seconds(value: object) -> float | None:
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < 1e9:
        return float(value)
    return None


def _retry_after(header: str | None) -> float | None:
    # Its other form, a date, is used by nobody who would stand between a worker and its receiver.
    return _seconds(int(header)) if header is not None and header.isdecimal() and len(header) < 9 else None
