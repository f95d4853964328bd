"""Tells weaves, by Celery's own event channel, which of their runs a worker holds. In the worker's main process only.

A worker with runs sends an event ``wove-runs`` when it takes one from the queue, once a second, and when a run ends of
which the process that executed it can tell nothing any more. A worker without runs sends nothing.
"""

import logging
import time
from collections.abc import Mapping
from typing import Any
from weakref import WeakKeyDictionary

from celery import Celery, bootsteps
from celery.concurrency.solo import TaskPool as SoloPool
from celery.exceptions import Terminated
from celery.signals import task_received, task_revoked, task_unknown, worker_init
from celery.worker import state
from celery.worker.request import Request
from kombu.utils.limits import TokenBucket

from wove.backend.threads import submit
from wove_celery.first_delivery import mark

EVENT = "wove-runs"
BEAT_SECONDS = 1.0
# A run is made known before it can start, but no more often than this: a stream of short tasks is known in samples.
_TELLINGS_PER_SECOND, _MOST_TELLINGS = 5, 30
_MOST_RUNS = 1000
_FORGET_SECONDS = 1.0

logger = logging.getLogger("wove")

_presences: "WeakKeyDictionary[Celery, Presence]" = WeakKeyDictionary()


class WoveRequest(Request):  # type: ignore[misc]
    """A message with a payload, as the worker's main process sees it.

    https://docs.celeryq.dev/en/stable/userguide/tasks.html#requests-and-custom-requests
    """

    def on_failure(self, exc_info: Any, send_failed_event: bool = True, return_ok: bool = False) -> Any:
        """Handle the death of the process, or what the entry point itself raised."""
        failure = getattr(exc_info.exception, "exc", exc_info.exception)
        try:
            return super().on_failure(exc_info, send_failed_event, return_ok)
        finally:
            self._tell_failure(failure)

    def on_timeout(self, soft: bool, timeout: float) -> Any:
        """Handle a time limit; the hard one has killed the process."""
        try:
            return super().on_timeout(soft, timeout)
        finally:
            if not soft:
                self._tell_end("failed", f"Celery's hard time limit of {timeout} s was exceeded")

    def terminate(self, pool: Any, signal: Any = None) -> None:
        """End the process, where the pool can do that."""
        try:
            super().terminate(pool, signal)
        except NotImplementedError:
            logger.debug("This pool ends no tasks; run %s is stopped by the answer to its next heartbeat.", self.id)
        else:
            if self.time_start:
                self._tell_end("cancelled", "it was revoked")

    def _tell_failure(self, failure: BaseException) -> None:
        phase = "cancelled" if isinstance(failure, Terminated) else "failed"
        self._tell_end(phase, f"{type(failure).__name__}: {failure}")

    def _tell_end(self, phase: str, reason: str) -> None:
        presence = _presences.get(self.app)
        if presence is not None:
            presence.ended(self.id, phase, reason)


