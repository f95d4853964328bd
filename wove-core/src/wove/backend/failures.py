"""Failures on their way home: an exception as plain JSON, and whether the exception itself can travel."""

import os
import pickle
import traceback
from collections.abc import Iterator
from types import TracebackType

from wove.backend.types import ErrorPayload
from wove.errors import RemoteTraceback, SerializationError
from wove.serialization import dumps

# A failure must stay readable and small, whatever a task puts into its message.
LONGEST_MESSAGE = 64 * 1024
LONGEST_TRACEBACK = 256 * 1024
_MOST_CAUSES = 20

_OWN_FILES = os.path.dirname(os.path.dirname(__file__)) + os.sep


def normalize_exception(exc: BaseException, *, source: str = "task", retryable: bool = False) -> ErrorPayload:
    """Describe an exception in plain JSON values. Never raises, whatever the exception's own methods do.

    Args:
        exc: any exception.
        source: who failed: ``task``, ``executor``, ``transport`` or ``config``.
        retryable: whether another attempt may succeed where this one failed.

    Returns:
        ``kind`` (the class), ``message``, ``traceback`` (as Python prints it, causes included), ``retryable``,
        ``source`` and ``causes``: kind and message of the exceptions behind this one, the nearest first.
    """
    return {
        "kind": type(exc).__name__,
        "message": message_of(exc),
        "traceback": _formatted(exc),
        "retryable": retryable,
        "source": source,
        "causes": [{"kind": type(cause).__name__, "message": message_of(cause)} for cause in _causes(exc)],
    }


def message_of(exc: BaseException) -> str:
    """Return an exception's message, or a note in its place where its ``__str__`` raises."""
    try:
        text = str(exc)
    except Exception as error:  # A user's __str__ may raise anything.
        return f"<the message cannot be shown: {type(error).__name__} in __str__>"
    return _cut(text, LONGEST_MESSAGE)


def can_travel(exc: BaseException) -> bool:
    """Tell whether an exception can be raised again in another process: it pickles, and its pickle makes it again.

    Exceptions that end a process or a task when they are raised (``SystemExit``, ``KeyboardInterrupt``,
    ``CancelledError``) stay here: the weave's side must not fall over them.
    """
    if not isinstance(exc, Exception):
        return False
    try:
        rebuilt = pickle.loads(dumps(exc, what="the exception"))
    except SerializationError:
        return False
    except BaseException:  # Rebuilding calls the user's own __init__ and __setstate__.
        return False
    return isinstance(rebuilt, Exception)


def with_remote_traceback(exc: BaseException, error: ErrorPayload | None) -> BaseException:
    """Chain the traceback that an exception had in the process which raised it, and return the exception.

    The text holds the causes too, which pickling loses.
    """
    text = (error or {}).get("traceback")
    if text and exc.__cause__ is None:
        exc.__cause__ = RemoteTraceback(text)
    return exc


def _causes(exc: BaseException) -> Iterator[BaseException]:
    seen = {id(exc)}
    cause = _cause(exc)
    while cause is not None and id(cause) not in seen and len(seen) <= _MOST_CAUSES:
        seen.add(id(cause))
        yield cause
        cause = _cause(cause)


def _cause(exc: BaseException) -> BaseException | None:
    return exc.__cause__ or (None if exc.__suppress_context__ else exc.__context__)


def _formatted(exc: BaseException) -> str:
    try:
        lines = traceback.format_exception(type(exc), exc, _without_own_frames(exc.__traceback__))
        return _cut("".join(lines), LONGEST_TRACEBACK)
    except Exception:  # Formatting calls the user's own methods.
        frames = "".join(traceback.format_tb(exc.__traceback__))
        return f"Traceback (most recent call last):\n{frames}{type(exc).__name__}: {message_of(exc)}\n"


def _without_own_frames(trace: TracebackType | None) -> TracebackType | None:
    """Return the part of a traceback that starts in the task; all of it where it never leaves Wove."""
    current = trace
    while current is not None and current.tb_frame.f_code.co_filename.startswith(_OWN_FILES):
        current = current.tb_next
    return current or trace


def _cut(text: str, longest: int) -> str:
    if len(text) <= longest:
        return text
    half = longest // 2
    return f"{text[:half]}\n… {len(text) - 2 * half:,} characters left out …\n{text[-half:]}"
