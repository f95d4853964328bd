"""A delivery whose outcome a backend carries back beside its jobs' results, although it may deliver a job again."""

import os
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from wove.backend.threads import in_daemon_thread
from wove.backend.types import EventFrame
from wove.backend.worker import execute_run_async
from wove.backend.worker_run import WorkerRun

Carry = Callable[[bytes], Awaitable[bool]]


class CarriedRun(WorkerRun):
    """One delivery of one payload, see `WorkerRun`: for backends that start a job again when its worker dies, and know
    whether it had begun. `carried` comes before `finish`, which may be left out then.

    Args:
        payload: what the adapter submitted.
        carries: bytes up to which `finish` leaves an outcome to be carried in `outcome`, as `carried` does.
        options: as for `WorkerRun`.
    """

    _looked_at: tuple[EventFrame, bytes] | None = None

    def __init__(self, payload: Mapping[str, Any], *, carries: int = 0, **options: Any) -> None:
        super().__init__(payload, **options)
        self._carries = carries
        if options.get("first_delivery"):
            self._kept.expect_nothing()

    def hand_over_kept(self) -> bool:
        """Hand over the outcome of an earlier delivery if it is kept on this host; tell whether it was.

        In place of `prepare`, for a delivery that must not execute the task.

        Raises:
            DeliveryError: as `prepare`.
        """
        with self._busy:
            kept = self._kept.load()
            if kept is not None:
                self._hand_over(kept)
            return kept is not None

    def carried(self, event: EventFrame, *, most: int) -> bytes | None:
        """Return the final event for the backend, and leave it in `outcome`.

        Nothing is kept here: an outcome that is lost on its way is a run that is lost.

        Args:
            event: the final event.
            most: the bytes up to which it is to be carried.

        Returns:
            The outcome; None where `finish` has to post it, or there is nothing to be said.
        """
        return self.outcome if self._leave(event, most) else None

    def finish(self, event: EventFrame) -> None:
        """Leave the final event in `outcome` if it is to be carried; otherwise as `WorkerRun.finish`."""
        if not self._carries or not self._leave(event, self._carries):
            super().finish(event)

    def post_outcome(self) -> None:
        """Post what is in `outcome`, because the backend could not carry it, or may not have done so.

        Raises:
            DeliveryError: as `finish`.
        """
        with self._busy:
            final, self._returned = self._returned, None
            if final is not None:
                self._kept.keep_for_redelivery(final)
                self._hand_over(final)

    def _leave(self, event: EventFrame, most: int) -> bool:
        with self._busy:
            # A task that forks and lets the child return would otherwise answer twice.
            if self._has_final or os.getpid() != self._pid or not self._heartbeat.wanted:
                return False
            # A backend may drop what comes of jobs that it has been asked to stop; log records come first.
            if event["type"] == "task_cancelled" or self._stopped or self._told_to_stop() or self._heartbeat.has_logs:
                return False
            body = self._encoded(event)
            if len(body) > most:
                return False
            self._has_final = True
            self._returned = self._sender.event(body)
            return True

    def _encoded(self, event: EventFrame) -> bytes:
        # A large one is looked at by `carried`, and posted by `finish`.
        if self._looked_at is None or self._looked_at[0] is not event:
            self._looked_at = event, super()._encoded(event)
        return self._looked_at[1]


async def execute_carried(run: CarriedRun, carry: Carry) -> None:
    """Do everything about a run from a running event loop, as `wove.integrations.worker.arun` does.

    Args:
        run: leaves what is to be carried in `outcome`.
        carry: hands an outcome to the backend, and tells whether the backend has it. Where it has not, or may have it
            although the answer was lost, the outcome is posted. Must come to an end within seconds.

    Raises:
        DeliveryError: as `arun`.
    """

    async def carry_or_post(outcome: bytes) -> None:
        if not await carry(outcome):
            await in_daemon_thread(run.post_outcome)

    await execute_run_async(run, carry_or_post)
