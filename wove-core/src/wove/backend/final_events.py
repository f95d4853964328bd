"""The final events of runs: what they say, and how they become bytes whatever the task returned or raised."""

from collections.abc import Mapping
from typing import Any

from wove.backend.failures import can_travel, normalize_exception
from wove.backend.frames import frame_to_bytes
from wove.backend.types import EventFrame
from wove.errors import PayloadTooLargeError


def error_event(
    ids: Mapping[str, Any], error: BaseException, *, source: str = "task", retryable: bool = False
) -> EventFrame:
    """Return the final event of a run that failed: always in plain words, and the exception where it can travel."""
    event: EventFrame = {
        "type": "task_error",
        "run_id": ids["run_id"],
        "task_id": ids["task_id"],
        "error": normalize_exception(error, source=source, retryable=retryable),
    }
    if can_travel(error):
        event["exception"] = error
    return event


def cancelled_event(ids: Mapping[str, Any]) -> EventFrame:
    """Return the final event of a run that was stopped."""
    return {"type": "task_cancelled", "run_id": ids["run_id"], "task_id": ids["task_id"]}


def final_event_bytes(event: EventFrame, *, pickles: bool = True, limit: int | None = None) -> bytes:
    """Encode a final event. What cannot travel becomes a ``task_error`` event that says so; this never raises.

    Args:
        event: what `TaskExecution` returned.
        pickles: False sends results and errors as plain JSON values.
        limit: the most bytes that the other side takes, where that is known.
    """
    try:
        data = frame_to_bytes(event, pickles=pickles)
    except BaseException as error:  # Pickling runs the user's own code.
        return _fallback(event, error, pickles=pickles)
    if limit is not None and len(data) > limit:
        return _fallback(event, too_large(event, size=len(data), limit=limit), pickles=pickles)
    return data


def too_large(ids: Mapping[str, Any], *, size: int, limit: int | None) -> PayloadTooLargeError:
    """Return the error of a task whose result the receiver does not take."""
    return PayloadTooLargeError(
        f"The result of task {ids['task_id'] or ids['run_id']!r}",
        size=size,
        limit=limit,
        advice="Raise callback_max_bytes in the environment's executor_config, or store it and return a reference.",
    )


def _fallback(event: EventFrame, error: BaseException, *, pickles: bool) -> bytes:
    return frame_to_bytes(error_event(event, error), pickles=pickles)
