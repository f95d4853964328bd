"""Delivery: carries orders to one executor and its events back, and sees to it that every order is answered once.

`InFlight` decides; this is its asyncio shell, which obeys the decisions, runs the timer and reads the events.
"""

import asyncio
from collections.abc import Callable
from typing import Any

from wove.environment.contract import EnvironmentExecutor
from wove.environment.handover import CANCEL_SECONDS, Handover
from wove.environment.inflight import Cancel, Forget, InFlight, Instructions, Resolve, Submit
from wove.environment.orders import Order, new_run_id
from wove.environment.outcomes import announced_lease, log_record, outcome_of, protocol_error
from wove.environment.runs import Outcome
from wove.environment.watching import JobWatcher
from wove.integrations.base import JobState
from wove.plugins.manager import active_hooks

Reply = Callable[[Outcome], None]


class _Waiting:
    """Those who wait for a ticket: more than one only under a shared idempotency key."""

    __slots__ = ("order", "replies")

    def __init__(self, order: Order, reply: Reply) -> None:
        self.order = order
        self.replies = [reply]


class Delivery:
    """The orders in flight at one started executor. Lives as long as that; used on the background loop only.

    An executor may offer more than its four methods: ``probe(run_ids)`` with ``poll_interval`` (seconds) lets dead jobs
    be noticed; ``close_run(run_id)`` is told when nothing of a run is expected any more; one whose
    ``reports_submission`` is true says with an event ``submitted`` when the backend has accepted a run; and the event
    ``job_state`` with a `JobState` under ``state`` brings news that the backend pushes.

    Args:
        executor: a started executor.
        environment: the environment's name.
        closed: is told, at least once, of each ticket that nobody may `join` any more.
    """

    def __init__(
        self, executor: EnvironmentExecutor, *, environment: str, closed: Callable[[Order, str], None]
    ) -> None:
        self._environment = environment
        self._closed = closed
        self._loop = asyncio.get_running_loop()
        self._waiting: dict[str, _Waiting] = {}
        self._inflight = InFlight(lambda ticket: new_run_id(self._waiting[ticket].order.task))
        confirms_later = getattr(executor, "reports_submission", False)
        self._handover = Handover(
            executor,
            wanted=self._inflight.wanted,
            taken=(lambda run_id: None) if confirms_later else self._taken,
            refused=self._refused,
        )
        self._watcher = self._watcher_of(executor)
        self._timer: asyncio.TimerHandle | None = None
        self._obeying = False

    def _watcher_of(self, executor: EnvironmentExecutor) -> JobWatcher | None:
        probe, interval = getattr(executor, "probe", None), getattr(executor, "poll_interval", None)
        if probe is None or interval is None:
            return None
        return JobWatcher(
            probe,
            interval=interval,
            runs=self._inflight.submitted_runs,
            urgent=self._inflight.awaits_confirmation,
            report=self._reported,
            what=f"Environment {self._environment!r}",
        )

    def __contains__(self, ticket: object) -> bool:
        return ticket in self._waiting

    # What a session asks for.

    def open(self, order: Order, reply: Reply) -> str:
        """Deliver an order and return its ticket; `reply` is called once, with the outcome."""
        ticket = new_run_id(order.task)
        self._waiting[ticket] = _Waiting(order, reply)
        label = f"{order.label} (run {ticket})"
        self._obey(self._inflight.open(ticket, order.policy, label=label, now=self._loop.time()))
        return ticket

    def join(self, ticket: str, reply: Reply) -> None:
        """Wait for a ticket that is in flight already and not `closed`."""
        self._waiting[ticket].replies.append(reply)

    def leave(self, ticket: str, reply: Reply, error: BaseException) -> None:
        """Wait no longer. The last one who leaves a ticket gives it up.

        `reply` is called with the error: at once, or where a cancel must be confirmed, after that.
        """
        waiting = self._waiting.get(ticket)
        if waiting is None or reply not in waiting.replies:
            return
        if len(waiting.replies) == 1:
            self._obey(self._inflight.abandon(ticket, error, now=self._loop.time()))
        else:
            waiting.replies.remove(reply)
            reply(Outcome(error=error))

    def fail_all(self, error: BaseException) -> None:
        """End every order with an error, because the executor is gone."""
        self._obey(self._inflight.executor_lost(error))

    async def close(self, error: BaseException, *, patience: float = CANCEL_SECONDS) -> None:
        """Give up what is still in flight, and end everything that delivery itself is doing.

        Args:
            error: what the open orders end with.
            patience: seconds to wait for cancels.
        """
        for ticket in self._inflight.tickets():
            self._obey(self._inflight.abandon(ticket, error, now=self._loop.time()))
        await self._handover.close(patience=patience)
        self.fail_all(error)
        if self._watcher is not None:
            await self._watcher.close()

    # What the executor says.

    def take(self, frame: dict[str, Any], started: bool = False) -> bool:
        """Take one event frame unless a decision is just being carried out; return whether it has been taken.

        Args:
            frame: the event.
            started: it is final, and the first that is heard of its run.

        Raises:
            EnvironmentExecutionError: see `receive`.
        """
        if self._obeying:
            return False
        self.receive(frame, started)
        return True

    def receive(self, frame: object, started: bool = False) -> None:
        """Take one event frame, see `take`. Events of unknown runs are ignored.

        Raises:
            EnvironmentExecutionError: it names no run, so that some run would wait in vain.
        """
        run_id = frame.get("run_id") if isinstance(frame, dict) else None
        if not isinstance(frame, dict) or not isinstance(run_id, str):
            keys = f" with the keys {sorted(map(str, frame))}" if isinstance(frame, dict) else ""
            raise protocol_error(
                f"The executor of environment {self._environment!r} sent a {type(frame).__name__}{keys} as an event. "
                "An event is a dict with 'type', 'run_id' and 'task_id'."
            )
        if run_id in self._inflight:
            self._take(frame, run_id, self._handover.order_of(run_id), started)

    def _take(self, frame: dict[str, Any], run_id: str, order: Order, started: bool) -> None:
        kind, state = frame.get("type"), frame.get("state")
        if kind == "job_state" and isinstance(state, JobState):
            self._reported(run_id, state)
        elif kind == "submitted":
            self._taken(run_id)
        else:
            if started or kind != "task_error":  # That may be the executor's own word: it has not taken the run.
                self._taken(run_id)
            notify = active_hooks().wove_event_received
            if notify is not None:
                for event_type in ("task_started", str(kind)) if started else (str(kind),):
                    notify(weave=order.weave, task=order.task, run_id=run_id, event_type=event_type)
            self._take_event(frame, run_id, order)

    def _take_event(self, frame: dict[str, Any], run_id: str, order: Order) -> None:
        kind, now = frame.get("type"), self._loop.time()
        outcome = outcome_of(frame, task=order.task)
        if outcome is not None:
            self._obey(self._inflight.finished(run_id, outcome))
        elif kind in ("task_started", "heartbeat", "log"):
            self._obey(self._inflight.alive(run_id, now=now, lease=announced_lease(frame)))
            if kind == "log":
                log_record(frame, task=order.task)
        else:
            error = protocol_error(
                f"{order.label}: its executor sent an event of unknown type {kind!r}. "
                "Known: task_started, heartbeat, log, task_result, task_error, task_cancelled."
            )
            self._obey(self._inflight.broke_protocol(run_id, error, now=now))

    def _reported(self, run_id: str, state: JobState) -> None:
        self._obey(self._inflight.reported(run_id, state, now=self._loop.time()))

    def _taken(self, run_id: str) -> None:
        # A fast worker's events overtake the executor's own word.
        if not self._inflight.taken(run_id):
            return
        if self._watcher is not None:
            self._watcher.wake()
        notify = active_hooks().wove_task_submitted
        if notify is not None:
            order = self._handover.order_of(run_id)
            notify(weave=order.weave, task=order.task, run_id=run_id, environment=order.environment)

    def _refused(self, run_id: str, error: BaseException | None) -> None:
        self._obey(self._inflight.finished(run_id, Outcome(error=error)))

    # What the state machine decides.

    def _obey(self, instructions: Instructions) -> None:
        self._obeying = True
        try:
            self._carry_out(instructions)
        finally:
            self._obeying = False
        self._set_timer()

    def _carry_out(self, instructions: Instructions) -> None:
        for instruction in instructions:
            match instruction:
                case Submit(ticket, run_id, replaces):
                    self._handover.submit(self._waiting[ticket].order, run_id, replaces=replaces)
                case Cancel(run_id):
                    self._handover.cancel(run_id)
                    self._stopping(run_id)
                case Forget(run_id, detached):
                    self._handover.forget(run_id, detached=detached)
                case Resolve(ticket, outcome):
                    waiting = self._waiting.pop(ticket)
                    self._closed(waiting.order, ticket)
                    for reply in waiting.replies:
                        reply(outcome)

    def _stopping(self, run_id: str) -> None:
        ticket = self._inflight.ticket_of(run_id)
        if ticket is None:
            return
        # Whoever comes from now on must get a run that is not about to be stopped.
        self._closed(self._waiting[ticket].order, ticket)
        if self._watcher is not None:
            self._watcher.hurry()

    def _set_timer(self) -> None:
        due = self._inflight.next_due()
        if self._timer is not None:
            if self._timer.when() == due:
                return
            self._timer.cancel()
        self._timer = None if due is None else self._loop.call_at(due, self._tick, due)

    def _tick(self, due: float) -> None:
        self._timer = None
        # A loop runs a timer up to its clock's resolution early.
        self._obey(self._inflight.tick(now=max(due, self._loop.time())))
