"""Shared runs under any order of events: sessions, keys and waiters, in virtual time."""

import asyncio
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.executors import ScriptedExecutor
from tests.support.virtual_time import VirtualTimeLoop
from wove.environment.orders import make_order
from wove.environment.runs import Outcome
from wove.environment.session_registry import SessionRegistry
from wove.environment.sessions import ExecutorSession, Submission
from wove.errors import DeliveryError, TaskCancelledError
from wove.options import resolve_options

NAMES = ("jobs", "mails")


class Waiter:
    """Somebody who waits for a run.

    Attributes:
        replies: what they were answered; in the end exactly one outcome.
        left: whether they have given up.
    """

    def __init__(self, key: str | None, options: dict[str, Any]) -> None:
        self.key = key
        self.options = options
        self.replies: list[Outcome] = []
        self.left = False
        self.submission: Submission | None = None


class World:
    """Two sessions of one process, their executors, and everybody who ever waited."""

    def __init__(self) -> None:
        self.registry = SessionRegistry()
        self.executors = [ScriptedExecutor(), ScriptedExecutor()]
        self.sessions: list[ExecutorSession] = []
        self.waiters: list[Waiter] = []
        self.ended: set[str] = set()

    async def open(self) -> None:
        for name, executor in zip(NAMES, self.executors, strict=True):
            self.sessions.append(await self.registry.open(name, {"executor": executor}, run_config={}))

    @property
    def runs(self) -> list[tuple[ScriptedExecutor, dict[str, Any]]]:
        """Every run that was ever sent, in order, with its executor."""
        return [
            (executor, frame)
            for executor in self.executors
            for frame in executor.commands
            if frame["type"] == "run_task"
        ]

    def submit(self, where: int, key: str | None, options: dict[str, Any]) -> None:
        waiter = Waiter(key, options)
        order = make_order(
            environment=NAMES[where],
            task_name="t",
            task_func=len,
            task_args={},
            task_info={},
            options=resolve_options({**options, "delivery_idempotency_key": key}),
            scope="everywhere",
        )
        waiter.submission = self.sessions[where].submit(order, waiter.replies.append)
        self.waiters.append(waiter)

    def leave(self, index: int) -> None:
        waiting = [waiter for waiter in self.waiters if not waiter.replies]
        if waiting:
            waiter = waiting[index % len(waiting)]
            answered = [other for other in self.waiters if other.replies]
            waiter.left = True
            assert waiter.submission is not None
            waiter.submission.leave(TaskCancelledError("t"))
            answered_now = [other for other in self.waiters if other.replies and other not in answered]
            assert answered_now in ([], [waiter]), "one waiter's leaving answered another"

    def finish(self, index: int) -> None:
        running = [run for run in self.runs if run[1]["run_id"] not in self.ended]
        if running:
            executor, frame = running[index % len(running)]
            self.ended.add(frame["run_id"])
            executor.emit("task_result", frame["run_id"], result=(frame["run_id"], frame["delivery"]))

    def check(self) -> None:
        for waiter in self.waiters:
            assert len(waiter.replies) <= 1, "answered twice"
        executions = {key: self.concurrent(key) for key in ("a", "b")}
        assert all(count <= 1 for count in executions.values()), executions

    def concurrent(self, key: str) -> int:
        """Count the runs of a key that somebody who has not left waits for."""
        cancelled = {frame["run_id"] for each in self.executors for frame in each.commands if "callable" not in frame}
        closed = {run_id for each in self.executors for run_id in each.closed_runs}
        return sum(
            frame["delivery"].get("delivery_idempotency_key") == key
            and frame["run_id"] not in cancelled | closed | self.ended
            for _, frame in self.runs
        )


OPTIONS = st.fixed_dictionaries(
    {},
    optional={
        "delivery_timeout": st.sampled_from([1.0, 4.0]),
        "delivery_cancel_mode": st.just("require_ack"),
        "delivery_orphan_policy": st.sampled_from(["cancel", "requeue", "fail"]),
    },
)
STEPS = st.one_of(
    st.tuples(st.just("submit"), st.integers(0, 1), st.sampled_from(["a", "b", None]), OPTIONS),
    st.tuples(st.just("leave"), st.integers(0, 9)),
    st.tuples(st.just("finish"), st.integers(0, 9)),
    st.tuples(st.just("break"), st.integers(0, 1)),
    st.tuples(st.just("wait"), st.sampled_from([0.0, 0.1, 1.0, 6.0])),
)


async def live(steps: list[tuple[Any, ...]]) -> None:
    world = World()
    await world.open()
    for step, *details in steps:
        if step == "wait":
            await asyncio.sleep(details[0])
        elif step == "break":
            world.executors[details[0]].break_down(ConnectionResetError())
        else:
            getattr(world, step)(*details)
        # Two turns bring an emitted event to its waiter, and a submission to the executor.
        for _ in range(8):
            await asyncio.sleep(0)
        world.check()
    for session in world.sessions:
        await session.release()
    await world.registry.close()
    for waiter in world.waiters:
        [outcome] = waiter.replies
        if outcome.error is None:
            value: Any = outcome.value
            run_id, delivery = value
            assert delivery.get("delivery_idempotency_key") == waiter.key
            assert run_id in world.ended
        else:
            assert isinstance(outcome.error, DeliveryError | TaskCancelledError | ConnectionResetError)
            assert waiter.left or not isinstance(outcome.error, TaskCancelledError)
    assert all(executor.starts == executor.stops for executor in world.executors)


@settings(max_examples=200, deadline=None)
@given(st.lists(STEPS, max_size=25))
def test_every_waiter_is_answered_once_and_no_key_runs_twice_at_a_time(steps: list[tuple[Any, ...]]) -> None:
    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        runner.run(live(steps))