class Presence:
    """What one worker says about its runs. Belongs to the thread of the worker's consumer.

    Args:
        consumer: the worker's consumer.
    """

    def __init__(self, consumer: Any) -> None:
        self._consumer = consumer
        self._held: dict[str, WoveRequest] = {}
        self._budget = TokenBucket(_TELLINGS_PER_SECOND, capacity=_MOST_TELLINGS)
        self._beating: Any = None
        self._revoked: list[str] = []
        self._listening_since = time.time()

    def received(self, request: WoveRequest) -> None:
        """A run has been taken from the queue; it has not started yet."""
        if isinstance(self._consumer.pool, SoloPool):
            # It executes tasks in the consumer's thread, which says nothing meanwhile: that must not count as silence.
            return
        if self._consumer.app.conf.worker_enable_remote_control:
            driver = str(self._consumer.connection.transport.driver_type)
            mark(request, driver=driver, listening_since=self._listening_since)
        self._held[request.id] = request
        if self._budget.can_consume():
            self.tell({})
        if self._beating is None:
            self._begin_to_beat()

    def ended(self, run_id: str, phase: str, reason: str) -> None:
        """A run has ended, and no other event may tell of it. May be called on any thread."""
        self._consumer.call_soon(self.tell, {run_id: (phase, reason)})

    def reconnected(self) -> None:
        """The connection to the broker is a new one: what has not started is in the queue again."""
        self._listening_since = time.time()
        self._held = {
            run_id: request
            for run_id, request in self._held.items()
            if request.acknowledged or request in state.active_requests
        }
        # The worker may have cancelled what the old connection had on the timer.
        if self._beating is not None:
            self._beating.cancel()
            self._begin_to_beat()

    def tell(self, ended: Mapping[str, tuple[str, str]], *, leaving: bool = False) -> None:
        """Send the event.

        Args:
            ended: runs of whose end no other event may tell, with the phase and the reason.
            leaving: this is the last event, although runs may go on.
        """
        try:
            self._publish(ended, leaving)
        except self._consumer.connection_errors:
            raise  # It connects again.
        except Exception as error:  # Nothing else about events may end the worker.
            logger.debug("The event about the runs of this worker was not sent: %r", error)

    def _publish(self, ended: Mapping[str, tuple[str, str]], leaving: bool) -> None:
        dispatcher = self._consumer.event_dispatcher
        if dispatcher is None or not dispatcher.enabled:
            return
        # The same run may be here twice, where the broker has delivered it again.
        active = {request.id for request in state.active_requests}
        self._held = {
            run_id: request
            for run_id, request in self._held.items()
            if run_id not in ended and (run_id in active or not _is_done(request))
        }
        runs, waiting = self._sorted()
        fields = {
            "runs": runs[:_MOST_RUNS],
            "waiting": waiting[: _MOST_RUNS - len(runs[:_MOST_RUNS])],
            "complete": len(self._held) <= _MOST_RUNS,
            "ended": dict(ended),
            "leaving": leaving,
        }
        # publish() and not send(): without -E a worker sends events of the group "worker" only.
        dispatcher.publish(EVENT, fields, dispatcher.producer, blind=True)

    def forget_result(self, run_id: str) -> None:
        """Drop what workers without this module may have noted in the result backend about a run that was revoked."""
        if not self._revoked:
            # Other workers may be about to note it.
            self._consumer.timer.call_after(_FORGET_SECONDS, self._consumer.call_soon, (self._forget_results,))
        self._revoked.append(run_id)

    def _forget_results(self) -> None:
        run_ids, self._revoked = self._revoked, []
        submit(lambda: _forget(self._consumer.app, run_ids))

    def _begin_to_beat(self) -> None:
        # Some kinds of brokers give the worker a timer with a thread of its own.
        self._beating = self._consumer.timer.call_repeatedly(BEAT_SECONDS, self._consumer.call_soon, (self._beat,))

    def _beat(self) -> None:
        self.tell({})
        if not self._held and self._beating is not None:
            self._beating.cancel()
            self._beating = None

    def _sorted(self) -> tuple[list[str], list[str]]:
        """Return the runs that execute, and those that wait in this worker. A pool starts them in their order."""
        slots = self._consumer.pool.num_processes or 1
        runs: list[str] = []
        waiting: list[str] = []
        for run_id, request in self._held.items():
            # One with an ETA is reserved when that has come.
            due = request.eta is None or request in state.reserved_requests
            starts = due and len(runs) < slots
            (runs if starts else waiting).append(run_id)
        return runs, waiting


class PresenceStep(bootsteps.StartStopStep):  # type: ignore[misc]
    """Attaches a `Presence` to the worker's consumer.

    https://docs.celeryq.dev/en/stable/userguide/extending.html
    """

    requires = ("celery.worker.consumer.events:Events",)

    def start(self, consumer: Any) -> None:
        """The consumer has connected, for the first time or again."""
        presence = _presences.get(consumer.app)
        if presence is None:
            _presences[consumer.app] = Presence(consumer)
        else:
            presence.reconnected()

    def stop(self, consumer: Any) -> None:
        """The connection is lost, or the worker shuts down."""
        if consumer.blueprint.state != bootsteps.CLOSE:
            return  # Tasks that run go on, and it connects again.
        presence = _presences.pop(consumer.app, None)
        if presence is not None and not _is_flagged(state.should_terminate):
            # It waits for its tasks, but its main process says nothing meanwhile.
            presence.tell({}, leaving=True)


def _is_flagged(exit_code: object) -> bool:
    return exit_code is not None and exit_code is not False


def _is_done(request: WoveRequest) -> bool:
    return bool(request.acknowledged) and state.requests.get(request.id) is not request


def _forget(app: Any, run_ids: list[str]) -> None:
    try:
        for run_id in run_ids:
            app.backend.forget(run_id)
    except Exception as error:  # It expires after a day anyway.
        logger.debug("The results of revoked tasks were not removed: %r", error)


def _on_worker_init(sender: Any, **_: Any) -> None:
    sender.app.steps["consumer"].add(PresenceStep)


def _on_task_received(sender: Any, request: Any, **_: Any) -> None:
    presence = _presences.get(sender.app)
    if presence is not None and isinstance(request, WoveRequest):
        presence.received(request)


def _on_task_revoked(sender: Any, request: Any, **_: Any) -> None:
    presence = _presences.get(sender.app)
    if presence is not None and sender.Request is WoveRequest:
        presence.forget_result(request.id)


def _on_task_unknown(sender: Any, name: str, id: str, **_: Any) -> None:
    presence = _presences.get(sender.app)
    if presence is not None:
        hint = f"start it with: python -m wove_celery.worker --task-name {name}"
        presence.ended(id, "failed", f"the worker knows no Celery task {name!r}; {hint}")


worker_init.connect(_on_worker_init)
task_unknown.connect(_on_task_unknown)
task_received.connect(_on_task_received)
task_revoked.connect(_on_task_revoked)
