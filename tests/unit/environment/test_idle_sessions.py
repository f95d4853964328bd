"""Sessions that one weave leaves to the next."""

import asyncio
from typing import Any

from tests.support.executors import ScriptedExecutor
from tests.support.virtual_time import in_virtual_time
from wove.environment.idle_sessions import LINGER_SECONDS
from wove.environment.orders import Order, make_order
from wove.environment.runs import Outcome
from wove.environment.session_registry import SessionRegistry
from wove.environment.sessions import ExecutorSession
from wove.options import resolve_options

KEY, OTHER = ("jobs", 1), ("mails", 1)


class Reusable(ScriptedExecutor):
    """One that may serve one weave after the other."""

    reusable = True

    def __init__(self) -> None:
        super().__init__(auto=True)

    def renew(self) -> None:
        self.commands.append({"type": "renewed"})

    @property
    def kinds(self) -> list[str]:
        return [command["type"] for command in self.commands]


class Derived(Reusable):
    """One of somebody else's making: its `stop` is to be called at the end of each weave."""


def order() -> Order:
    options = resolve_options({})
    return make_order(
        environment="jobs",
        task_name="report",
        task_func=len,
        task_args={"obj": "abc"},
        task_info={},
        options=options,
        scope="jobs",
    )


async def opened(registry: SessionRegistry, executor: ScriptedExecutor) -> ExecutorSession:
    return await registry.open("jobs", {"executor": executor}, run_config={})


async def carried_out(session: ExecutorSession) -> Any:
    answer: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
    session.submit(order(), answer.set_result)
    return (await answer).value


@in_virtual_time
async def test_a_session_that_is_given_serves_the_next_weave_of_its_configuration() -> None:
    registry, executor = SessionRegistry(), Reusable()
    session = await opened(registry, executor)
    assert registry.idle.give(KEY, session)
    assert registry.idle.take(OTHER) is None
    assert registry.idle.take(KEY) is session
    assert await carried_out(session) == {"obj": "abc"}
    assert (executor.starts, executor.stops) == (1, 0)
    await session.release()


@in_virtual_time
async def test_a_session_belongs_to_one_weave_at_a_time() -> None:
    registry = SessionRegistry()
    session = await opened(registry, Reusable())
    registry.idle.give(KEY, session)
    assert registry.idle.take(KEY) is session
    assert registry.idle.take(KEY) is None
    await session.release()


@in_virtual_time
async def test_what_an_executor_keeps_for_a_weave_is_forgotten_before_the_first_run_of_the_next_one() -> None:
    registry, executor = SessionRegistry(), Reusable()
    session = await opened(registry, executor)
    await carried_out(session)
    registry.idle.give(KEY, session)
    registry.idle.take(KEY)
    await carried_out(session)
    await carried_out(session)
    assert executor.kinds == ["run_task", "renewed", "run_task", "run_task"]
    await session.release()


@in_virtual_time
async def test_a_session_that_nobody_takes_is_ended_a_few_seconds_later() -> None:
    registry, executor = SessionRegistry(), Reusable()
    registry.idle.give(KEY, await opened(registry, executor))
    await asyncio.sleep(LINGER_SECONDS - 0.5)
    assert executor.stops == 0
    await asyncio.sleep(2)
    assert executor.stops == 1
    assert registry.idle.take(KEY) is None


@in_virtual_time
async def test_sessions_that_are_given_at_different_times_are_ended_at_theirs() -> None:
    registry, early, late = SessionRegistry(), Reusable(), Reusable()
    registry.idle.give(KEY, await opened(registry, early))
    await asyncio.sleep(LINGER_SECONDS - 1)
    registry.idle.give(OTHER, await opened(registry, late))
    await asyncio.sleep(2.5)
    assert (early.stops, late.stops) == (1, 0)
    await asyncio.sleep(LINGER_SECONDS)
    assert late.stops == 1


@in_virtual_time
async def test_a_session_whose_executor_has_broken_is_neither_taken_nor_given() -> None:
    registry, executor = SessionRegistry(), Reusable()
    session = await opened(registry, executor)
    registry.idle.give(KEY, session)
    executor.break_down(ConnectionResetError("pipe"))
    await asyncio.sleep(0.1)
    assert registry.idle.take(KEY) is None
    assert not registry.idle.give(KEY, session)
    await asyncio.sleep(LINGER_SECONDS + 2)


@in_virtual_time
async def test_an_executor_of_a_derived_class_is_stopped_at_the_end_of_each_weave() -> None:
    registry = SessionRegistry()
    session = await opened(registry, Derived())
    assert not registry.idle.give(KEY, session)
    await session.release()


@in_virtual_time
async def test_only_so_many_sessions_are_kept() -> None:
    registry = SessionRegistry()
    sessions = [await opened(registry, Reusable()) for _ in range(40)]
    kept = [registry.idle.give(KEY, session) for session in sessions]
    assert sum(kept) == 32
    for session in sessions[32:]:
        await session.release()
    await asyncio.sleep(LINGER_SECONDS + 2)
    assert registry.idle.give(KEY, await opened(registry, Reusable()))


@in_virtual_time
async def test_sessions_that_are_idle_end_with_all_others_at_shutdown() -> None:
    registry, executor = SessionRegistry(), Reusable()
    registry.idle.give(KEY, await opened(registry, executor))
    await registry.close()
    assert executor.stops == 1
    assert registry.idle.take(KEY) is None
