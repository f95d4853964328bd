"""Frames on the pipes between an owner and its worker process: as JSON lines, or in Wove's own framing.

In Wove's own framing the head is what `wove.backend.frames` makes of a frame, but the callable, the arguments and the
result stay raw pickles: the callable in the head, the other two as the body.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from wove.backend.final_events import error_event, final_event_bytes
from wove.backend.frames import Part, deserialize_event, error_frame, frame_to_bytes, serialize_frame
from wove.backend.framing import Frame, pack
from wove.backend.types import EventFrame
from wove.serialization import PYTHON_VERSION, dump_pieces, loads

RETURNED = "task_returned"


def command_line(frame: Mapping[str, Any]) -> bytes:
    """Return a command as a JSON line. Raises `SerializationError` where its callable or arguments cannot travel."""
    return frame_to_bytes(frame) + b"\n"


def pack_run(frame: Mapping[str, Any], function: bytes, reusable: bool, *, coroutine: bool) -> list[bytes]:
    """Return the buffers of a ``run_task`` command in Wove's own framing.

    Args:
        frame: the command.
        function: its pickled callable.
        reusable: the worker may keep the callable for the next run.
        coroutine: the callable makes a coroutine.

    Raises:
        SerializationError: the arguments cannot travel; the message names the task and the part that cannot.
    """
    head = dict(frame)
    del head["callable"]
    args = head.pop("args")
    head.update(callable_pickle=function, reusable=reusable, coroutine=coroutine, python=PYTHON_VERSION)
    return pack(head, dump_pieces(args, what=Part("the arguments", frame)))


def unpack_run(frame: Frame, load_function: Callable[[bytes, Part], Any]) -> dict[str, Any]:
    """Return the ``run_task`` command in a frame of Wove's own framing.

    Args:
        frame: what `pack_run` made.
        load_function: rebuilds the callable from its pickle, given words for it.

    Raises:
        SerializationError: the callable or an argument cannot be rebuilt here; the message names the missing module.
    """
    head = dict(frame.head)
    head["callable"] = load_function(head.pop("callable_pickle"), Part("the callable", head))
    head["args"] = loads(frame.body, what=Part("the arguments", head), origin=head.get("python"))
    return head


def event_lines(events: Sequence[EventFrame]) -> list[bytes]:
    """Return events as JSON lines. What cannot travel becomes a ``task_error`` instead; never raises."""
    return [final_event_bytes(event) + b"\n" for event in events]


def pack_event(event: EventFrame, *, started: bool = False) -> list[bytes]:
    """Return the buffers of an event in Wove's own framing. What cannot travel becomes a ``task_error`` instead; never
    raises.

    Args:
        event: the event.
        started: the event is final and also says that the task has started.
    """
    try:
        return _packed(event, started)
    except BaseException as error:  # Pickling runs the user's own code.
        return _packed(error_event(event, error), started)


def started_event(ids: Mapping[str, Any]) -> EventFrame:
    """Return the event that says that a run has started; its ids are those of any other event of the run."""
    return {"type": "task_started", "run_id": ids["run_id"], "task_id": ids["task_id"]}


def recall_command(run_id: str) -> dict[str, Any]:
    """Return the command that asks Wove's own worker to give a run back, if it has not begun."""
    return {"type": "recall_task", "run_id": run_id}


def returned_event(ids: Mapping[str, Any]) -> EventFrame:
    """Return the answer to a recall: the run has not begun and never will there."""
    return {"type": RETURNED, "run_id": ids["run_id"], "task_id": ids["task_id"]}


def unpack_event(frame: Frame) -> dict[str, Any]:
    """Return the event in a frame. One that cannot be rebuilt here becomes a ``task_error`` of its run.

    Raises:
        ValueError: the head is misshapen.
    """
    head = frame.head
    if head.get("type") != "task_result":
        return deserialize_event(head)
    try:
        result = loads(frame.body, what=Part("the result", head), origin=head.pop("python", None))
    except BaseException as error:  # A pickle may raise anything, SystemExit too.
        return error_frame(head, error)
    head["result"] = result
    return head


def _packed(event: EventFrame, started: bool) -> list[bytes]:
    extra = {"started": True} if started else {}
    if event["type"] != "task_result":
        return pack(serialize_frame({**event, **extra}))
    head = {
        "type": "task_result",
        "run_id": event["run_id"],
        "task_id": event["task_id"],
        "python": PYTHON_VERSION,
        **extra,
    }
    return pack(head, dump_pieces(event["result"], what=Part("the result", event)))
