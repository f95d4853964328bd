"""Signatures of the callback path: events of a worker, requests for a claimed body, and payloads on their way out.

Pure functions; both sides use them. Header names and the meaning of the parts follow https://www.standardwebhooks.com,
with the body's digest and length in place of the body, so that a receiver can check a signature before it reads one
byte of it.
"""

import base64
import binascii
import hashlib
import hmac
import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass

from wove.errors import ConfigurationError, SignatureError

# A constant in place of the URL's path: a proxy in front of the receiver may rewrite the path.
EVENT_REQUEST = "POST /wove/events"
CLAIM_REQUEST = "GET /wove/events"
EMPTY_DIGEST = hashlib.sha256().hexdigest()

TOLERANCE_SECONDS = 300.0
# Standard Webhooks demands keys of 24 bytes at least.
SHORTEST_SECRET = 24

_ENVIRONMENT_PREFIX = "env:"
_DIGEST = re.compile(r"sha-256=([0-9a-f]{64})")
_LONGEST_HEADER = 1024


@dataclass(frozen=True, slots=True)
class EventSignature:
    """What the headers of a signed request say, not yet verified.

    Attributes:
        run_id: the run whose key must have made the signature.
        worker_id: the worker process that speaks.
        sequence: counts the events of this run and worker from 1; a repeated event keeps its number.
        timestamp: unix seconds.
        digest: SHA-256 of the body, hexadecimal.
        signatures: base64 signatures of version 1; one must match.
    """

    run_id: str
    worker_id: str
    sequence: int
    timestamp: int
    digest: str
    signatures: tuple[str, ...]

    @property
    def event_id(self) -> str:
        """The ``webhook-id``: the same for every repetition of an event, and for no other event."""
        return f"{self.run_id}.{self.worker_id}.{self.sequence}"


def derive_key(secret: bytes, run_id: str) -> str:
    """Return the key of one run: a hexadecimal HMAC that tells nothing about the secret or another run's key."""
    return hmac.new(secret, f"wove-run:{run_id}".encode(), hashlib.sha256).hexdigest()


def body_digest(body: bytes) -> str:
    """Return the SHA-256 of a body, hexadecimal."""
    return hashlib.sha256(body).hexdigest()


def sign_event(
    key: str,
    run_id: str,
    *,
    worker_id: str,
    sequence: int,
    timestamp: int,
    digest: str = EMPTY_DIGEST,
    length: int = 0,
    request: str = EVENT_REQUEST,
) -> dict[str, str]:
    """Return the headers that sign one request.

    Args:
        key: the run's key, from the payload or from `derive_key`.
        run_id: the run that the request is about.
        worker_id: any text without a dot that is unique to the worker process.
        sequence: the event's number; the same on every retry of the event.
        timestamp: unix seconds, fresh on every retry.
        digest: `body_digest` of the body.
        length: bytes of the body, as in ``content-length``.
        request: `EVENT_REQUEST` or `CLAIM_REQUEST`.
    """
    event_id = f"{run_id}.{worker_id}.{sequence}"
    return {
        "webhook-id": event_id,
        "webhook-timestamp": str(timestamp),
        "webhook-digest": f"sha-256={digest}",
        "webhook-signature": f"w1,{_signature(key, event_id, timestamp, request, digest, length)}",
    }


def read_signature(headers: Mapping[str, str]) -> EventSignature | None:
    """Return what the signature headers say, or None where a request has none of them.

    Args:
        headers: header values by lower-case name.

    Raises:
        SignatureError: some are there, but not all, or one is malformed.
    """
    names = ("webhook-id", "webhook-timestamp", "webhook-digest", "webhook-signature")
    values: list[str] = []
    for name in names:
        value = headers.get(name, "")
        if value and len(value) <= _LONGEST_HEADER and value.isascii():
            values.append(value)
        elif any(other in headers for other in names):
            raise SignatureError(f"The header {name} is missing or malformed.")
        else:
            return None
    event_id, timestamp, digest, signatures = values
    run_id, worker_id, sequence = _split_id(event_id)
    matched = _DIGEST.fullmatch(digest)
    if matched is None:
        raise SignatureError("The header webhook-digest must be sha-256=<64 hexadecimal digits>.")
    return EventSignature(
        run_id=run_id,
        worker_id=worker_id,
        sequence=sequence,
        timestamp=_whole_number(timestamp, "webhook-timestamp"),
        digest=matched[1],
        signatures=_signatures_of_version_1(signatures),
    )


