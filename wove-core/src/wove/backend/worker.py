"""What a backend's worker does with a payload: ask whether it is wanted, execute the task, deliver the outcome."""

import asyncio
import logging
import os
import threading
from collections.abc import Mapping
from typing import Any

from wove.backend.active_runs import active_runs
from wove.backend.admission import check_payload, delivery_policy, event_key, is_seconds
from wove.backend.events import Clock, Event, EventSender
from wove.backend.execution import TaskExecution, cancelled_event, error_event, final_event_bytes, too_large
from wove.backend.heartbeat import DEFAULT_LEASE, Heartbeat
from wove.backend.payload import join_payload
from wove.backend.replies import Reply
from wove.backend.retries import DeliveryPolicy
from wove.backend.spool import Spool, spool, spool_name
from wove.backend.task_logs import forwarding
from wove.backend.termination import Termination
from wove.backend.threads import in_daemon_thread
from wove.backend.types import EventFrame
from wove.errors import DeliveryError, DeliveryTimeoutError, EventRefusedError

# The longest that a start event which nobody answers keeps the task from being executed.
_START_SECONDS = 1.0
# A process that has been told to end has this long for its last event.
_LAST_SECONDS = 5.0

log = logging.getLogger("wove")


class WorkerRun:
    """One delivery of one payload: `prepare`, then `execute` or `aexecute`, then `finish`; `close` in any case.

    `prepare` and `finish` block; they may be called from different threads, and wait for each other.

    Args:
        payload: what the adapter submitted.
        policy: timeouts and limits; by default those of `DeliveryPolicy` and `WOVE_CALLBACK_RETRY_SECONDS`.
        clock: the time to go by.
        kept: where outcomes are kept; the host's spool if omitted.

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
    ) -> None:
        check_payload(payload)
        self._execution: TaskExecution | None = None
        self._payload = payload
        self._ids = {"run_id": payload["run_id"], "task_id": payload.get("task_id")}
        self._sender = EventSender(
            payload["callback_url"],
            payload["run_id"],
            key=event_key(payload),
            policy=policy or delivery_policy(payload),
            clock=clock,
        )
        lease = payload.get("lease")
        self._heartbeat = Heartbeat(
            self._sender, self._ids, stop=self._stop, lease=lease if is_seconds(lease) else DEFAULT_LEASE
        )
        self._spool = kept or spool()
        self._name = spool_name(payload["callback_url"], payload["run_id"])
        self._pid = os.getpid()
        self._busy = threading.Lock()
        self._active = False
        self._has_final = False

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
            kept = self._spool.load(self._name)
            if kept is not None:
                self._hand_over(kept)
                return False
            self._active = active_runs().add(self._name)
            if not self._active:
                log.info("Run %s is being executed by this process already.", self._ids["run_id"])
                return False
            return self._announced() and self._made_ready()

    def execute(self) -> EventFrame:
        """Execute the task in this thread and return its final event."""
        with forwarding(self._heartbeat.log):
            return self._ready.run()

    async def aexecute(self) -> EventFrame:
        """Execute the task in the running loop, or in a thread, and return its final event."""
        with forwarding(self._heartbeat.log):
            return await self._ready.arun()

    def finish(self, event: EventFrame) -> None:
        """Deliver the final event, unless there has been one already or nobody wants it.

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
            if event["type"] != "task_cancelled":
                self._spool.save(self._name, final)
            # A weave that has been silent for so long is probably gone, but it may also be back.
            silent = self._heartbeat.verdict == "silent"
            self._hand_over(final, limit=self._heartbeat.lease if silent else None)

    def abort(self) -> None:
        """Tell the weave that the task was stopped, unless it had an outcome already. Takes a few seconds at most."""
        self.give_up_soon()
        try:
            self.finish(cancelled_event(self._ids))
        except DeliveryError as error:
            log.warning("%s", error)

    def close(self) -> None:
        """Stop the heartbeats. Idempotent."""
        self._heartbeat.end()
        if self._active:
            self._active = False
            active_runs().remove(self._name)

    def give_up_soon(self) -> None:
        """Let everything that waits for the weave come to an end within seconds."""
        self._sender.hurry(_LAST_SECONDS)

    def last_words(self) -> bool:
        """Tell the weave that the process ends; False where the outcome is on its way, and needs a few seconds."""
        if self._has_final:
            self.give_up_soon()
            return False
        try:
            with self._sender.apart() as sender:
                final = sender.event(self._encoded(cancelled_event(self._ids)))
                sender.post(final, connect=_LAST_SECONDS / 2, answer=_LAST_SECONDS / 2)
        except OSError:
            pass  # The weave will miss the heartbeats.
        return True

    def _announced(self) -> bool:
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
        """Return the answer to the start event, or None where there is none in time. It then arrives later, or never:
        the outcome suffices.
        """
        try:
            reply = self._sender.post(start, connect=_START_SECONDS, answer=_START_SECONDS)
        except OSError:
            return None
        if not reply.accepted and not reply.unwanted:
            log.warning("%s", self._sender.refusal(reply))
        return reply

    def _is_stale(self) -> bool:
        """Tell whether a run that nobody confirms has been finished here, or is too late; the latter is reported."""
        if self._spool.has_finished(self._name):
            log.info("Run %s has been executed on this host already.", self._ids["run_id"])
            return True
        deadline = self._payload.get("deadline")
        if not is_seconds(deadline) or self._sender.clock.wall() <= deadline:
            return False
        late = DeliveryTimeoutError(
            f"Task {self._payload.get('task_name')!r} reached a worker after its delivery_timeout; it was not executed."
        )
        self._deliver_failure(late)
        return True

    def _made_ready(self) -> bool:
        if self._heartbeat.verdict is not None:
            self._hand_over(self._sender.event(self._encoded(cancelled_event(self._ids))))
            return False
        payload = self._payload
        claim = payload.get("claim")
        if claim:
            try:
                body = self._sender.fetch(claim["size"])
                if body is None:
                    return False
                payload = join_payload(payload, body)
            except (EventRefusedError, ValueError, KeyError, TypeError) as error:
                self._deliver_failure(error)
                return False
        self._execution = TaskExecution(payload)
        self._stop_if_told()
        return True

    @property
    def _ready(self) -> TaskExecution:
        if self._execution is None:
            raise RuntimeError("prepare() did not say that the task is to be executed.")
        return self._execution

    def _stop_if_told(self) -> None:
        # The answer to a heartbeat may have come while the payload was fetched.
        if self._heartbeat.verdict is not None:
            self._stop()

    def _stop(self) -> None:
        # The weave has left a detached task to itself: that nobody waits for it any more is no reason to stop it.
        left_alone = self._is_detached and self._heartbeat.verdict in ("over", "silent")
        if self._execution is not None and not left_alone:
            self._execution.stop()

    @property
    def _is_detached(self) -> bool:
        delivery = self._payload.get("delivery")
        return isinstance(delivery, Mapping) and delivery.get("delivery_orphan_policy") == "detach"

    def _deliver_failure(self, error: BaseException) -> None:
        event = error_event(self._ids, error, source="transport", retryable=True)
        self._hand_over(self._sender.event(self._encoded(event)))

    def _encoded(self, event: EventFrame) -> bytes:
        return final_event_bytes(event, pickles=self._payload.get("results") != "json")

    def _hand_over(self, final: Event, *, limit: float | None = None) -> None:
        self._has_final = True
        try:
            reply = self._sender.deliver(final, limit=limit)
        except EventRefusedError as error:
            if error.status not in (400, 413):
                raise
            reply = self._sender.deliver(self._in_place_of(final, error), limit=limit)
        if reply.accepted:
            self._spool.mark_finished(self._name)
        self._spool.remove(self._name)

    def _in_place_of(self, final: Event, error: EventRefusedError) -> Event:
        """Return the event that says why the receiver did not take the outcome."""
        reason = too_large(self._ids, size=len(final.body), limit=None) if error.status == 413 else error
        instead = self._sender.event(self._encoded(error_event(self._ids, reason, source="transport")))
        self._spool.save(self._name, instead)
        return instead


