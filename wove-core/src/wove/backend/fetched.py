"""Arguments that stay with the callback receiver, apart from their payloads: a worker process fetches each once,
however many runs need it.
"""

import hashlib
import hmac
import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from wove.backend.events import EventSender
from wove.backend.payload import join_payload

# So much is kept for later runs.
_MOST_BYTES = 256 * 1024 * 1024


class FetchedValues:
    """The arguments that this process has fetched, as pickles. Any thread.

    Args:
        most_bytes: beyond it, those that were not asked for the longest are forgotten.
    """

    def __init__(self, most_bytes: int = _MOST_BYTES) -> None:
        self._most_bytes = most_bytes
        self._lock = threading.Lock()
        self._values: OrderedDict[str, bytes] = OrderedDict()
        self._fetching: dict[str, threading.Lock] = {}

    def collect(
        self, tickets: Sequence[Mapping[str, Any]], fetch: Callable[[str, int], bytes | None]
    ) -> dict[str, bytes] | None:
        """Return the arguments that a payload lists, by their digests; None where nobody wants the run executed.

        Args:
            tickets: the payload's ``apart``: ``digest`` (hexadecimal SHA-256) and ``size`` of each.
            fetch: fetches one by digest and size; raises what is to be raised here.

        Raises:
            ValueError: what was fetched is not what the payload lists.
        """
        values: dict[str, bytes] = {}
        for ticket in tickets:
            digest, size = str(ticket["digest"]), int(ticket["size"])
            value = self._get(digest, partial(fetch, digest, size))
            if value is None:
                return None
            values[digest] = value
        return values

    def _get(self, digest: str, fetch: Callable[[], bytes | None]) -> bytes | None:
        with self._lock:
            fetching = self._fetching.setdefault(digest, threading.Lock())
        # Many runs of a map begin at the same time: one fetches, the others wait for it.
        with fetching:
            with self._lock:
                known = self._values.get(digest)
                if known is not None:
                    self._values.move_to_end(digest)
                    return known
            value = fetch()
            if value is not None:
                if not hmac.compare_digest(hashlib.sha256(value).hexdigest(), digest):
                    raise ValueError(f"An argument of {len(value):,} bytes is not the one that was submitted.")
                self._keep(digest, value)
            return value

    def _keep(self, digest: str, value: bytes) -> None:
        with self._lock:
            self._values[digest] = value
            while sum(map(len, self._values.values())) > self._most_bytes:
                forgotten, _ = self._values.popitem(last=False)
                self._fetching.pop(forgotten, None)


_values = FetchedValues()


def fetched_values() -> FetchedValues:
    """Return those of this process."""
    return _values


def fetch_missing(
    payload: Mapping[str, Any], sender: EventSender
) -> tuple[Mapping[str, Any], Mapping[str, bytes] | None] | None:
    """Fetch what of a payload waits at the receiver.

    Returns:
        The whole payload, and the arguments apart from it; None where they are not given to this worker.

    Raises:
        EventRefusedError: the receiver refuses to give them.
        DeliveryGivenUpError: the receiver was not reached.
        ValueError, KeyError, TypeError: the payload, or what was fetched, is malformed.
    """
    claim, tickets = payload.get("claim"), payload.get("apart")
    if claim:
        body = sender.fetch(claim["size"])
        if body is None:
            return None
        payload = join_payload(payload, body)
    if not tickets:
        return payload, None
    apart = fetched_values().collect(tickets, lambda digest, size: sender.fetch(size, apart=digest))
    return None if apart is None else (payload, apart)


def _forget_after_fork() -> None:
    # A lock may have been held by a thread that does not exist in the child.
    global _values
    _values = FetchedValues()


os.register_at_fork(after_in_child=_forget_after_fork)
