"""One call of a synchronous function on a thread, for a coroutine that waits for its outcome."""

import asyncio
from collections.abc import Callable
from contextvars import Context
from functools import partial
from typing import TYPE_CHECKING, Any

from wove.flow.runs import Outcome, discard

if TYPE_CHECKING:
    from wove.flow.engine import Engine


class ThreadCall:
    """A job for a thread, and the future on the loop that waits for its outcome.

    `__call__` runs on the thread, everything else on the loop.

    Args:
        engine: the engine of the weave.
        context: what the function runs in.
        function, arguments: what is called, with keywords.
    """

    __slots__ = (
        "_arguments",
        "_began",
        "_begin_ticket",
        "_context",
        "_end_ticket",
        "_engine",
        "_function",
        "_on_begin",
        "ended",
    )

    def __init__(
        self, engine: "Engine", context: Context, function: Callable[..., Any], arguments: dict[str, Any]
    ) -> None:
        self.ended: asyncio.Future[Outcome] = engine.loop.create_future()
        self._engine = engine
        self._context = context
        self._function = function
        self._arguments = arguments
        # Thread and loop compete for these: to begin the call or to call it off, to end it or to give it up.
        self._begin_ticket = [None]
        self._end_ticket = [None]
        self._began: float | None = None
        self._on_begin: Callable[[], None] | None = None

    async def outcome(self, *, urgent: bool = False, clock: "asyncio.Timeout | None" = None) -> Outcome:
        """Wait for a thread, and for the call.

        When cancelled, it is waited for no longer and its thread replaced.

        Args:
            urgent: another thread waits for it.
            clock: runs while the call runs, and stands while it waits for a thread.
        """
        try:
            at_once = self._engine.threads.submit(self, urgent=urgent)
        except RuntimeError as error:
            return None, error
        if clock is not None and not at_once:
            self._stop_until_begin(clock)
        try:
            return await self.ended
        except asyncio.CancelledError:
            self._abandon()
            raise

    def __call__(self) -> None:
        if not _take(self._begin_ticket):
            return
        self._began = self._engine.loop.time()
        if self._on_begin is not None:
            self._engine.call_soon(self._on_begin)
        try:
            outcome: Outcome = self._context.run(self._function, **self._arguments), None
        except BaseException as error:
            outcome = None, error
        if _take(self._end_ticket):
            self._engine.call_soon(partial(self._report, outcome))
        else:
            discard(outcome[0])
            self._engine.threads.restore()

    def _stop_until_begin(self, clock: asyncio.Timeout) -> None:
        expires = clock.when()
        if expires is None or clock.expired():
            return
        left = expires - self._engine.loop.time()

        def go_on() -> None:
            if self._began is not None and not self.ended.done():
                clock.reschedule(self._began + left)

        clock.reschedule(None)
        self._on_begin = go_on
        # It may have begun before it could know whom to tell.
        go_on()

    def _abandon(self) -> None:
        if _take(self._begin_ticket):
            return
        if _take(self._end_ticket):
            self._engine.threads.replace()
        elif not self.ended.cancelled():  # It has ended in the same moment.
            discard(self.ended.result()[0])

    def _report(self, outcome: Outcome) -> None:
        if self.ended.done():
            discard(outcome[0])
        else:
            self.ended.set_result(outcome)


def _take(ticket: list[None]) -> bool:
    try:
        ticket.pop()
    except IndexError:
        return False
    return True
