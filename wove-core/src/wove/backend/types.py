"""The messages that cross the boundary, as typed dictionaries.

Frames are plain dicts, so that an executor in any language can read them as JSON. `CommandFrame` goes to an executor,
`EventFrame` comes from it, `Payload` is what a backend job carries. More keys may be added to each; none is ever
removed.
"""

from collections.abc import Callable
from typing import Any, Literal, TypedDict

CommandType = Literal["run_task", "cancel_task", "shutdown"]
EventType = Literal["task_started", "heartbeat", "task_result", "task_error", "task_cancelled", "log"]

FINAL_EVENTS = frozenset({"task_result", "task_error", "task_cancelled"})
EVENT_TYPES = FINAL_EVENTS | {"task_started", "heartbeat", "log"}


class ErrorPayload(TypedDict, total=False):
    """A failure in plain JSON values. ``source`` is ``task``, ``executor``, ``transport`` or ``config``."""

    kind: str
    message: str
    traceback: str
    retryable: bool
    source: str
    causes: list["ErrorPayload"]


class CommandFrame(TypedDict, total=False):
    """A command for an executor; which keys are present depends on ``type``."""

    type: CommandType
    run_id: str
    task_id: str
    task_name: str
    callable: Callable[..., Any]
    args: dict[str, Any]
    delivery: dict[str, Any]
    attempt: int
    deadline: float | None
    trace: dict[str, str]
    delivery_cancel_mode: str
    delivery_orphan_policy: str


class EventFrame(TypedDict, total=False):
    """An event about a run; which keys are present depends on ``type``."""

    type: str
    run_id: str
    task_id: str
    result: Any
    exception: BaseException
    error: ErrorPayload
    message: str
    level: int


class ClaimTicket(TypedDict):
    """Says that the rest of a payload waits at the receiver: fetch it and compare the SHA-256 hex digest and size in
    bytes.
    """

    digest: str
    size: int


class Payload(TypedDict, total=False):
    """One selected task as a JSON-safe dict: the unit that a backend carries unchanged to its worker."""

    version: int
    adapter: str
    callback_url: str
    run_id: str
    task_id: str
    task_name: str
    callable_pickle: str
    args_pickle: str
    delivery: dict[str, Any]
    attempt: int
    deadline: float | None
    trace: dict[str, str]
    callback_key: str
    callback_security: str
    lease: float
    results: Literal["pickle", "json"]
    python: str
    claim: ClaimTicket
    apart: list[ClaimTicket]
    signature: str
