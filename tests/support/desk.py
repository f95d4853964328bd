"""A delivery whose executor does what a test says, and orders to give to it."""

import asyncio
from collections.abc import Callable
from typing import Any

from tests.support.executors import ScriptedExecutor
from wove.environment.delivery import Delivery
from wove.environment.orders import Order, make_order
from wove.environment.runs import Outcome
from wove.errors import DeliveryOrphanedError
from wove.options import resolve_options


def order(*, task: str = "report", attempt: int = 1, item: int | None = None, **options: Any) -> Order:
    """Return the order of one attempt at a task; the options are those of the task."""
    return make_order(
        environment="jobs",
        task_name=task,
        task_func=len,
        task_args={"obj": "abc"},
        task_info={"attempt": attempt, "item": item},
        options=resolve_options(options),
    )


class Desk:
    """A delivery with a scripted executor, and the replies that it gave."""

    def __init__(self, executor: ScriptedExecutor) -> None:
        self.executor = executor
        self.closed: list[str] = []
        self.delivery = Delivery(executor, environment="jobs", closed=lambda _, ticket: self.closed.append(ticket))
        self._pump = asyncio.get_running_loop().create_task(self._receive())

    async def _receive(self) -> None:
        while True:
            self.delivery.receive(await self.executor.recv())

    def open(self, wanted: Order) -> "tuple[str, asyncio.Future[Outcome]]":
        answer: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        return self.delivery.open(wanted, answer.set_result), answer

    async def outcome(self, wanted: Order) -> Outcome:
        return await self.open(wanted)[1]

    async def error(self, wanted: Order) -> BaseException:
        error = (await self.outcome(wanted)).error
        assert error is not None
        return error

    async def close(self) -> None:
        await self.delivery.close(DeliveryOrphanedError("closed"))
        self._pump.cancel()


async def desk(executor: ScriptedExecutor | None = None) -> Desk:
    """Start an executor and open a desk with it."""
    executor = executor or ScriptedExecutor()
    await executor.start(environment_name="jobs", environment_config={}, run_config={})
    return Desk(executor)


def replier(replies: list[Outcome]) -> Callable[[Outcome], None]:
    """Return a reply that notes its outcomes in a list."""
    return replies.append
