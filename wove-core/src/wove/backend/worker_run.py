"""One delivery of one payload on a worker: ask whether it is wanted, execute the task, deliver the outcome."""

import logging
import os
import threading
from collections.abc import Callable, Mapping
from typing import Any

from wove.backend import admission
from wove.backend.active_runs import active_runs
from wove.backend.events import Clock, Event, EventSender
from wove.backend.execution import TaskExecution
from wove.backend.fetched import fetch_missing
from wove.backend.final_events import cancelled_event, error_event, final_event_bytes, too_large
from wove.backend.heartbeat import DEFAULT_LEASE, Heartbeat
from wove.backend.kept_outcome import KeptOutcome
from wove.backend.once import once_guard
from wove.backend.pacemaker import Pacemaker
from wove.backend.replies import Reply
from wove.backend.retries import DeliveryPolicy
from wove.backend.spool import Spool, spool
from wove.backend.task_logs import Forwarding
from wove.backend.types import EventFrame
from wove.errors import DeliveryError, EventRefusedError

# The longest that a start event which nobody answers keeps the task from being executed.
_START_SECONDS = 1.0
# A process that has been told to end has this long for its last event.
_LAST_SECONDS = 5.0

log = logging.getLogger("wove")


class WorkerRun:
    """One delivery of one payload: `prepare`, then `execute` or `aexecute`, then `finish`; `close` in any case.

    On an event loop, `carry_out` in a thread does all of it for a synchronous callable: going to a thread costs more
    than most of the steps. `prepare` and `finish` block; they may be called from different threads, and wait for each
    other.

    Args:
        payload: what the adapter submitted.
        policy: timeouts and limits; by default those of `DeliveryPolicy` and `WOVE_CALLBACK_RETRY_SECONDS`.
        clock: the time to go by.
        kept: where outcomes are kept; the host's spool if omitted.
        once_seconds, first_delivery, delivered_once: as for `wove.integrations.worker.run`.
        returns: bytes up to which an outcome is left in `outcome`, for the backend to carry back.
        timing: calls the heartbeats; the process's own pacemaker if omitted.

    Raises:
        ValueError: the payload lacks a field, or was made by a later version of Wove.
        SignatureError: it must be signed, and is not by whoever holds the secret.
        ConfigurationError: the secret that it is signed with is not known here.
    """

    def __init__(
        self,
        payload: Mapping[str, Any],
        *,
        policy: DeliveryPolicy | None = None,
        clock: Clock | None = None,
        kept: Spool | None = None,
        once_seconds: float | None = None,
        first_delivery: bool = False,
        delivered_once: bool = False,
        returns: int = 0,
        timing: Pacemaker | None = None,
    ) -> None:
        admission.check_payload(payload)
        admission.check_options(delivered_once=delivered_once, returns=returns)
        self._returns = returns
        self._returned: Event | None = None
        self._delivered_once = delivered_once
        self._must_ask = not (first_delivery or delivered_once) or admission.must_ask(payload)
        self._execution: TaskExecution | None = None
        self._payload = payload
        self._ids = {"run_id": payload["run_id"], "task_id": payload.get("task_id")}
        self._sender = EventSender(
            payload["callback_url"],
            payload["run_id"],
            key=admission.event_key(payload),
            policy=policy or admission.delivery_policy(payload),
            clock=clock,
        )
        lease = payload.get("lease")
        lease = lease if admission.is_seconds(lease) else DEFAULT_LEASE
        self._heartbeat = Heartbeat(self._sender, self._ids, stop=self._stop, lease=lease, timing=timing)
        self._run = payload["callback_url"], payload["run_id"]
        self._kept = KeptOutcome(kept or spool(), *self._run, delivered_once=delivered_once)
        self._once = once_guard(payload, kept=self._kept.spool, seconds=once_seconds)
        self._pid = os.getpid()
        self._busy = threading.Lock()
        self._active = False
        self._has_final = False
        self._stopped = False

    def prepare(self) -> bool:
        """Tell the weave that the run starts, and fetch what waits for the worker there.

        Returns:
            Whether the task is to be executed. False: there is nothing to do, because the outcome of an earlier
            delivery was found and handed over, because another worker executes the run or has done so, or because
            nobody wants it any more.

        Raises:
            DeliveryError: the weave refuses this worker, or cannot be reached for what is needed from it.
        """
        with self._busy:
            kept = self._kept.load()
            if kept is not None:
                self._hand_over(kept)
                return False
            self._active = active_runs().add(self._run)
            if not self._active:
                log.info("Run %s is being executed by this process already.", self._ids["run_id"])
                return False
            return self._announced() and self._made_ready()

    @property
    def run_id(self) -> str:
        """The run's id."""
        return str(self._ids["run_id"])

    @property
    def is_taken(self) -> bool:
        """Whether the weave has said that another worker executes the run, or had begun it."""
        return self._heartbeat.verdict == "taken"

    def execute(self) -> EventFrame:
        """Execute the task in this thread and return its final event."""
        with Forwarding(self._heartbeat.log):
            return self._ready.run()

    def carry_out(self) -> bool:
        """Do everything that needs no event loop, in this thread; return whether `aexecute` and `finish` are left.

        Raises:
            DeliveryError: as `prepare` and `finish`.
        """
        if not self.prepare():
            return False
        with Forwarding(self._heartbeat.log):
            event = self._ready.run_unless_async()
        if event is None:
            return True
        self.finish(event)
        return False

    async def aexecute(self) -> EventFrame:
        """Execute the task in the running loop and return its final event."""
        with Forwarding(self._heartbeat.log):
            return await self._ready.arun()

    @property
    def outcome(self) -> bytes | None:
        """The final event, where the backend is to carry it back; None where it has been posted, or there is none."""
        return None if self._returned is None else self._sender.packed(self._returned)

    def finish(self, event: EventFrame) -> None:
        """Deliver the final event, or leave it in `outcome`, unless there has been one already or nobody wants it.

        Raises:
            DeliveryError: it could not be delivered. An outcome that the task had is kept, for another delivery of the
                same job.
        """
        with self._busy:
            # A task that forks and lets the child return would otherwise answer twice.
            if self._has_final or os.getpid() != self._pid or not self._heartbeat.wanted:
                return
            self._has_final = True
            final = self._sender.event(self._encoded(event))
            self._heartbeat.flush()
            is_outcome = event["type"] != "task_cancelled"
            if is_outcome:
                self._kept.keep_for_redelivery(final)
            if event["type"] == "task_result" and self._once is not None:
                self._once.remember(final.body)
            # A backend may drop the results of jobs that it has been asked to stop.
            if is_outcome and len(final.body) <= self._returns and not (self._stopped or self._told_to_stop()):
                self._returned = final
            else:
                self._hand_over(final, in_trouble=self._kept.keep if is_outcome else None)

    def stop(self) -> None:
        """Stop the task, or let it not begin. Whether it ends is another thing, see `Interruption`."""
        self._stopped = True
        if self._execution is not None:
            self._execution.stop()

    def interrupted(self) -> bool:
        """Take note of SIGINT, in its handler, and tell whether it is to have an effect.

        A backend that takes back jobs says with it what the weave's answers say, and a task is not interrupted twice.
        """
        return not self._delivered_once or self._execution is None or self._execution.spare()

    def abort(self) -> None:
        """Tell the weave that the task was stopped, or its outcome if that is here. Takes a few seconds at most."""
        self.give_up_soon()
        try:
            with self._busy:
                final, self._returned = self._returned, None
                if final is not None:
                    self._hand_over(final, in_trouble=self._kept.keep)
            self.finish(cancelled_event(self._ids))
        except DeliveryError as error:
            log.warning("%s", error)

    def close(self) -> None:
        """Stop the heartbeats, let go of the idempotency key. Idempotent."""
        self._heartbeat.end()
        if self._execution is not None:
            self._execution.discard()
        if self._once is not None:
            self._once.leave()
        if self._active:
            self._active = False
            active_runs().remove(self._run)

    def give_up_soon(self) -> None:
        """Let everything that waits for the weave come to an end within seconds."""
        self._sender.hurry(_LAST_SECONDS)

    def last_words(self) -> bool:
        """Tell the weave that the process ends; False where the outcome is on its way, and needs a few seconds."""
        if self._has_final and self._returned is None:
            self.give_up_soon()
            return False
        try:
            with self._sender.apart() as sender:
                final = self._returned or sender.event(self._encoded(cancelled_event(self._ids)))
                sender.post(final, connect=_LAST_SECONDS / 2, answer=_LAST_SECONDS / 2)
        except OSError:
            pass  # The weave will miss the heartbeats.
        return True

    def _announced(self) -> bool:
        if not self._must_ask:
            self._heartbeat.begin_unasked()
            return not self._is_late()
        start = self._heartbeat.start_event()
        reply = self._asked(start)
        if reply is not None and reply.status in (401, 403):
            raise self._sender.refusal(reply)
        confirmed = reply is not None and (reply.accepted or reply.unwanted)
        if reply is not None and confirmed:
            self._heartbeat.heed(reply)
        elif self._is_stale():
            return False
        if not self._heartbeat.wanted:
            log.info("Run %s is not executed: the weave answered %s.", self._ids["run_id"], self._heartbeat.verdict)
            return False
        self._heartbeat.begin(None if confirmed else start)
        return True

    def _asked(self, start: Event) -> Reply | None:
        """Return the answer to the start event, or None where none comes in time: then the outcome has to suffice."""
        try:
            reply = self._sender.post(start, connect=_START_SECONDS, answer=_START_SECONDS)
        except OSError:
            return None
        if not reply.accepted and not reply.unwanted:
            log.warning("%s", self._sender.refusal(reply))
        return reply

    def _is_stale(self) -> bool:
        """Tell whether a run that nobody confirms has been finished here, or is too late; the latter is reported."""
        if self._kept.has_finished():
            log.info("Run %s has been executed on this host already.", self._ids["run_id"])
            return True
        return self._is_late()

    def _is_late(self) -> bool:
        """Tell whether nobody waits for the run any more, by the clock; that is reported."""
        late = admission.expiry(self._payload, self._sender.clock.wall())
        if late is not None:
            self._deliver_failure(late)
        return late is not None

    def _made_ready(self) -> bool:
        if self._once is not None and not self._told_to_stop():
            earlier = self._once.enter(self._ids, told_to_stop=self._told_to_stop, sleep=self._sender.clock.sleep)
            if earlier is not None:
                self._hand_over(self._sender.event(earlier))
                return False
        if self._told_to_stop():
            if self._heartbeat.wanted:
                self._hand_over(self._sender.event(self._encoded(cancelled_event(self._ids))))
            return False
        self._execution = self._fetched()
        if self._execution is None:
            return False
        if self._stopped:
            self._execution.stop()
        elif self._told_to_stop():
            self._stop()
        return True

    def _fetched(self) -> TaskExecution | None:
        """Return the execution of the whole payload; None where what is missing is not given to this worker."""
        try:
            whole = fetch_missing(self._payload, self._sender)
        except (EventRefusedError, ValueError, KeyError, TypeError) as error:
            self._deliver_failure(error)
            return None
        return None if whole is None else TaskExecution(whole[0], apart=whole[1])

    def _told_to_stop(self) -> bool:
        return self._heartbeat.verdict is not None

    @property
    def _ready(self) -> TaskExecution:
        if self._execution is None:
            raise RuntimeError("prepare() did not say that the task is to be executed.")
        return self._execution

    def _stop(self) -> None:
        # The weave has left a detached task to itself: that nobody waits for it any more is no reason to stop it.
        over = self._heartbeat.verdict in ("over", "silent")
        left_alone = over and admission.orphan_policy(self._payload) == "detach"
        if self._execution is not None and not left_alone:
            self._execution.stop()

    def _deliver_failure(self, error: BaseException) -> None:
        event = error_event(self._ids, error, source="transport", retryable=True)
        self._hand_over(self._sender.event(self._encoded(event)))

    def _encoded(self, event: EventFrame) -> bytes:
        return final_event_bytes(event, pickles=self._payload.get("results") != "json")

    def _hand_over(self, final: Event, *, in_trouble: Callable[[Event], None] | None = None) -> None:
        self._has_final = True
        # A weave that has been silent for three leases is probably gone, but it may also be back.
        limit = self._heartbeat.lease if self._heartbeat.verdict == "silent" else None
        try:
            reply = self._sender.deliver(final, limit=limit, in_trouble=in_trouble)
        except EventRefusedError as error:
            if error.status not in (400, 413):
                raise
            reply = self._sender.deliver(self._in_place_of(final, error), limit=limit)
        self._kept.settle(accepted=reply.accepted)

    def _in_place_of(self, final: Event, error: EventRefusedError) -> Event:
        """Return the event that says why the receiver did not take the outcome."""
        reason = too_large(self._ids, size=len(final.body), limit=None) if error.status == 413 else error
        instead = self._sender.event(self._encoded(error_event(self._ids, reason, source="transport")))
        self._kept.replace(instead)
        return instead
