"""What a worker executes: the activity that runs a payload, and the workflow around it for servers without standalone
activities.
"""

import asyncio
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

from temporalio import activity, workflow
from temporalio.common import RetryPolicy

from wove.integrations.worker import arun
from wove_temporal.settings import SHIPPED, TIMEOUTS

# The answer to a heartbeat is how a task learns that it was cancelled.
_LONGEST_SILENCE = 1.0
_BEATS_PER_TIMEOUT = 4.0


@activity.defn(name=SHIPPED)
async def execute(payload: dict[str, Any]) -> None:
    """Execute a Wove payload, with heartbeats if the activity has a ``heartbeat_timeout``. The outcome goes to the
    weave that waits for it, so Temporal has no result to keep.

    Args:
        payload: what the adapter submitted.

    Raises:
        Exception: as `wove.integrations.worker.arun`; the outcome of the task itself is never raised.
    """
    with _heartbeats(activity.info().heartbeat_timeout):
        # The weave is asked first, also at the first attempt: a job of which it has never heard is started again when
        # it ends in silence.
        await arun(payload)


@contextmanager
def _heartbeats(timeout: timedelta | None) -> Iterator[None]:
    if not timeout:
        yield
        return
    loop = asyncio.get_running_loop()
    pause = min(timeout.total_seconds() / _BEATS_PER_TIMEOUT, _LONGEST_SILENCE)

    timers: list[asyncio.TimerHandle] = []

    def arm() -> None:
        timers[:] = [loop.call_later(pause, beat)]

    def beat() -> None:
        arm()
        activity.heartbeat()

    # Most tasks are over before the first one.
    arm()
    try:
        yield
    finally:
        timers.pop().cancel()


# The sandbox would import Wove and the project anew for each workflow; there is nothing here that could go wrong in it.
@workflow.defn(name=SHIPPED, sandboxed=False)
class WoveWorkflow:
    """Executes one payload as one activity on its own task queue."""

    @workflow.run
    async def run(self, payload: dict[str, Any], options: dict[str, Any]) -> None:
        """Execute the activity.

        Args:
            payload: its argument.
            options: its timeouts in seconds, under their names, and the fields of its ``retry_policy``.
        """
        timeouts: dict[str, Any] = {name: timedelta(seconds=options[name]) for name in TIMEOUTS if name in options}
        await workflow.execute_activity(SHIPPED, payload, retry_policy=_retry_policy(options), **timeouts)


def _retry_policy(options: Mapping[str, Any]) -> RetryPolicy:
    fields: dict[str, Any] = {
        key: timedelta(seconds=value) if key.endswith("_interval") else value
        for key, value in options.get("retry_policy", {}).items()
    }
    return RetryPolicy(**fields)
