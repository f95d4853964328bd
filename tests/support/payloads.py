"""Payloads as an owner makes them."""

import itertools
from collections.abc import Callable
from typing import Any

from wove.backend.payload import build_backend_payload
from wove.backend.signing import derive_key

SECRET = b"the secret of the weave's process"

_numbers = itertools.count(1)


def payload_for(callback_url: str, function: Callable[..., Any], **args: Any) -> dict[str, Any]:
    """Return the complete payload of a task called ``report`` with a run id of its own."""
    run_id = f"report-{next(_numbers)}"
    frame = {
        "type": "run_task",
        "run_id": run_id,
        "task_id": "report",
        "task_name": "report",
        "callable": function,
        "args": args,
        "delivery": {},
    }
    payload: dict[str, Any] = dict(build_backend_payload(frame, callback_url=callback_url, adapter="test"))
    payload.update(callback_key=derive_key(SECRET, run_id), lease=30.0, results="pickle")
    return payload
