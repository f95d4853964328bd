"""What a frame says about the job that an adapter makes of it."""

import math
import time
from collections.abc import Mapping
from typing import Any

# A backend's own limits are for weaves that are gone; one that is there comes first.
_MARGIN_SECONDS = 5


def job_id_of(frame: Mapping[str, Any]) -> str:
    """Return the idempotency key of a ``run_task`` frame, or else its run id."""
    return str(_delivery(frame).get("delivery_idempotency_key") or frame["run_id"])


def is_detached(frame: Mapping[str, Any]) -> bool:
    """Tell whether the job of a ``run_task`` frame is meant to outlive its weave."""
    return _delivery(frame).get("delivery_orphan_policy") == "detach"


def seconds_left(payload: Mapping[str, Any], frame: Mapping[str, Any]) -> int | None:
    """Return for how many seconds anybody will want a job: until the payload's deadline and a little longer.

    None: there is no deadline, or the job is detached.
    """
    deadline: float | None = payload.get("deadline")
    if deadline is None or is_detached(frame):
        return None
    return max(math.ceil(deadline - time.time()), 0) + _MARGIN_SECONDS


def _delivery(frame: Mapping[str, Any]) -> Mapping[str, Any]:
    return frame.get("delivery") or {}
