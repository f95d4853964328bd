"""Hands runs to an executor and takes them back: the calls of `send`, their order, and their bounds."""

import asyncio
import logging
from collections.abc import Callable, Coroutine, Hashable
from dataclasses import dataclass
from typing import Any

from wove.environment.contract import EnvironmentExecutor
from wove.environment.orders import Order
from wove.errors import DeliveryError
from wove.serialization import describe

# How long a cancel may take, and how much of it is waiting for the run's own submission to end.
CANCEL_SECONDS = 5.0
_SETTLE_SECONDS = 2.0

logger = logging.getLogger("wove")


@dataclass(frozen=True, slots=True)
class _Cancelling:
    task: asyncio.Task[None]
    work: Hashable


class Handover:
    """The commands on their way to one started executor, each in a task of its own, so that a stuck one holds up none.

    Lives as long as an executor session; used on the background loop only.

    Args:
        executor: a started executor.
        wanted: tells whether a run is still to be submitted.
        taken: is told of a run that `send` has taken.
        refused: is told of a run that was not submitted, with the reason; or None if it was not wanted any more.
    """

    def __init__(
        self,
        executor: EnvironmentExecutor,
        *,
        wanted: Callable[[str], bool],
        taken: Callable[[str], None],
        refused: Callable[[str, BaseException | None], None],
    ) -> None:
        self._executor = executor
        self._close_run: Callable[[str], None] | None = getattr(executor, "close_run", None)
        # Not where a subclass inherits it: that may have a `send` of its own.
        self._begins = vars(type(executor)).get("begins", False)
        self._wanted = wanted
        self._taken = taken
        self._refused = refused
        self._orders: dict[str, Order] = {}
        self._sends: dict[str, asyncio.Task[bool]] = {}
        self._cancels: dict[str, _Cancelling] = {}
        self._tasks: set[asyncio.Task[Any]] = set()

    def order_of(self, run_id: str) -> Order:
        """Return the order that a run carries out."""
        return self._orders[run_id]

    def submit(self, order: Order, run_id: str, *, replaces: str | None = None) -> None:
        """Send the order's task under a run id, after the cancels of earlier runs of the same work."""
        self._orders[run_id] = order
        repeated = replaces is not None or order.frame["attempt"] > 1
        earlier = [cancel.task for cancel in self._cancels.values() if cancel.work == order.work] if repeated else []
        if not self._begins or earlier or not self._has_begun(order, run_id):
            self._sends[run_id] = self._spawn(self._send(order, run_id, earlier))

    def cancel(self, run_id: str) -> None:
        """Send a cancel for a run. Its failure is logged: the run's own error matters more."""
        order = self._orders[run_id]
        self._cancels[run_id] = _Cancelling(self._spawn(self._cancel(order, run_id)), order.work)

    def forget(self, run_id: str, *, detached: bool) -> None:
        """Nothing of the run is expected any more; the executor is told so after any cancel, unless `detached`."""
        del self._orders[run_id]
        if run_id not in self._cancels:
            self._let_go(run_id, detached=detached)

    async def close(self, *, patience: float) -> None:
        """Wait up to `patience` seconds for cancels, then stop whatever is still on its way."""
        if self._cancels:
            await asyncio.wait([cancel.task for cancel in self._cancels.values()], timeout=patience)
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            # A send that does not heed its cancellation must not hold up the others.
            await asyncio.wait(list(self._tasks), timeout=1.0)

    def _spawn(self, coroutine: "Coroutine[Any, Any, Any]") -> "asyncio.Task[Any]":
        task = asyncio.get_running_loop().create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def _has_begun(self, order: Order, run_id: str) -> bool:
        """Submit a run to an executor that takes it without waiting, which spares it a task; tell whether it has."""
        try:
            if not self._executor.begin({**order.frame, "run_id": run_id}):  # type: ignore[attr-defined]
                return False
        except Exception as error:  # Any argument's class may raise anything when it is pickled.
            # Later: whoever submits it does not know it yet.
            asyncio.get_running_loop().call_soon(self._refuse, run_id, error)
        else:
            self._taken(run_id)
        return True

    def _refuse(self, run_id: str, error: Exception) -> None:
        if run_id in self._orders:
            self._refused(run_id, error)

    async def _send(self, order: Order, run_id: str, earlier: list[asyncio.Task[None]]) -> bool:
        """Submit a run and tell whether the executor has taken it."""
        if earlier:
            await asyncio.wait(earlier)
        if not self._wanted(run_id):
            self._refused(run_id, None)
            return False
        try:
            await self._executor.send({**order.frame, "run_id": run_id})
        except asyncio.CancelledError as error:
            if _is_being_cancelled():
                raise
            failure = DeliveryError(f"{order.label} could not be submitted: its executor cancelled its own send().")
            failure.__cause__ = error
            self._refused(run_id, failure)
            return False
        except Exception as error:  # A custom executor may raise anything.
            self._refused(run_id, error)
            return False
        self._taken(run_id)
        return True

    async def _cancel(self, order: Order, run_id: str) -> None:
        submission = self._sends.get(run_id)
        try:
            if submission is None or await _was_taken(submission):
                await self._send_cancel(order, run_id)
        finally:
            if submission is not None:
                submission.cancel()
            del self._cancels[run_id]
            if run_id not in self._orders:
                self._let_go(run_id, detached=False)

    async def _send_cancel(self, order: Order, run_id: str) -> None:
        delivery = order.frame["delivery"]
        frame = {
            "type": "cancel_task",
            "run_id": run_id,
            "task_id": order.frame["task_id"],
            "delivery_cancel_mode": delivery.get("delivery_cancel_mode", "best_effort"),
            "delivery_orphan_policy": order.policy.orphan,
        }
        call = self._spawn(self._executor.send(frame))
        done, _ = await asyncio.wait([call], timeout=CANCEL_SECONDS - _SETTLE_SECONDS)
        if not done:
            call.cancel()
            logger.warning("%s: cancelling run %s did not return in time; it may go on.", order.label, run_id)
        elif not call.cancelled() and (error := call.exception()) is not None:
            logger.warning("%s: cancelling run %s failed (%s); it may go on.", order.label, run_id, describe(error))

    def _let_go(self, run_id: str, *, detached: bool) -> None:
        self._sends.pop(run_id, None)
        if self._close_run is not None and not detached:
            self._close_run(run_id)


async def _was_taken(submission: "asyncio.Task[bool]") -> bool:
    """Tell whether the executor has taken a run, or may still take it."""
    await asyncio.wait([submission], timeout=_SETTLE_SECONDS)
    return not submission.done() or (not submission.cancelled() and submission.result())


def _is_being_cancelled() -> bool:
    current = asyncio.current_task()
    return current is not None and current.cancelling() > 0
