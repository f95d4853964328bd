"""The one codec of frames: Python objects on this side, JSON-safe dicts and bytes on the other.

Callables, arguments, results and exceptions travel as base64 of cloudpickle under ``callable_pickle``, ``args_pickle``,
``result_pickle``, ``exception_pickle`` and ``error_pickle``; everything else is plain JSON. Only the pickle fields that
belong to a frame's type are ever looked at. Nothing here authenticates: whoever decodes a frame has done so before.
"""

import json
import threading
from collections.abc import Mapping
from typing import Any

from wove.backend.encoded import LARGE, EncodedFile, parse_json
from wove.backend.failures import normalize_exception
from wove.backend.types import EVENT_TYPES, FINAL_EVENTS
from wove.errors import SerializationError, did_you_mean
from wove.serialization import PYTHON_VERSION, decode, describe, dumps, encode, loads

MAX_ID_LENGTH = 255

# Which values of which frame type are pickled, and what they are called in an error.
_PICKLED: Mapping[str, Mapping[str, str]] = {
    "run_task": {"callable": "the callable", "args": "the arguments"},
    "task_result": {"result": "the result"},
}
_SUFFIX = "_pickle"
_compact = json.JSONEncoder(separators=(",", ":")).encode


class Part:
    """Words for a part of a frame, put together only if an error needs them."""

    __slots__ = ("_frame", "_name")

    def __init__(self, name: str, frame: Mapping[str, Any]) -> None:
        self._name = name
        self._frame = frame

    def __str__(self) -> str:
        return f"{self._name} of {whose(self._frame)}"


def serialize_frame(frame: Mapping[str, Any], *, pickles: bool = True) -> dict[str, Any]:
    """Turn a command or event frame into a JSON-safe dict.

    An exception that cannot be pickled is replaced by the plain ``error`` of its frame, which is made if it is missing.

    Args:
        frame: a frame with its Python values, e.g. ``{"type": "task_result", "run_id": ..., "result": 42}``.
        pickles: False leaves values as they are, so they must be JSON already, and sends an exception as ``error``
            alone.

    Raises:
        SerializationError: a value cannot travel; the message names the task and the innermost part that cannot.
        ValueError: the frame has no type.
    """
    kind = _frame_type(frame)
    wire = dict(frame)
    if kind == "task_error":
        return _serialize_failure(wire, pickles=pickles)
    fields = _PICKLED.get(kind, {})
    for name, words in fields.items():
        if name in wire and pickles:
            wire[name + _SUFFIX] = encode(dumps(wire.pop(name), what=Part(words, frame)))
            wire["python"] = PYTHON_VERSION
        elif name in wire:
            _require_json(wire[name], what=Part(words, frame))
    return wire


def deserialize_frame(payload: Mapping[str, Any], *, pickles: bool = True) -> dict[str, Any]:
    """Turn a JSON-safe dict back into a frame with its Python values.

    Pickle fields that do not belong to the frame's type are dropped unread. An exception that cannot be rebuilt leaves
    the frame's plain ``error`` in its place.

    Args:
        payload: what `serialize_frame` made, or a frame with plain ``result`` and ``error`` values.
        pickles: False refuses to unpickle anything.

    Raises:
        ValueError: the frame is malformed, or carries its value as a pickle although pickles are refused.
        SerializationError: a value cannot be rebuilt here; the message names the task and, where that is the reason,
            the missing module.
    """
    kind = check_frame(payload)
    frame = dict(payload)
    frame.pop("python", None)
    for name in payload:
        # The first question spares most names the second one.
        if _SUFFIX in name and name.endswith(_SUFFIX):
            del frame[name]
    if kind == "task_error":
        return _deserialize_failure(frame, payload, pickles=pickles)
    for name, words in _PICKLED.get(kind, {}).items():
        if name + _SUFFIX in payload:
            frame[name] = _unpickle(payload, name, words, pickles=pickles)
        elif name not in frame:
            raise ValueError(f"A {kind} frame needs {name + _SUFFIX!r}: {whose(payload)} has none.")
    return frame