def run_backend_payload(payload: Mapping[str, Any]) -> None:
    """Execute a payload in this thread and deliver the outcome to the weave that waits for it.

    The worker entry point for synchronous workers (`wove.integrations.worker.run` is the same function). Whatever the
    task does, returns or raises reaches the weave as an event; nothing is returned, because a backend's own result is
    no result. A synchronous callable runs outside of any event loop, in this thread; a coroutine in a loop of its own.

    When the weave does not want the task any more, a coroutine is cancelled and a synchronous callable interrupted with
    `TaskStopped`: at once in the main thread, in another one as soon as Python code runs in it. Code that holds the
    interpreter or catches `BaseException` cannot be stopped. In the main thread, SIGTERM and SIGINT are reported before
    the process's own handlers, or the default, end it.

    Args:
        payload: what the adapter's ``submit`` got, unchanged.

    Raises:
        DeliveryError: the outcome could not be delivered (for ten minutes, or the weave refuses this worker). It is
            kept on this host; when the backend delivers the job again, it is handed over without executing the task.
        SignatureError: the payload must be signed and is not, or by somebody else. It is not executed.
        ConfigurationError: the secret that the payload is signed with is not known here.
        ValueError: the payload lacks a field, or was made by a later version of Wove.
    """
    run = WorkerRun(payload)
    termination = Termination(run.last_words)
    with termination:
        try:
            _run(run, termination)
        except BaseException as error:
            if error is termination.raised:
                run.abort()
            raise
        finally:
            run.close()


def _run(run: WorkerRun, termination: Termination) -> None:
    if not run.prepare():
        return
    event = run.execute()
    ended_by = termination.raised
    if ended_by is None or event["type"] == "task_result":
        run.finish(event)
    if ended_by is not None:
        # The task may have caught it, or it became the task's own error.
        raise ended_by


async def run_backend_payload_async(payload: Mapping[str, Any]) -> None:
    """Execute a payload from a running event loop and deliver the outcome to the weave that waits for it.

    The worker entry point for asynchronous workers (`wove.integrations.worker.arun` is the same function); see
    `run_backend_payload`. A coroutine runs in this loop. Anything else runs in a thread of its own, which can be
    stopped only while it executes Python code: a call that blocks in C goes on to its end.

    Cancelling it, as backends do with jobs that they abort or time out, stops the task, tells the weave and raises
    `CancelledError`.

    Args:
        payload: what the adapter's ``submit`` got, unchanged.

    Raises:
        Exception: as `run_backend_payload`.
    """
    run = WorkerRun(payload)
    try:
        if await in_daemon_thread(run.prepare):
            event = await run.aexecute()
            await in_daemon_thread(run.finish, event)
    except asyncio.CancelledError:
        run.give_up_soon()
        await asyncio.shield(in_daemon_thread(run.abort))
        raise
    finally:
        run.close()
