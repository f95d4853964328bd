"""One call of `ExecutorRuntime.run_task` as the weave sees it: an order that is away on the background loop."""

import asyncio
from functools import partial
from typing import Any

from wove.environment.crossing import Crossing
from wove.environment.orders import Order
from wove.environment.runs import Outcome
from wove.environment.sessions import ExecutorSession, Submission
from wove.errors import DeliveryOrphanedError, DeliveryTimeoutError, TaskCancelledError

# How much later than the background loop the weave notices a deadline by itself.
_SLACK_SECONDS = 0.25


class RemoteCall:
    """Hands an order to a session and waits for the reply, with a clock of its own: a background loop that an adapter
    blocks must not keep the weave from its deadline.

    Used on the weave's loop.

    Args:
        order: what is to be done.
        session: the session that does it.
        out: the way to the background loop.
        back: the way back to this loop.
    """

    def __init__(self, order: Order, session: ExecutorSession, *, out: Crossing, back: Crossing) -> None:
        self._order = order
        self._session = session
        self._out = out
        self._back = back
        self._submission: Submission | None = None
        self._answer: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()

    async def result(self) -> Any:
        """Return the task's result, or raise what became of it instead. Cancelling gives the order up."""
        outcome = await self._outcome()
        if outcome.error is None:
            return outcome.value
        try:
            raise outcome.error
        finally:
            # The error's traceback holds this frame: break the cycle.
            del outcome

    def give_up(self, error: BaseException) -> None:
        """Wait no longer; `result` raises the error, once a cancel that must be confirmed is."""
        self._out.post(partial(self._leave, error), lost=partial(self._settle, Outcome(error=error)))

    async def _outcome(self) -> Outcome:
        policy = self._order.policy
        self._out.post(self._submit, lost=self._never_submitted)
        limit = None if policy.timeout is None else policy.timeout + (policy.ack or 0.0) + _SLACK_SECONDS
        try:
            if limit is None:
                await self._answer
            else:
                await asyncio.wait([self._answer], timeout=limit)
        except asyncio.CancelledError:
            if self._answer.cancelled():
                # Whoever awaits a future cancels it, and the answer is still to come.
                self._answer = asyncio.get_running_loop().create_future()
            self.give_up(TaskCancelledError(self._order.task))
            if policy.ack is not None:
                await asyncio.wait([self._answer], timeout=policy.ack + _SLACK_SECONDS)
            raise
        if not self._answer.done():
            self._settle(Outcome(error=self._blocked()))
            self.give_up(TaskCancelledError(self._order.task))
        return self._answer.result()

    def _blocked(self) -> DeliveryTimeoutError:
        return DeliveryTimeoutError(
            f"{self._order.label} did not complete within its delivery_timeout of {self._order.policy.timeout:g} s: "
            "Wove's background loop does not respond. An adapter or executor blocks it; blocking calls belong into "
            "asyncio.to_thread."
        )

    def _never_submitted(self) -> None:
        self._settle(Outcome(error=DeliveryOrphanedError(f"{self._order.label}: Wove has been shut down.")))

    def _settle(self, outcome: Outcome) -> None:
        if not self._answer.done():
            self._answer.set_result(outcome)

    # On the background loop.

    def _submit(self) -> None:
        self._submission = self._session.submit(self._order, self._reply)

    def _leave(self, error: BaseException) -> None:
        if self._submission is not None:
            self._submission.leave(error)

    def _reply(self, outcome: Outcome) -> None:
        self._back.post(partial(self._settle, outcome), lost=_nobody_waits)


def _nobody_waits() -> None:
    """The weave's loop is closed."""