def verify_event(
    signature: EventSignature,
    key: str,
    *,
    length: int,
    now: float,
    tolerance: float = TOLERANCE_SECONDS,
    request: str = EVENT_REQUEST,
) -> None:
    """Check that the run's key signed these headers, at about this time, for a body of this length.

    The caller still compares the digest with the body that it reads, and the sequence with those it has seen.

    Args:
        signature: from `read_signature`.
        key: the key of ``signature.run_id``.
        length: bytes of the body, as announced by ``content-length``.
        now: unix seconds.
        tolerance: seconds that the two clocks may differ.
        request: `EVENT_REQUEST` or `CLAIM_REQUEST`.

    Raises:
        SignatureError: the signature is another's, or too old or too new.
    """
    event_id = signature.event_id
    expected = _signature(key, event_id, signature.timestamp, request, signature.digest, length)
    # Every candidate is compared, so that the time taken tells nothing.
    if not sum(hmac.compare_digest(expected, given) for given in signature.signatures):
        raise SignatureError(f"The signature of event {event_id!r} does not match.")
    if abs(now - signature.timestamp) > tolerance:
        raise SignatureError(
            f"Event {event_id!r} was signed {now - signature.timestamp:+.0f} s ago; {tolerance:.0f} s are tolerated. "
            "Set the clocks of worker and receiver."
        )


def shared_secret(security: str, environ: Mapping[str, str] | None = None) -> bytes:
    """Return the secret that ``callback_security = "env:VAR"`` names.

    Args:
        security: the configuration value.
        environ: where to look; the process's environment if omitted.

    Raises:
        ConfigurationError: the variable is not set here, or holds fewer than 24 bytes.
    """
    variable = security.removeprefix(_ENVIRONMENT_PREFIX)
    if variable == security or not variable:
        raise ConfigurationError(f"callback_security must be 'signed' or 'env:NAME_OF_A_VARIABLE', not {security!r}.")
    secret = (os.environ if environ is None else environ).get(variable, "").encode()
    if len(secret) < SHORTEST_SECRET:
        state = f"holds only {len(secret)} bytes" if secret else "is not set"
        raise ConfigurationError(
            f"callback_security 'env:{variable}': the environment variable {variable} {state} here. Set the same "
            f"secret of at least {SHORTEST_SECRET} bytes where weaves run and where their tasks run."
        )
    return secret


def sign_payload(payload: Mapping[str, object], secret: bytes) -> str:
    """Return the hexadecimal signature over all of a payload but its field ``signature``.

    Equal JSON gives an equal signature, whatever the order of keys: a backend may decode and encode a payload on its
    way.
    """
    unsigned = {name: value for name, value in payload.items() if name != "signature"}
    canonical = json.dumps(unsigned, sort_keys=True, separators=(",", ":")).encode()
    return hmac.new(secret, b"wove-payload:" + canonical, hashlib.sha256).hexdigest()


def verify_payload(payload: Mapping[str, object], secret: bytes) -> None:
    """Check the field ``signature`` of a payload. Nothing in the payload may be unpickled before.

    Raises:
        SignatureError: it is missing or was made with another secret or for another payload.
    """
    given = payload.get("signature")
    if not isinstance(given, str) or not given.isascii():
        raise SignatureError(f"The payload of run {payload.get('run_id')!r} is not signed; it is not executed.")
    if not hmac.compare_digest(sign_payload(payload, secret), given):
        raise SignatureError(
            f"The signature of the payload of run {payload.get('run_id')!r} does not match; it is not executed. "
            "Worker and weave must hold the same secret."
        )


def _signature(key: str, event_id: str, timestamp: int, request: str, digest: str, length: int) -> str:
    signed = f"{event_id}\n{timestamp}\n{request}\n{digest}\n{length}"
    # Half the time of hmac.digest(), which asks OpenSSL for its digest by name every time.
    return base64.b64encode(hmac.new(key.encode(), signed.encode(), hashlib.sha256).digest()).decode("ascii")


def _split_id(event_id: str) -> tuple[str, str, int]:
    parts = event_id.rsplit(".", 2)
    if len(parts) != 3 or not all(parts):
        raise SignatureError("The header webhook-id must be <run id>.<worker id>.<sequence>.")
    return parts[0], parts[1], _whole_number(parts[2], "webhook-id")


def _whole_number(text: str, header: str) -> int:
    if not text.isdigit() or len(text) > 15:
        raise SignatureError(f"The header {header} must hold a whole number.")
    return int(text)


def _signatures_of_version_1(header: str) -> tuple[str, ...]:
    """Return the base64 texts of a list like ``w1,abc= w2,def=``; other versions are skipped."""
    found = tuple(item.removeprefix("w1,") for item in header.split(" ") if item.startswith("w1,"))
    for text in found:
        try:
            base64.b64decode(text, validate=True)
        except binascii.Error:
            raise SignatureError("The header webhook-signature is not base64.") from None
    if not found:
        raise SignatureError("The header webhook-signature holds no signature of version w1.")
    return found
