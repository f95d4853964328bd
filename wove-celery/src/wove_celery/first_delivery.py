"""Which messages a worker may begin without asking the weave: those that come for the first time, to a worker that
would know if they had been revoked.

The adapter notes the time of sending in a header. The worker's main process decides, when it receives the message, and
leaves a mark in the request, which the process that executes the task finds there.
"""

import time
from collections.abc import Mapping
from typing import Any

SENT_HEADER = "wove_sent"
# In place of the time, where a worker may have got the message before.
SENT_AGAIN = "again"
_MARK = "wove_received"

# Only these say in a way that Celery passes on that they deliver a message again.
_DRIVERS = ("amqp", "redis")
# How far the clocks of two hosts may be apart.
_CLOCKS_DIFFER = 5.0
# Celery forgets after three hours what was revoked.
_OLDEST_SECONDS = 3600.0
# What has waited for longer in this worker may have been revoked meanwhile.
_FRESH_SECONDS = 0.25


def mark(request: Any, *, driver: str, listening_since: float) -> None:
    """Mark a request if it is a first delivery; in the worker's main process.

    Args:
        request: Celery's, just received.
        driver: the kind of broker.
        listening_since: the time since when the worker has heard of everything that was revoked, in unix seconds.
    """
    fields = request.request_dict
    fields.pop(_MARK, None)
    sent = fields.get(SENT_HEADER)
    if driver not in _DRIVERS or not isinstance(sent, float):
        return
    again = request.delivery_info.get("redelivered") or fields.get("redelivered")
    # A message that is acknowledged after its task is delivered again while the task runs, if the connection breaks.
    if again or request.eta is not None or request.task.acks_late:
        return
    knows = sent - listening_since > _CLOCKS_DIFFER
    if knows and -_CLOCKS_DIFFER < time.time() - sent < _OLDEST_SECONDS:
        fields[_MARK] = time.monotonic()


def is_first_delivery(fields: Mapping[str, Any]) -> bool:
    """Tell whether a request was marked a moment ago; in the process that executes it.

    Args:
        fields: of Celery's request.
    """
    received = fields.get(_MARK)
    return isinstance(received, float) and 0.0 <= time.monotonic() - received < _FRESH_SECONDS


def was_sent_again(fields: Mapping[str, Any]) -> bool:
    """Tell whether a worker may have got the message before, because the adapter did not learn what became of it.

    Args:
        fields: of Celery's request.
    """
    return fields.get(SENT_HEADER) == SENT_AGAIN
