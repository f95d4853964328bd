"""Frames on the pipes between an owner and its worker process: as JSON lines, or in Wove's own framing.

In Wove's own framing the head is what `wove.backend.frames` makes of a frame, but the callable, the arguments and the
result stay raw pickles: the callable in the head, the other two as the body.
"""

from collections.abc import Callable, Mapping
from typing import Any

from wove.backend.execution import error_event
from wove.backend.frames import deserialize_event, error_frame, frame_to_bytes, serialize_frame
from wove.backend.framing import Frame, pack
from wove.backend.types import EventFrame
from wove.serialization import PYTHON_VERSION, dump_pieces, loads


def command_line(frame: Mapping[str, Any]) -> bytes:
    """Return a command as a JSON line. Raises `SerializationError` where its callable or arguments cannot travel."""
    return frame_to_bytes(frame) + b"\n"


def pack_command(frame: Mapping[str, Any], function: bytes | None = None) -> list[bytes]:
    """Return the buffers of a command.

    Args:
        frame: the command.
        function: the pickled callable of a ``run_task`` command.

    Raises:
        SerializationError: the arguments cannot travel; the message names the task and the part that cannot.
    """
    if function is None:
        return pack(serialize_frame(frame))
    head = {name: value for name, value in frame.items() if name not in ("callable", "args")}
    head["callable_pickle"] = function
    head["python"] = PYTHON_VERSION
    return pack(head, dump_pieces(frame["args"], what=f"the arguments of {whose(frame)}"))


def unpack_run(frame: Frame, load_function: Callable[[bytes, str], Any]) -> dict[str, Any]:
    """Return the ``run_task`` command in a frame of Wove's own framing.

    Args:
        frame: what `pack_command` made.
        load_function: rebuilds the callable from its pickle, given words for it.

    Raises:
        SerializationError: the callable or an argument cannot be rebuilt here; the message names the missing module.
    """
    head = dict(frame.head)
    head["callable"] = load_function(head.pop("callable_pickle"), f"the callable of {whose(head)}")
    head["args"] = loads(frame.body, what=f"the arguments of {whose(head)}", origin=head.get("python"))
    return head


def pack_event(event: EventFrame, *, framed: bool) -> list[bytes]:
    """Return the buffers of an event. A result that cannot travel becomes a ``task_error`` instead; never raises."""
    try:
        return _packed(event, framed=framed)
    except BaseException as error:  # Pickling runs the user's own code.
        return _packed(error_event(event, error), framed=framed)


def unpack_event(frame: Frame) -> dict[str, Any]:
    """Return the event in a frame. One that cannot be rebuilt here becomes a ``task_error`` of its run.

    Raises:
        ValueError: the head is misshapen.
    """
    head = frame.head
    if head.get("type") != "task_result":
        return deserialize_event(head)
    try:
        result = loads(frame.body, what=f"the result of {whose(head)}", origin=head.pop("python", None))
    except BaseException as error:  # A pickle may raise anything, SystemExit too.
        return error_frame(head, error)
    head["result"] = result
    return head


def whose(frame: Mapping[str, Any]) -> str:
    """Return words for the task that a frame is about."""
    return f"task {frame.get('task_name') or frame.get('task_id') or frame.get('run_id')!r}"


def _packed(event: EventFrame, *, framed: bool) -> list[bytes]:
    if not framed:
        return [frame_to_bytes(event) + b"\n"]
    if event["type"] != "task_result":
        return pack(serialize_frame(event))
    head = {"type": "task_result", "run_id": event["run_id"], "task_id": event["task_id"], "python": PYTHON_VERSION}
    return pack(head, dump_pieces(event["result"], what=f"the result of {whose(event)}"))
