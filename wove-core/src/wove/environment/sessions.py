"""Executor sessions: an executor that is started while somebody uses it, and the pump of its events."""

import asyncio
import logging
from collections.abc import Callable, Coroutine, Hashable, Mapping
from typing import Any

from wove.environment.contract import EnvironmentExecutor
from wove.environment.delivery import Delivery, Reply
from wove.environment.fingerprint import fingerprint
from wove.environment.handover import CANCEL_SECONDS
from wove.environment.orders import Order
from wove.environment.runs import Outcome
from wove.errors import DeliveryOrphanedError, EnvironmentExecutionError
from wove.serialization import describe

STOP_SECONDS = 10.0

# A burst of events must not keep the loop from its timers and sockets.
_EVENTS_AT_ONCE = 64

logger = logging.getLogger("wove")


class _Live:
    """A started executor with what belongs to it."""

    __slots__ = ("delivery", "executor", "pump")

    def __init__(self, executor: EnvironmentExecutor, delivery: Delivery) -> None:
        self.executor = executor
        self.delivery = delivery
        self.pump: asyncio.Task[None] | None = None


class Submission:
    """One order at a session: the handle with which it can be given up. Used on the background loop only."""

    __slots__ = ("_delivery", "_error", "_reply", "_ticket")

    def __init__(self, reply: Reply) -> None:
        self._reply = reply
        self._delivery: Delivery | None = None
        self._ticket = ""
        self._error: BaseException | None = None

    def leave(self, error: BaseException) -> None:
        """Wait no longer; the reply is the error."""
        if self._delivery is None:
            self._error = error
        else:
            self._delivery.leave(self._ticket, self._reply, error)

    def open(self, delivery: Delivery, order: Order) -> str | None:
        """Open the order and return its ticket; None if it has been given up before."""
        if self._error is not None:
            self._reply(Outcome(error=self._error))
            return None
        self._delivery = delivery
        self._ticket = delivery.open(order, self._reply)
        return self._ticket

    def join(self, delivery: Delivery, ticket: str) -> None:
        """Share a ticket that is in flight."""
        self._delivery, self._ticket = delivery, ticket
        delivery.join(ticket, self._reply)

    def fail(self, error: BaseException) -> None:
        """Reply that the order could not even be opened."""
        self._reply(Outcome(error=self._error or error))


class SharedRuns:
    """The idempotency keys in flight, and the sessions where their runs are. One table per process."""

    def __init__(self) -> None:
        self._runs: dict[Hashable, tuple[ExecutorSession, str]] = {}

    def find(self, order: Order) -> "tuple[ExecutorSession, str] | None":
        """Return session and ticket of the run that the order may share."""
        return None if order.key is None else self._runs.get(order.key)

    def offer(self, order: Order, session: "ExecutorSession", ticket: str) -> None:
        """Let later orders of the same key share a ticket."""
        if order.key is not None:
            self._runs[order.key] = session, ticket

    def withdraw(self, order: Order, ticket: str) -> None:
        """Share a ticket no longer."""
        if order.key is not None and self._runs.get(order.key, (None, ""))[1] == ticket:
            del self._runs[order.key]