def deserialize_event(payload: Mapping[str, Any], *, pickles: bool = True) -> dict[str, Any]:
    """Decode a worker's event like `deserialize_frame`, but turn a final event that cannot be decoded into a
    ``task_error`` frame of its run, so that the run ends with the reason instead of in silence.

    Raises:
        ValueError: the frame is malformed and not a final event of any run.
    """
    kind = check_frame(payload)
    try:
        return deserialize_frame(payload, pickles=pickles)
    except BaseException as error:
        # A pickle may raise anything, SystemExit too; only the user's own Ctrl-C is not the pickle's doing.
        if isinstance(error, KeyboardInterrupt) and threading.current_thread() is threading.main_thread():
            raise
        if kind not in FINAL_EVENTS:
            raise
        return error_frame(payload, error)


def error_frame(event: Mapping[str, Any], error: BaseException) -> dict[str, Any]:
    """Return the ``task_error`` frame that takes the place of an event which could not be decoded."""
    return {
        "type": "task_error",
        "run_id": event["run_id"],
        "task_id": event.get("task_id"),
        "error": normalize_exception(error, source="transport"),
    }


def check_frame(payload: object) -> str:
    """Check a received frame's shape, never its pickles, and return its type.

    Raises:
        ValueError: it is no dict, or its type, run id or task id is missing or misshapen.
    """
    if not isinstance(payload, Mapping):
        raise ValueError(f"A frame is a JSON object, not {type(payload).__name__}.")
    kind = _frame_type(payload)
    if kind != "shutdown":
        _check_id(payload.get("run_id"), "run_id", kind)
    if payload.get("task_id") is not None:
        _check_id(payload["task_id"], "task_id", kind)
    return kind


def check_event_type(kind: str) -> None:
    """Raise ValueError unless `kind` is an event that a worker may send."""
    if kind not in EVENT_TYPES:
        known = ", ".join(sorted(EVENT_TYPES))
        raise ValueError(f"No event is of type {kind[:80]!r}.{did_you_mean(kind[:80], EVENT_TYPES)} Types: {known}.")


def frame_to_bytes(frame: Mapping[str, Any], *, pickles: bool = True) -> bytes:
    """Return a frame as bytes of JSON without line breaks; raises what `serialize_frame` raises."""
    return json_to_bytes(serialize_frame(frame, pickles=pickles))


def frame_from_bytes(data: bytes) -> dict[str, Any]:
    """Return the JSON object in `data`, its pickles still encoded. A large one may be a view of `data` instead of text.

    Raises:
        ValueError: it is no JSON object, or nested too deeply.
    """
    payload = parse_json(data)
    if not isinstance(payload, dict):
        raise ValueError(f"A frame is a JSON object, not {type(payload).__name__}.")
    return payload


def frames_from_bytes(data: bytes) -> list[dict[str, Any]]:
    """Return the frames in `data`, their pickles still encoded: one object, a list, or ``{"events": [...]}``; none for
    empty data.

    Raises:
        ValueError: it is anything else.
    """
    if not data.strip():
        return []
    found = parse_json(data)
    if isinstance(found, dict) and "events" in found and "type" not in found:
        found = found["events"]
    frames = found if isinstance(found, list) else [found]
    for frame in frames:
        if not isinstance(frame, dict):
            raise ValueError(f"A frame is a JSON object, not {type(frame).__name__}.")
    return frames


def json_to_bytes(value: object) -> bytes:
    """Return compact ASCII JSON; lone surrogates survive as escapes.

    Raises:
        SerializationError: the value is not JSON-safe.
    """
    try:
        return _compact(value).encode("ascii")
    except (TypeError, ValueError, RecursionError) as error:
        raise SerializationError(f"A frame holds a value that is not JSON ({describe(error)}).") from error


def _frame_type(frame: Mapping[str, Any]) -> str:
    kind = frame.get("type")
    if not isinstance(kind, str) or not kind:
        raise ValueError(f"A frame needs a 'type' that is a string, not {type(kind).__name__}.")
    return kind


def _check_id(value: object, name: str, kind: str) -> None:
    if not isinstance(value, str) or not value:
        raise ValueError(f"A {kind[:80]} frame needs a {name!r} that is a string, not {type(value).__name__}.")
    if len(value) > MAX_ID_LENGTH:
        raise ValueError(f"The {name!r} of a frame has {len(value)} characters; at most {MAX_ID_LENGTH} are allowed.")


