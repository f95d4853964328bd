"""Events between an executor's connections and its session: read one by one, or heard at once."""

import asyncio
from typing import Any

import pytest

from tests.support.executors import ScriptedExecutor
from tests.support.virtual_time import in_virtual_time
from wove.environment.event_queue import EventQueue, Listener
from wove.environment.orders import Order, make_order
from wove.environment.runs import Outcome
from wove.environment.session_registry import SessionRegistry
from wove.environment.sessions import ExecutorSession
from wove.errors import EnvironmentExecutionError
from wove.options import resolve_options


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


def hearing(heard: list[dict[str, Any]]) -> Listener:
    def hear(event: dict[str, Any], started: bool) -> bool:
        heard.append({"type": "started", **event} if started else event)
        return True

    return hear


async def test_events_come_out_in_their_order() -> None:
    queue = EventQueue()
    queue.put({"n": 1})
    queue.put({"n": 2})
    assert [await queue.get(), await queue.get()] == [{"n": 1}, {"n": 2}]


async def test_a_reader_that_is_cancelled_loses_no_event() -> None:
    queue = EventQueue()
    reader = asyncio.ensure_future(queue.get())
    await settle()
    queue.put({"n": 1})
    reader.cancel()
    await settle()
    assert reader.cancelled()
    assert await queue.get() == {"n": 1}


async def test_an_event_that_the_listener_takes_is_not_read() -> None:
    queue, heard = EventQueue(), list[dict[str, Any]]()
    queue.listen(hearing(heard))
    queue.put({"n": 1})
    queue.listen(None)
    queue.put({"n": 2})
    assert heard == [{"n": 1}]
    assert await queue.get() == {"n": 2}


async def test_an_event_that_the_listener_does_not_take_is_read_and_none_overtakes_it() -> None:
    queue = EventQueue()
    queue.listen(lambda event, started: event["n"] > 1)
    queue.put({"n": 1})
    queue.put({"n": 2})
    assert [await queue.get(), await queue.get()] == [{"n": 1}, {"n": 2}]


async def test_a_reader_is_told_by_an_event_of_its_own_that_a_run_has_started() -> None:
    queue = EventQueue()
    queue.put({"type": "task_result", "run_id": "r", "task_id": "t", "result": 1}, started=True)
    started = await queue.get()
    assert started == {"type": "task_started", "run_id": "r", "task_id": "t"}
    assert (await queue.get())["result"] == 1


async def test_a_listener_is_told_of_the_start_together_with_the_event() -> None:
    queue, heard = EventQueue(), list[dict[str, Any]]()
    queue.listen(hearing(heard))
    queue.put({"n": 1}, started=True)
    assert heard == [{"type": "started", "n": 1}]


async def test_what_the_listener_raises_is_raised_to_the_reader() -> None:
    def refuse(event: dict[str, Any], started: bool) -> bool:
        raise ValueError(f"no {event['n']}")

    queue = EventQueue()
    queue.listen(refuse)
    queue.put({"n": 1})
    with pytest.raises(ValueError, match="no 1"):
        await queue.get()


async def test_a_burst_is_not_heard_all_at_once() -> None:
    queue, heard = EventQueue(), list[dict[str, Any]]()
    queue.listen(hearing(heard))
    events = [{"n": number} for number in range(100)]
    for event in events:
        queue.put(event)
    assert 0 < len(heard) < 100
    assert heard + [await queue.get() for _ in range(100 - len(heard))] == events
    reader = asyncio.ensure_future(queue.get())
    await settle()
    queue.put({"n": 100})
    assert heard[-1] == {"n": 100}
    reader.cancel()


class Heard(ScriptedExecutor):
    """Takes runs without waiting, and passes the events of its queue on at once.

    Attributes:
        refuses: ends a run while it is being taken.
    """

    begins = listens = True

    def __init__(self) -> None:
        super().__init__()
        self.refuses = False
        self.queue = EventQueue()

    def listen(self, listener: Listener) -> None:
        self.queue.listen(listener)

    def begin(self, frame: dict[str, Any]) -> bool:
        self.commands.append(frame)
        if self.refuses:
            self.tell("task_error", frame["run_id"], error="no room")
        return True

    async def recv(self) -> dict[str, Any]:
        return await self.queue.get()

    def tell(self, kind: str, run_id: str, **fields: Any) -> None:
        self.queue.put({"type": kind, "run_id": run_id, "task_id": "t", **fields})


def order(key: str | None = None) -> Order:
    return make_order(
        environment="jobs",
        task_name="t",
        task_func=len,
        task_args={},
        task_info={},
        options=resolve_options({"delivery_idempotency_key": key}),
        scope="jobs",
    )


async def opened(executor: ScriptedExecutor) -> ExecutorSession:
    return await SessionRegistry().open("jobs", {"executor": executor}, run_config={})


@in_virtual_time
async def test_a_run_has_its_result_when_the_executor_has_told_it() -> None:
    executor, replies = Heard(), list[Outcome]()
    session = await opened(executor)
    session.submit(order(), replies.append)
    executor.tell("task_result", executor.commands[0]["run_id"], result=1)
    assert replies == [Outcome(1)]
    await session.release()


@in_virtual_time
async def test_a_run_that_ends_while_it_is_submitted_is_not_shared_with_later_ones() -> None:
    executor, replies = Heard(), list[Outcome]()
    session = await opened(executor)
    executor.refuses = True
    session.submit(order("k"), replies.append)
    await settle()
    executor.refuses = False
    session.submit(order("k"), replies.append)
    await settle()
    first, second = executor.commands
    assert first["run_id"] != second["run_id"]
    assert [type(reply.error) for reply in replies] == [EnvironmentExecutionError]
    executor.tell("task_result", second["run_id"], result=2)
    assert replies[1:] == [Outcome(2)]
    await session.release()


@in_virtual_time
async def test_an_event_that_names_no_run_breaks_an_executor_that_is_listened_to() -> None:
    executor, replies = Heard(), list[Outcome]()
    session = await opened(executor)
    session.submit(order(), replies.append)
    executor.queue.put({"type": "task_result"})
    await settle()
    assert [type(reply.error) for reply in replies] == [EnvironmentExecutionError]
    await session.release()


@in_virtual_time
async def test_a_subclass_with_a_recv_of_its_own_is_read() -> None:
    class Filtering(Heard):
        async def recv(self) -> dict[str, Any]:
            event = await super().recv()
            return {**event, "result": "mine"}

    class Begun(Filtering):
        begins = True

    executor, replies = Begun(), list[Outcome]()
    session = await opened(executor)
    session.submit(order(), replies.append)
    executor.tell("task_result", executor.commands[0]["run_id"], result=1)
    await settle()
    assert replies == [Outcome("mine")]
    await session.release()
