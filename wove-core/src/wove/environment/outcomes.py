"""What an event frame means for the task that waits for it."""

import logging
from collections.abc import Mapping
from math import isfinite
from typing import Any

from wove.backend.failures import normalize_exception, with_remote_traceback
from wove.environment.runs import Outcome
from wove.errors import EnvironmentExecutionError, TaskCancelledError


def outcome_of(frame: Mapping[str, Any], *, task: str) -> Outcome | None:
    """Return the outcome that a final event brings, or None for any other event.

    Args:
        frame: an event frame with its Python values.
        task: the task's name.
    """
    match frame.get("type"):
        case "task_result" if "result" in frame:
            return Outcome(frame["result"])
        case "task_result":
            found = ", ".join(sorted(map(str, frame)))
            return Outcome(error=protocol_error(f"Its executor sent a task_result without 'result'; it has: {found}."))
        case "task_error":
            return Outcome(error=_error_of(frame))
        case "task_cancelled":
            return Outcome(error=TaskCancelledError(task, reason="by its worker or its backend"))
    return None


def announced_lease(frame: Mapping[str, Any]) -> float | None:
    """Return the seconds within which a worker promises its next sign of life, or None where it promises nothing."""
    lease = frame.get("lease")
    if isinstance(lease, bool) or not isinstance(lease, int | float) or not isfinite(lease) or lease <= 0:
        return None
    return float(lease)


def log_record(frame: Mapping[str, Any], *, task: str) -> None:
    """Repeat a worker's log record under the logger ``wove.task.<name>``; its level is a number or a name."""
    level = frame.get("level")
    if isinstance(level, str):
        level = logging.getLevelNamesMapping().get(level.upper())
    if isinstance(level, bool) or not isinstance(level, int):
        level = logging.INFO
    logging.getLogger(f"wove.task.{task}").log(level, "%s", frame.get("message", ""))


def protocol_error(message: str) -> EnvironmentExecutionError:
    """Return the error for something that an executor must not send."""
    return EnvironmentExecutionError(
        {"kind": "ProtocolError", "message": message, "traceback": "", "retryable": False, "source": "executor"}
    )


def _error_of(frame: Mapping[str, Any]) -> BaseException:
    exception, error = frame.get("exception"), frame.get("error")
    payload = dict(error) if isinstance(error, Mapping) else None
    if exception is None and isinstance(error, BaseException):
        exception = error
    if isinstance(exception, Exception) and not isinstance(exception, StopIteration | StopAsyncIteration):
        return with_remote_traceback(exception, payload)  # type: ignore[arg-type]
    if isinstance(exception, BaseException):
        # Raised here, these would end this process, its event loop or a coroutine instead of the task.
        wrapped = EnvironmentExecutionError(payload or {**normalize_exception(exception)})
        wrapped.__cause__ = exception
        return with_remote_traceback(wrapped, payload)  # type: ignore[arg-type]
    if payload is None:
        message = error if isinstance(error, str) else "the executor gave no details"
        payload = {"kind": "Error", "message": message, "traceback": "", "retryable": False, "source": "executor"}
    return with_remote_traceback(EnvironmentExecutionError(payload), payload)  # type: ignore[arg-type]
