"""Events on their way into a run, posted to the receiver or carried back by a backend: one way for both.

Everything is checked before the next thing is touched: signature and size; then the body is compared with its digest;
then it must be JSON about an open run; and only then is a value unpickled.
"""

import asyncio
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from wove.backend.bodies import Body
from wove.backend.callbacks import RUN_OVER, Acceptance, Callback, Refusal, Run, too_large
from wove.backend.frames import check_frame, frame_from_bytes
from wove.backend.loop import is_io_loop, on_io_loop
from wove.backend.returned import unpack_outcome
from wove.backend.runs import Arrival
from wove.backend.signing import EVENT_REQUEST, TOLERANCE_SECONDS, EventSignature, read_signature, verify_event
from wove.backend.threads import in_daemon_thread
from wove.backend.types import FINAL_EVENTS
from wove.errors import SignatureError

# Parsing and unpickling more than this holds up an event loop noticeably.
_LARGE = 256 * 1024
_LONGEST_LEASE = 7 * 24 * 3600.0


@dataclass(frozen=True, slots=True)
class Sender:
    """What the headers of an event say about its sender, verified.

    Attributes:
        signature: None for an unsigned event.
        lease: seconds that the worker promises to be heard within, if it does.
        repeats: the run, where this is its final event once more; the body need not be read for that.
    """

    signature: EventSignature | None
    lease: float | None = None
    repeats: Run | None = None


def sender_of(
    callback: Callback, headers: Mapping[str, str], *, length: int | None, tolerance: float = TOLERANCE_SECONDS
) -> Sender:
    """Return the sender of an event. Nothing of its body is needed for that.

    Args:
        callback: where it arrives.
        headers: header values by lower-case name.
        length: bytes of the body, where they are announced.
        tolerance: seconds that the worker's clock may differ from this one.

    Raises:
        Refusal: the event is not accepted, whatever its body is.
    """
    signature = signature_in(headers)
    if signature is not None:
        run = signing_run(callback, signature, length=length, request=EVENT_REQUEST, tolerance=tolerance)
        if run.over:
            return Sender(signature, repeats=_repeated(run, signature))
    elif not callback.takes_unsigned:
        raise Refusal(401, "Events must be signed here.")
    if length is not None and length > callback.max_bytes:
        raise Refusal(413, too_large(length, callback.max_bytes))
    return Sender(signature, _announced_lease(headers))


async def take_outcome(callback: Callback, run_id: str, outcome: bytes) -> None:
    """Take the final event of a run that a backend has carried back as its job's result.

    The same holds for it as for an event that is posted, with two exceptions. The worker's clock does not matter: a run
    takes one final event, so there is nothing that could be gained by keeping one back. And it must be signed in any
    case: it comes without the token, and Wove's workers have the run's key.

    Raises:
        Refusal: it is not accepted.
    """
    try:
        headers, data = unpack_outcome(outcome)
    except ValueError as error:
        raise Refusal(400, str(error)) from None
    sender = sender_of(callback, headers, length=len(data), tolerance=math.inf)
    if sender.signature is None:
        raise Refusal(401, "An outcome that a backend carries back must be signed.")
    if sender.repeats is None:
        await take_event(callback, Body(data), sender, only=run_id)


async def take_event(callback: Callback, body: Body, sender: Sender, *, only: str | None = None) -> Run:
    """Take an event whose sender is known, and pass it on if it is new. On any loop.

    Args:
        callback: where it arrives.
        body: the event.
        sender: from `sender_of`.
        only: the run whose final event it must be; None takes any event.

    Raises:
        Refusal: it is not accepted.
    """
    signature = sender.signature
    if signature is not None and body.digest != signature.digest:
        raise Refusal(401, "The body is not the one that was signed.")
    payload = await _parsed(body)
    if signature is not None and payload["run_id"] != signature.run_id:
        raise Refusal(401, "The event is about another run than the one that signed it.")
    if only is not None and (payload["run_id"] != only or payload["type"] not in FINAL_EVENTS):
        raise Refusal(400, "A job's result must be the final event of its own run.")
    arrival = Arrival(
        kind=payload["type"],
        now=time.monotonic(),
        identity=signature.event_id if signature else body.digest,
        worker=signature.worker_id if signature else None,
        sequence=signature.sequence if signature else 0,
        lease=sender.lease,
    )
    if is_io_loop(asyncio.get_running_loop()):
        return await _accepted(callback, payload, arrival, body.size)
    return await on_io_loop(_accepted(callback, payload, arrival, body.size))


async def _parsed(body: Body) -> dict[str, Any]:
    try:
        if body.in_memory and body.size <= _LARGE:
            payload = frame_from_bytes(body.read())
        else:
            payload = await in_daemon_thread(lambda: frame_from_bytes(body.read()))
        check_frame(payload)
    except ValueError as error:
        raise Refusal(400, str(error)) from None
    return payload


async def _accepted(callback: Callback, payload: dict[str, Any], arrival: Arrival, size: int) -> Run:
    """Decide on an event and pass it on if it is new. On the background loop."""
    acceptance = callback.accept(payload, arrival, size=size)
    if acceptance.deliver and size <= _LARGE:
        acceptance.run.inbox.put(acceptance.frame(payload))
    elif acceptance.deliver:
        # A task of its own: the event has been accepted, so it arrives even if its request is cancelled now.
        await asyncio.shield(acceptance.run.inbox.spawn(_deliver_large(acceptance, payload)))
    return acceptance.run


async def _deliver_large(acceptance: Acceptance, payload: dict[str, Any]) -> None:
    inbox = acceptance.run.inbox
    # Several at once would take their memory several times over and end no sooner.
    async with inbox.unpickling:
        inbox.put(await in_daemon_thread(acceptance.frame, payload))


def signature_in(headers: Mapping[str, str]) -> EventSignature | None:
    """Return what the signature headers say; malformed ones are refused."""
    try:
        return read_signature(headers)
    except SignatureError as error:
        raise Refusal(401, str(error)) from None


def signing_run(
    callback: Callback,
    signature: EventSignature,
    *,
    length: int | None,
    request: str,
    tolerance: float = TOLERANCE_SECONDS,
) -> Run:
    """Return the run whose key signed a request.

    Raises:
        Refusal: there is no such run, or the signature is not its worker's.
    """
    if length is None:
        raise Refusal(401, "A signed event needs a content-length, which is a part of what is signed.")
    run = callback.find(signature.run_id)
    if run is None:
        raise Refusal(410, RUN_OVER)
    try:
        verify_event(signature, run.key, length=length, now=time.time(), tolerance=tolerance, request=request)
    except SignatureError as error:
        raise Refusal(401, str(error)) from None
    return run


def _repeated(run: Run, signature: EventSignature) -> Run:
    """Return a run that is over if this is its final event once more; its body need not be read for that."""
    if run.state.final != signature.event_id:
        raise Refusal(410, RUN_OVER)
    return run


def _announced_lease(headers: Mapping[str, str]) -> float | None:
    text = headers.get("wove-lease")
    if text is None:
        return None
    try:
        lease = float(text)
    except ValueError:
        lease = 0.0
    if not 0 < lease <= _LONGEST_LEASE:  # Not true of NaN either.
        raise Refusal(400, "The header wove-lease must hold a positive number of seconds.")
    return lease
