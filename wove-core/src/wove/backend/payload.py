"""The payload: one selected task as a JSON-safe dict that a backend carries unchanged to its worker.

A payload that is larger than the backend allows is split: the pickles stay with the callback receiver, and the small
rest holds a claim, with which the worker fetches and verifies them.
"""

import base64
import binascii
import hashlib
import hmac
import json
from collections.abc import Mapping
from typing import Any, cast

from wove.backend.types import Payload
from wove.errors import PayloadTooLargeError, SerializationError
from wove.serialization import PYTHON_VERSION, describe, dumps, encode

PAYLOAD_VERSION = 1

_CLAIMED = ("callable_pickle", "args_pickle")


def build_backend_payload(frame: Mapping[str, Any], *, callback_url: str, adapter: str) -> Payload:
    """Build the payload that a backend worker executes from a ``run_task`` frame.

    An idempotency key that is still a callable concerns the submitting side alone and is left out of ``delivery``.

    Args:
        frame: a ``run_task`` frame with ``run_id``, ``task_id``, ``callable`` and ``args``; one that also has
            ``callable_pickle`` (from `pickled_callable`) saves pickling the callable again.
        callback_url: the URL to which the worker posts events.
        adapter: the name of the adapter that will submit it.

    Raises:
        SerializationError: the callable or an argument cannot be pickled, or the delivery policy is not JSON; the
            message names the task.
        ValueError: the frame is no ``run_task`` frame or lacks a key.
    """
    if frame.get("type", "run_task") != "run_task":
        raise ValueError(f"A payload is built from a run_task frame, not from {frame['type']!r}.")
    for key in ("run_id", "task_id", "callable"):
        if key not in frame:
            raise ValueError(f"A run_task frame needs {key!r}; this one has: {', '.join(sorted(frame))}.")
    task_name = frame.get("task_name") or frame["task_id"]
    callable_pickle = frame.get("callable_pickle") or pickled_callable(frame["callable"], task_name)
    return {
        "version": PAYLOAD_VERSION,
        "adapter": adapter,
        "callback_url": callback_url,
        "run_id": frame["run_id"],
        "task_id": frame["task_id"],
        "task_name": task_name,
        "callable_pickle": callable_pickle,
        "args_pickle": encode(dumps(dict(frame.get("args") or {}), what=f"the arguments of task {task_name!r}")),
        "delivery": _json_safe_delivery(frame.get("delivery") or {}, task_name),
        "attempt": frame.get("attempt", 1),
        "deadline": frame.get("deadline"),
        "trace": dict(frame.get("trace") or {}),
        "python": PYTHON_VERSION,
    }


def pickled_callable(function: object, task_name: str) -> str:
    """Return a task's callable as it stands in a payload.

    Raises:
        SerializationError: it cannot be pickled; the message names the task.
    """
    return encode(dumps(function, what=f"the callable of task {task_name!r}"))


def payload_to_b64(payload: Mapping[str, Any]) -> str:
    """Encode a payload as base64 text for an environment variable or a command line."""
    return base64.b64encode(_json(payload)).decode("ascii")


def payload_from_b64(value: str) -> Payload:
    """Decode what `payload_to_b64` made; surrounding white space does not matter.

    Raises:
        ValueError: it is not base64 of a JSON object. The message does not repeat the value.
    """
    try:
        payload = json.loads(base64.b64decode(value.strip(), validate=True))
    except (binascii.Error, UnicodeError):
        raise ValueError("A backend payload is base64 text; this value is not.") from None
    except (ValueError, RecursionError):
        raise ValueError("A backend payload is base64 of JSON; this value is base64 of something else.") from None
    if not isinstance(payload, dict):
        raise ValueError(f"A backend payload is a JSON object, not {type(payload).__name__}.")
    return cast(Payload, payload)


def payload_size(payload: Mapping[str, Any]) -> int:
    """Return the bytes of JSON that a payload takes."""
    # Base64 stands in JSON as it is, so megabytes of it need not be dumped to be counted.
    pickles = {name: payload[name] for name in _CLAIMED if name in payload}
    return len(_json({**payload, **dict.fromkeys(pickles, "")})) + sum(map(len, pickles.values()))


def split_payload(payload: Mapping[str, Any], limit: int | None) -> tuple[Payload, bytes | None]:
    """Split a payload that is larger than a backend carries.

    Args:
        payload: a complete payload.
        limit: bytes of JSON that the backend carries; None for any number.

    Returns:
        The payload itself and None if it fits; else the small payload, which holds a ``claim`` instead of the pickles,
        and the body that the receiver keeps until the worker fetches it.

    Raises:
        PayloadTooLargeError: even the small payload does not fit.
    """
    if limit is None or payload_size(payload) <= limit:
        return cast(Payload, payload), None
    # What `_json` would make of it, without holding the interpreter's lock over megabytes of base64.
    body = b"".join((b'{"', b', "'.join(_member(name, payload[name]) for name in _CLAIMED), b"}"))
    small = {name: value for name, value in payload.items() if name not in _CLAIMED}
    small["claim"] = {"digest": hashlib.sha256(body).hexdigest(), "size": len(body)}
    size = payload_size(small)
    if size > limit:
        what = f"The payload of task {payload.get('task_name')!r}, without its callable and arguments,"
        raise PayloadTooLargeError(what, size=size, limit=limit, advice="Raise the adapter's max_payload_bytes.")
    return cast(Payload, small), body


def join_payload(small: Mapping[str, Any], body: bytes) -> Payload:
    """Put a fetched body back into the payload that claims it.

    Raises:
        ValueError: the body is not the one that was claimed.
    """
    claim = small["claim"]
    digest = hashlib.sha256(body).hexdigest()
    if len(body) != claim["size"] or not hmac.compare_digest(digest, str(claim["digest"])):
        raise ValueError(
            f"The claimed part of the payload of task {small.get('task_name')!r} is not what was submitted: "
            f"{len(body):,} bytes with another digest instead of {claim['size']:,} bytes."
        )
    claimed = json.loads(body)
    whole = {name: value for name, value in small.items() if name != "claim"}
    return cast(Payload, {**whole, **{name: claimed[name] for name in _CLAIMED}})


def _member(name: str, base64_text: str) -> bytes:
    return f'{name}": "{base64_text}"'.encode("ascii")


def _json(value: object) -> bytes:
    try:
        return json.dumps(value).encode("ascii")
    except (TypeError, ValueError, RecursionError) as error:
        raise SerializationError(f"A payload holds a value that is not JSON ({describe(error)}).") from error


def _json_safe_delivery(delivery: Mapping[str, Any], task_name: str) -> dict[str, Any]:
    if not delivery:
        return {}
    safe = {name: value for name, value in delivery.items() if not callable(value)}
    try:
        json.dumps(safe, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise SerializationError(
            f"The delivery policy of task {task_name!r} is not JSON ({describe(error)})."
        ) from error
    return safe