class ExecutorSession:
    """One executor and those who use it: runtimes, and waiters for its runs. Used on the background loop only.

    The executor is started for the first user and stopped with the last. If its `recv` fails, every run fails with that
    error, and the next order starts it again.

    Args:
        make_executor: returns the executor to start: a new one, or always the same instance.
        environment: the environment's name.
        config: the environment's ``executor_config``.
        run_config: the effective settings for the executor.
        shared: the idempotency keys in flight.
        ended: is told when the last user has left and the executor is stopped.
    """

    def __init__(
        self,
        make_executor: Callable[[], EnvironmentExecutor],
        *,
        environment: str,
        config: Mapping[str, Any],
        run_config: Mapping[str, Any],
        shared: SharedRuns,
        ended: Callable[["ExecutorSession"], None],
    ) -> None:
        self.environment = environment
        self._make_executor = make_executor
        self._config = config
        self._run_config = run_config
        self._shared = shared
        self._ended = ended
        self._users = 0
        self._live: _Live | None = None
        self._renewed = False
        self._shut_down: BaseException | None = None
        # Starting and stopping exclude each other: an instance that is being stopped cannot be started again yet.
        self._changing = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()

    async def acquire(self) -> None:
        """Become a user: start the executor, or join those who use it. Each success needs one `release`."""
        self._users += 1
        try:
            await self._started()
        except BaseException:
            self._leave()
            raise

    async def release(self) -> None:
        """Use the session no longer. With the last user the executor is stopped, which takes some seconds at most."""
        self._users -= 1
        if not self._users:
            await self._stop_unused()

    @property
    def reusable(self) -> bool:
        """Whether the executor runs, and may serve one weave after the other. May be read from any thread."""
        # Not where a subclass inherits it: that may count on its `stop` at the end of each weave.
        return self._live is not None and vars(type(self._live.executor)).get("reusable", False)

    def renew(self) -> None:
        """Let the executor forget what it has kept for its runs before the next one is submitted."""
        self._renewed = True

    def serves(self, environment: str, config: Mapping[str, Any]) -> bool:
        """Tell whether the session was made for this environment and this ``executor_config``."""
        return self.environment == environment and fingerprint(self._config) == fingerprint(config)

    def submit(self, order: Order, reply: Reply) -> Submission:
        """Deliver an order, or share the run that its key has in flight; `reply` is called once, with its outcome."""
        found = self._shared.find(order)
        if found is not None:
            session, ticket = found
            return session.share(ticket, reply)
        submission = self._hold(reply)
        if self._live is not None:
            if self._renewed:
                self._renewed = False
                getattr(self._live.executor, "renew", _nothing)()
            self._open(submission, self._live.delivery, order)
        else:
            self._spawn(self._submit_anew(submission, order))
        return submission

    def share(self, ticket: str, reply: Reply) -> Submission:
        """Wait for a ticket that is in flight here."""
        submission = self._hold(reply)
        if self._live is None:
            submission.fail(_stopped(self.environment))
        else:
            submission.join(self._live.delivery, ticket)
        return submission

    async def shut_down(self, error: BaseException, *, patience: float) -> None:
        """Stop the executor for good, whoever uses it; all orders, later ones too, end with an error.

        Args:
            error: that error.
            patience: seconds to wait for cancels.
        """
        self._shut_down = error
        for task in list(self._tasks):
            task.cancel()
        live, self._live = self._live, None
        if live is not None:
            await self._end(live, error, patience=patience)

    def _hold(self, reply: Reply) -> Submission:
        """Count a waiter as a user, until it has its reply."""
        self._users += 1

        def answer(outcome: Outcome) -> None:
            self._leave()
            reply(outcome)

        return Submission(answer)

    def _leave(self) -> None:
        self._users -= 1
        if not self._users:
            self._spawn(self._stop_unused())

    def _spawn(self, coroutine: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _submit_anew(self, submission: Submission, order: Order) -> None:
        try:
            delivery = (await self._started()).delivery
        except Exception as error:
            submission.fail(error)
        except asyncio.CancelledError:
            submission.fail(_stopped(self.environment))
            raise
        else:
            # Another order with the same key may have waited for the same start.
            session, ticket = self._shared.find(order) or (None, "")
            if session is self:
                submission.join(delivery, ticket)
            else:
                self._open(submission, delivery, order)

    def _open(self, submission: Submission, delivery: Delivery, order: Order) -> None:
        ticket = submission.open(delivery, order)
        if ticket is not None:
            self._shared.offer(order, self, ticket)

    async def _started(self) -> _Live:
        async with self._changing:
            if self._shut_down is not None:
                raise self._shut_down
            if self._live is None:
                self._live = await self._start()
            return self._live

    async def _start(self) -> _Live:
        executor = self._make_executor()
        try:
            await executor.start(
                environment_name=self.environment, environment_config=self._config, run_config=self._run_config
            )
        except Exception as failure:  # A custom executor may raise anything.
            _note_where(failure, self.environment)
            raise
        live = _Live(executor, Delivery(executor, environment=self.environment, closed=self._shared.withdraw))
        # Not where a subclass inherits it: that may have a `recv` of its own.
        if vars(type(executor)).get("listens", False):
            executor.listen(live.delivery.take)  # type: ignore[attr-defined]
        live.pump = asyncio.get_running_loop().create_task(self._pump(live))
        return live

    async def _pump(self, live: _Live) -> None:
        """Pass events on until the executor fails or the session ends."""
        try:
            await _pass_events(live)
        except asyncio.CancelledError as cancelled:
            current = asyncio.current_task()
            if current is not None and current.cancelling():
                raise
            self._broke(live, _gave_up_receiving(self.environment, cancelled))
        except Exception as failure:  # A custom executor may raise anything.
            self._broke(live, failure)

    def _broke(self, live: _Live, error: Exception) -> None:
        if self._live is not live:
            return
        self._live = None
        logger.warning("Environment %r: its executor failed: %s", self.environment, describe(error))
        live.delivery.fail_all(error)
        self._spawn(self._retire(live, error))

    async def _retire(self, live: _Live, error: Exception) -> None:
        async with self._changing:
            await self._end(live, error)

    async def _stop_unused(self) -> None:
        async with self._changing:
            if self._users:
                return
            live, self._live = self._live, None
            if live is not None:
                await self._end(live, _stopped(self.environment))
            if not self._users:
                self._ended(self)

    async def _end(self, live: _Live, error: BaseException, *, patience: float = CANCEL_SECONDS) -> None:
        await live.delivery.close(error, patience=patience)
        if live.pump is not None:
            live.pump.cancel()
            # A recv that does not heed its cancellation must not hold up the stop.
            await asyncio.wait([live.pump], timeout=1.0)
        stopping = asyncio.get_running_loop().create_task(live.executor.stop())
        done, _ = await asyncio.wait([stopping], timeout=STOP_SECONDS)
        if not done:
            stopping.cancel()
            logger.warning("Environment %r: its executor did not stop within %g s.", self.environment, STOP_SECONDS)
        elif not stopping.cancelled() and (failure := stopping.exception()) is not None:
            logger.warning("Environment %r: stopping its executor failed: %s", self.environment, describe(failure))


def _nothing() -> None: ...


async def _pass_events(live: _Live) -> None:
    received = 0
    while True:
        live.delivery.receive(await live.executor.recv())
        received += 1
        if received % _EVENTS_AT_ONCE == 0:
            await asyncio.sleep(0)


def _note_where(failure: Exception, environment: str) -> None:
    note = f"Raised while environment {environment!r} was started."
    if f"nvironment {environment!r}" in str(failure) or note in getattr(failure, "__notes__", ()):
        return
    try:
        failure.add_note(note)
    except Exception:  # An exception class may refuse attributes, as a frozen dataclass does: it goes without.
        pass


def _stopped(environment: str) -> DeliveryOrphanedError:
    return DeliveryOrphanedError(f"Environment {environment!r} was stopped while the task was in flight.")


def _gave_up_receiving(environment: str, cause: BaseException) -> EnvironmentExecutionError:
    message = f"The executor of environment {environment!r} cancelled its own recv()."
    error = EnvironmentExecutionError(
        {"kind": "ExecutorError", "message": message, "traceback": "", "retryable": True, "source": "executor"}
    )
    error.__cause__ = cause
    return error
