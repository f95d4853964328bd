"""When a worker posts an event again, and when it gives up. Pure: times go in, pauses come out."""

from collections.abc import Callable
from dataclasses import dataclass

# What the receiver, or something between, says when the same event may succeed later.
_PASSING = frozenset({404, 408, 425, 429})
# A wrong path or token answers 404, but so does a proxy whose backend restarts.
_NOT_FOUND_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class DeliveryPolicy:
    """Seconds that the delivery of one event may take, in all its parts.

    Attributes:
        connect: for opening a connection.
        answer: for sending a small event and receiving the answer.
        answer_per_mib: more of that for each MiB of the event.
        first_pause: the longest pause after the first failure; it doubles with each further one.
        longest_pause: the longest pause of all.
        limit: from the first attempt to giving up.
    """

    connect: float = 5.0
    answer: float = 10.0
    answer_per_mib: float = 1.0
    first_pause: float = 0.1
    longest_pause: float = 15.0
    limit: float = 600.0

    def answer_seconds(self, size: int) -> float:
        """Return the seconds that an event of so many bytes may take."""
        return self.answer + self.answer_per_mib * size / (1024 * 1024)


def may_pass(status: int) -> bool:
    """Tell whether an HTTP status means that the same event may be accepted later."""
    return status >= 500 or status in _PASSING


def uniform(low: float, high: float) -> float:
    """Return a random number between two."""
    # Takes a millisecond to import, and most events arrive at once.
    import random

    return random.uniform(low, high)


class RetrySchedule:
    """The pauses between attempts: exponential backoff with full jitter, and an end.

    https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/ compares the kinds of jitter.

    Args:
        policy: pauses and limit.
        now: the clock's seconds at the first attempt.
        jitter: returns a number between its two arguments.
    """

    __slots__ = ("_deadline", "_jitter", "_longest", "_not_found_deadline", "_policy")

    def __init__(
        self, policy: DeliveryPolicy, now: float, *, jitter: Callable[[float, float], float] = uniform
    ) -> None:
        self._policy = policy
        self._jitter = jitter
        self._longest = policy.first_pause
        self._deadline = now + policy.limit
        self._not_found_deadline = now + min(policy.limit, _NOT_FOUND_SECONDS)

    def pause(self, now: float, *, status: int | None = None, retry_after: float | None = None) -> float | None:
        """Return the seconds until the next attempt, or None to give up.

        Args:
            now: the clock's seconds.
            status: the HTTP status of the failed attempt, if there was an answer.
            retry_after: the seconds that the answer asked for.
        """
        pause = self._jitter(0.0, self._longest)
        if retry_after is not None:
            pause += retry_after
        self._longest = min(self._longest * 2, self._policy.longest_pause)
        deadline = self._not_found_deadline if status == 404 else self._deadline
        return pause if now + pause < deadline else None

    def hurry(self, deadline: float) -> None:
        """Give up at this time of the clock at the latest."""
        self._deadline = min(self._deadline, deadline)
