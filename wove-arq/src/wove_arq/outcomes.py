"""Small outcomes that ARQ's Redis carries from workers to the adapter: what both sides know of them.

Each adapter has a stream of its own in Redis, on which it waits. The field of an entry is the run's id, its value the
outcome. It stays there until the adapter has it, so that nothing is lost with a connection.
"""

import re
from collections.abc import Mapping
from typing import Any

# Beside the keys of ARQ, for servers that allow a user nothing else.
_PREFIX = "arq:wove:outcomes:"
_NAME = re.compile(r"[0-9a-f]{32}")
# More of the payload than Wove's core has put into it.
FIELD = "arq_outcomes"
# What is larger is posted: Redis serves one client at a time.
LARGEST = 64 * 1024
# As long as a worker tries to post one, for an adapter that is away for so long, and for one that has ended.
KEPT_SECONDS = 600
# What ARQ's count of tries becomes with an outcome: whoever is given the job again has nothing to do.
CARRIED_TRIES = -1_000_000


def stream_of(name: str) -> str:
    """Return the key of a stream.

    Args:
        name: 32 hexadecimal digits.
    """
    return _PREFIX + name


def asking(payload: Mapping[str, Any], name: str, most: int) -> Mapping[str, Any]:
    """Return a payload that asks for its outcome in a stream, if that takes up to so many bytes.

    A payload that is signed is left as it is: where the readers of Redis are not trusted, results do not go there.
    """
    return payload if _is_signed(payload) else {**payload, FIELD: [name, most]}


def asked(payload: Mapping[str, Any]) -> tuple[Mapping[str, Any], str | None, int]:
    """Return a payload as it was before `asking`, the key of the stream, and the size.

    The key is None where the payload does not ask, or for something that could be a key of somebody else.
    """
    if FIELD not in payload or _is_signed(payload):
        return payload, None, 0
    rest = dict(payload)
    match rest.pop(FIELD):
        case [str(name), int(most)] if _NAME.fullmatch(name) and most > 0:
            return rest, stream_of(name), min(most, LARGEST)
    return rest, None, 0


def _is_signed(payload: Mapping[str, Any]) -> bool:
    return bool(payload.get("callback_security"))
