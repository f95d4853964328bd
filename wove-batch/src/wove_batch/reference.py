"""What the environment of a job says about a payload that is in S3. Shared by both sides.

JSON: ``url`` and ``region``; ``size`` and ``digest`` (SHA-256, hexadecimal) of what is to be read at the beginning of
the object. That is the payload itself or, where ``array`` is true, a list with the place, size and digest of the
payload of each element: ``[[start, size, digest], ...]``, counted from the end of the list.
"""

import hashlib
import json
from collections.abc import Sequence
from typing import NotRequired, TypedDict

REFERENCE_VARIABLE = "WOVE_BATCH_PAYLOAD"
_NEEDED = {"url", "region", "size", "digest"}


class Reference(TypedDict):
    """Where a payload is."""

    url: str
    region: str
    size: int
    digest: str
    array: NotRequired[bool]


def digest_of(body: bytes) -> str:
    """Return the SHA-256 of some bytes, hexadecimal."""
    return hashlib.sha256(body).hexdigest()


def directory_of(bodies: Sequence[bytes]) -> bytes:
    """Return the list that stands before the payloads of an array job."""
    entries, start = [], 0
    for body in bodies:
        entries.append([start, len(body), digest_of(body)])
        start += len(body)
    return json.dumps(entries, separators=(",", ":")).encode()


def read_reference(text: str) -> Reference:
    """Return what a job's variable says.

    Raises:
        ValueError: it does not say where the payload is.
    """
    try:
        found = json.loads(text)
    except ValueError:
        found = None
    if not isinstance(found, dict) or not found.keys() >= _NEEDED:
        raise ValueError(
            f"The variable {REFERENCE_VARIABLE} does not say where the payload is. The adapter sets it, for jobs of an "
            "environment with 'payload_bucket'; jobs of others run python -m wove.backend_worker."
        )
    reference: Reference = found  # type: ignore[assignment]
    return reference
