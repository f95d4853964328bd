"""The event loops that weaves run on: which of them the next weave gets, and which it never gets."""

import asyncio
import gc
import os
import weakref
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

import wove
from tests.support.executors import ScriptedExecutor
from wove import merge, weave
from wove.plugins import hookimpl, register, unregister
from wove.runtime import RuntimeConfig

Loops = list[asyncio.AbstractEventLoop]


class Observer:
    """Notes on which loop each weave has run."""

    def __init__(self) -> None:
        self.loops: Loops = []

    @hookimpl
    def wove_weave_finished(self) -> None:
        self.loops.append(asyncio.get_running_loop())


class Around(Observer):
    """Has code of its own on the loop."""

    @hookimpl
    @asynccontextmanager
    async def wove_around_task(self) -> AsyncIterator[None]:
        yield


class Answering(ScriptedExecutor):
    """Answers with something that can be watched."""

    async def send(self, frame: dict[str, Any]) -> None:
        if frame["type"] == "run_task":
            self.emit("task_result", frame["run_id"], result=Answer())


class Answer:
    pass


@pytest.fixture(autouse=True)
def elsewhere(configuration: RuntimeConfig) -> Iterator[None]:
    there = {"executor": ScriptedExecutor(auto=True)}
    wove.config(default_environment="here", environments={"here": {"executor": "local"}, "there": there})
    wove.shutdown()
    yield
    wove.shutdown()


@pytest.fixture
def observed() -> Iterator[Loops]:
    observer = Observer()
    name = register(observer)
    yield observer.loops
    unregister(name)


def remote_weave() -> None:
    with weave(environment="there", item=1) as w:

        @w.do
        def echo(item: int) -> int:
            return item

    assert w.result.echo == {"item": 1}


def running_loop() -> asyncio.AbstractEventLoop:
    return asyncio.get_running_loop()


async def loop_of_coroutine() -> asyncio.AbstractEventLoop:
    return running_loop()


async def loops(seen: Loops) -> AsyncIterator[int]:
    seen.append(running_loop())
    yield 1


def coroutine() -> Loops:
    with weave() as w:
        w.do(loop_of_coroutine)
    return [w.result.loop_of_coroutine]


def returned_coroutine() -> Loops:
    with weave() as w:
        w.do(lambda: loop_of_coroutine())
    return [w.result.lambda_1]


def merged_coroutine() -> Loops:
    with weave() as w:

        @w.do
        def task() -> Any:
            return merge(loop_of_coroutine)

    return [w.result.task]


def mapped_coroutine() -> Loops:
    with weave() as w:

        @w.do(range(2))
        async def task(item: int) -> Any:
            return running_loop()

    return list(w.result.task)


def coroutine_beside_a_remote_task() -> Loops:
    with weave(item=1) as w:
        w.do(loop_of_coroutine)

        @w.do(environment="there")
        def echo(item: int) -> int:
            return item

    return [w.result.loop_of_coroutine]


def asynchronous_source() -> Loops:
    seen: Loops = []
    with weave() as w:

        @w.do(loops(seen), environment="there")
        def echo(item: int) -> int:
            return item

    assert len(w.result.echo) == 1
    return seen


def asynchronous_source_by_name() -> Loops:
    seen: Loops = []
    with weave(items=loops(seen)) as w:

        @w.do("items", environment="there")
        def echo(item: int) -> int:
            return item

    assert len(w.result.echo) == 1
    return seen


def plugin_around_a_remote_task() -> Loops:
    around = Around()
    name = register(around)
    try:
        remote_weave()
    finally:
        unregister(name)
    return around.loops


@pytest.mark.parametrize(
    "run",
    [
        coroutine,
        returned_coroutine,
        merged_coroutine,
        mapped_coroutine,
        coroutine_beside_a_remote_task,
        asynchronous_source,
        asynchronous_source_by_name,
        plugin_around_a_remote_task,
    ],
    ids=lambda run: run.__name__,
)
def test_a_loop_on_which_somebody_else_s_code_has_run_ends_with_the_weave(run: Callable[[], Loops]) -> None:
    used = run()
    assert used
    assert all(loop.is_closed() for loop in used)


def test_weaves_whose_tasks_all_run_elsewhere_use_one_loop_after_the_other(observed: Loops) -> None:
    for _ in range(3):
        remote_weave()
    assert len(set(observed)) == 1
    assert not observed[0].is_closed()


def test_weaves_inside_of_each_other_have_loops_of_their_own(observed: Loops) -> None:
    remote_weave()
    with weave() as w:

        @w.do
        def task() -> None:
            remote_weave()

    first, inner, last = observed
    assert first is inner
    assert last is not inner


def test_a_loop_serves_on_after_a_task_has_failed(observed: Loops) -> None:
    executor = ScriptedExecutor(auto=True)
    executor.failures["run_task"] = OSError("gone")
    wove.config(environments={"there": {"executor": executor}})
    with weave(environment="there") as failed:

        @failed.do
        def task() -> None: ...

    assert failed.result.exception is not None
    executor.failures.clear()
    remote_weave()
    assert observed[0] is observed[1]


def test_a_loop_is_closed_when_its_weave_could_not_run(observed: Loops) -> None:
    executor = ScriptedExecutor()
    executor.start_failure = OSError("gone")
    wove.config(environments={"there": {"executor": executor}})
    with pytest.raises(OSError, match="gone"):
        remote_weave()
    assert observed[0].is_closed()


def test_a_shutdown_closes_the_loop_that_is_left(observed: Loops) -> None:
    remote_weave()
    wove.shutdown()
    assert observed[0].is_closed()


def test_a_loop_that_is_left_keeps_nothing_of_the_weave() -> None:
    wove.config(environments={"there": {"executor": Answering()}})

    def run() -> "weakref.ref[Answer]":
        with weave() as w:

            @w.do(environment="there")
            def task() -> None: ...

        assert isinstance(w.result.task, Answer)
        return weakref.ref(w.result.task)

    answer = run()
    gc.collect()
    assert answer() is None


def test_the_loop_that_a_thread_has_set_stays_its_own() -> None:
    own = asyncio.new_event_loop()
    asyncio.set_event_loop(own)
    try:
        remote_weave()
        coroutine()
        assert asyncio.get_event_loop() is own
    finally:
        asyncio.set_event_loop(None)
        own.close()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_a_forked_process_does_not_share_loops(observed: Loops) -> None:
    remote_weave()
    child = os.fork()
    if child == 0:
        os._exit(0 if observed[0].is_closed() else 1)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    remote_weave()
    assert observed[1] is not observed[0]
