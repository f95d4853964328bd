"""A delivery whose outcome a backend carries back beside its jobs' results, although it may deliver a job again."""

import os

from wove.backend.types import EventFrame
from wove.backend.worker_run import WorkerRun


class CarriedRun(WorkerRun):
    """One delivery of one payload, see `WorkerRun`: for backends that start a job again when its worker dies, and know
    whether it had begun. `carried` comes before `finish`, which may be left out then.
    """

    _looked_at: tuple[EventFrame, bytes] | None = None

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
        with self._busy:
            # A task that forks and lets the child return would otherwise answer twice.
            if self._has_final or os.getpid() != self._pid or not self._heartbeat.wanted:
                return None
            # A backend may drop what comes of jobs that it has been asked to stop; log records come first.
            if event["type"] == "task_cancelled" or self._stopped or self._told_to_stop() or self._heartbeat.has_logs:
                return None
            body = self._encoded(event)
            if len(body) > most:
                return None
            self._has_final = True
            self._returned = self._sender.event(body)
            return self.outcome

    def _encoded(self, event: EventFrame) -> bytes:
        # A large one is looked at by `carried`, and posted by `finish`.
        if self._looked_at is None or self._looked_at[0] is not event:
            self._looked_at = event, super()._encoded(event)
        return self._looked_at[1]
