"""The outcome of a run as the result of its job: for backends that carry results back to whoever submitted the job.

The headers of the event as a line of JSON, and its body: what would otherwise be posted.
"""

import json
from collections.abc import Mapping

# Those of Wove's workers are a few hundred bytes; what has no such line would be parsed whole.
_LONGEST_HEADERS = 8 * 1024


def pack_outcome(headers: Mapping[str, str], body: bytes) -> bytes:
    """Return a final event as bytes.

    Args:
        headers: the headers that it would be posted with.
        body: JSON.
    """
    return b"%b\n%b" % (json.dumps(headers).encode("ascii"), body)


def unpack_outcome(outcome: bytes) -> tuple[dict[str, str], bytes]:
    """Return the headers, by lower-case name, and the body of a final event.

    Raises:
        ValueError: `outcome` is something else.
    """
    if not isinstance(outcome, bytes):
        raise ValueError(f"An outcome is what run() returns, bytes, not {type(outcome).__name__}.")
    head, _, body = outcome.partition(b"\n")
    if len(head) > _LONGEST_HEADERS:
        raise ValueError("The job's result is no outcome: its first line is too long.")
    try:
        headers = json.loads(head)
    except (ValueError, RecursionError):
        raise ValueError("The job's result is no outcome: its first line is not JSON.") from None
    if not isinstance(headers, dict) or not all(isinstance(value, str) for value in headers.values()):
        raise ValueError("The job's result is no outcome: its first line holds no headers.")
    return {name.lower(): value for name, value in headers.items()}, body