def _serialize_failure(wire: dict[str, Any], *, pickles: bool) -> dict[str, Any]:
    exception = wire.pop("exception", None)
    if exception is not None:
        wire.setdefault("error", normalize_exception(exception, source="task"))
        if pickles:
            try:
                wire["exception_pickle"] = encode(dumps(exception, what=Part("the exception", wire)))
            except SerializationError:
                pass  # The plain error says what happened.
    if "error" in wire:
        try:
            json.dumps(wire["error"])
        except (TypeError, ValueError, RecursionError):
            if not pickles:
                raise SerializationError(f"Cannot send {Part('the error', wire)}: it is not JSON.") from None
            wire["error_pickle"] = encode(dumps(wire.pop("error"), what=Part("the error", wire)))
    if pickles:
        wire["python"] = PYTHON_VERSION
    return wire


def _deserialize_failure(frame: dict[str, Any], payload: Mapping[str, Any], *, pickles: bool) -> dict[str, Any]:
    if "error_pickle" in payload and "error" not in frame:
        frame["error"] = _unpickle(payload, "error", "the error", pickles=pickles)
    if "error" in frame:
        frame["error"] = _as_error_dict(frame["error"], payload)
    if "exception_pickle" in payload and (pickles or "error" not in frame):
        try:
            frame["exception"] = _exception(payload, pickles=pickles)
        except (SerializationError, ValueError) as error:
            # The plain error holds the original text; without one, at least the reason is known.
            frame.setdefault("error", normalize_exception(error, source="transport"))
    elif not isinstance(frame.get("exception"), BaseException):
        frame.pop("exception", None)
    if "error" not in frame and "exception" not in frame:
        raise ValueError(f"A task_error frame needs 'error' or 'exception_pickle': {whose(payload)} has neither.")
    return frame


def _exception(payload: Mapping[str, Any], *, pickles: bool) -> BaseException:
    rebuilt = _unpickle(payload, "exception", "the exception", pickles=pickles)
    if not isinstance(rebuilt, BaseException):
        raise ValueError(f"The 'exception_pickle' of {whose(payload)} holds a {type(rebuilt).__name__}.")
    return rebuilt


def _unpickle(payload: Mapping[str, Any], name: str, words: str, *, pickles: bool) -> Any:
    field = name + _SUFFIX
    if not pickles:
        plain = "error" if name == "exception" else name
        raise ValueError(
            f"Pickles are refused (results='json'), but {whose(payload)} sent {field!r}: "
            f"send {plain!r} as a JSON value."
        )
    text = payload[field]
    if not isinstance(text, str | memoryview):
        raise ValueError(f"The {field!r} of {whose(payload)} is not a base64 string but {type(text).__name__}.")
    try:
        if isinstance(text, str) and len(text) >= LARGE:
            text = memoryview(text.encode("ascii"))
        data = decode(text) if isinstance(text, str) else EncodedFile(text)
    except ValueError:
        raise ValueError(f"The {field!r} of {whose(payload)} is not base64.") from None
    origin = payload.get("python")
    return loads(data, what=Part(words, payload), origin=origin if isinstance(origin, str) else None)


def _as_error_dict(error: object, payload: Mapping[str, Any]) -> dict[str, Any]:
    if isinstance(error, Mapping):
        return dict(error)
    if isinstance(error, BaseException):
        return dict(normalize_exception(error))
    if isinstance(error, str):
        return {"kind": "Error", "message": error, "traceback": "", "retryable": False, "source": "task"}
    raise ValueError(f"The 'error' of {whose(payload)} is not a JSON object but {type(error).__name__}.")


def _require_json(value: object, *, what: object) -> None:
    try:
        json.dumps(value)
    except (TypeError, ValueError, RecursionError) as error:
        raise SerializationError(f"Cannot send {what} as JSON (results='json'): {describe(error)}.") from error


def whose(frame: Mapping[str, Any]) -> str:
    """Return words for the task that a frame is about."""
    return f"task {frame.get('task_name') or frame.get('task_id') or frame.get('run_id')!r}"
