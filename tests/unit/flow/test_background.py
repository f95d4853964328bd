"""Weaves that go on after their block, in a thread; and what is checked before one goes on in a process."""

import asyncio
import logging
import os
import stat
import subprocess
import threading
from contextvars import ContextVar
from queue import SimpleQueue
from typing import Any

import pytest

from tests.support.executors import ScriptedExecutor
from tests.support.waiting import SECONDS, wait_until, wove_threads
from wove import WoveResult, merge, serialization, weave
from wove.errors import (
    CircularDependencyError,
    MissingDispatchFeatureError,
    SerializationError,
    TaskCancelledError,
    UnresolvedSignatureError,
)
from wove.options import ErrorMode
from wove.runtime import RuntimeConfig

request = ContextVar("request", default="none")


class Done:
    """An ``on_done`` that keeps what it gets."""

    def __init__(self) -> None:
        self._results: SimpleQueue[WoveResult] = SimpleQueue()

    def __call__(self, result: WoveResult) -> None:
        self._results.put(result)

    def wait(self) -> WoveResult:
        return self._results.get(timeout=SECONDS)


# --- in a thread ---


def test_the_block_ends_at_once_and_on_done_gets_the_result() -> None:
    done, go_on = Done(), threading.Event()
    with weave(background=True, on_done=done) as w:

        @w.do
        def first() -> int:
            assert go_on.wait(SECONDS)
            return 1

        @w.do
        async def second(first: int) -> int:
            return first + 1

    go_on.set()
    result = done.wait()
    assert result is w.result
    assert list(result) == [1, 2]


async def test_an_asynchronous_block_ends_at_once_too() -> None:
    done, go_on = Done(), threading.Event()
    async with weave(background=True, on_done=done) as w:

        @w.do
        def task() -> bool:
            return go_on.wait(SECONDS)

    go_on.set()
    assert (await asyncio.to_thread(done.wait)).task is True


def test_on_done_may_be_asynchronous() -> None:
    results: SimpleQueue[Any] = SimpleQueue()

    async def on_done(result: WoveResult) -> None:
        await asyncio.sleep(0)
        results.put(result.task)

    with weave(background=True, on_done=on_done) as w:

        @w.do
        def task() -> int:
            return 5

    assert results.get(timeout=SECONDS) == 5


def test_on_done_is_called_after_a_failure_too() -> None:
    done, error = Done(), LookupError("mine")
    with weave(background=True, on_done=done) as w:

        @w.do
        def fails() -> None:
            raise error

    result = done.wait()
    assert result.exception is error
    with pytest.raises(LookupError):
        _ = w.result.fails


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit, BaseException])
def test_on_done_is_called_after_an_interrupt_or_an_exit_of_a_task(kind: type[BaseException]) -> None:
    done = Done()
    with weave(background=True, on_done=done) as w:

        @w.do
        def fails() -> None:
            raise kind

        @w.do
        async def other() -> None:
            await asyncio.sleep(SECONDS)

    result = done.wait()
    assert isinstance(result.exception, kind)
    assert len(result.failures) == 1
    assert result.cancelled == {"other"}


@pytest.mark.parametrize("kind", [ValueError, SystemExit])
@pytest.mark.parametrize("asynchronous", [False, True], ids=["sync", "async"])
def test_an_on_done_that_raises_is_logged(
    asynchronous: bool, kind: type[BaseException], caplog: pytest.LogCaptureFixture
) -> None:
    def on_done(result: WoveResult) -> None:
        raise kind("callback")

    async def on_done_async(result: WoveResult) -> None:
        raise kind("callback")

    before = wove_threads()
    with weave(background=True, on_done=on_done_async if asynchronous else on_done) as w:
        w.do(lambda: 1)
    wait_until(lambda: wove_threads() <= before, what="the background ends")
    (record,) = [record for record in caplog.records if record.name == "wove"]
    assert record.levelno == logging.ERROR
    assert record.getMessage().endswith(f"on_done{'_async' if asynchronous else ''}.")
    assert record.exc_info is not None
    assert isinstance(record.exc_info[1], kind)


def test_a_background_needs_no_on_done() -> None:
    before, ran = wove_threads(), threading.Event()
    with weave(background=True) as w:
        w.do(ran.set)
    assert ran.wait(SECONDS)
    wait_until(lambda: wove_threads() <= before, what="the background ends")
    assert w.result.set is None


def test_tasks_and_on_done_see_the_context_variables_of_the_caller() -> None:
    seen: SimpleQueue[str] = SimpleQueue()
    token = request.set("caller's")
    try:
        with weave(background=True, on_done=lambda result: seen.put(request.get())) as w:
            w.do(lambda: seen.put(request.get()))
    finally:
        request.reset(token)
    assert [seen.get(timeout=SECONDS), seen.get(timeout=SECONDS)] == ["caller's"] * 2


def test_on_done_is_no_place_to_merge_in() -> None:
    errors: SimpleQueue[BaseException] = SimpleQueue()

    def on_done(result: WoveResult) -> None:
        try:
            merge(len, ["a"])
        except RuntimeError as error:
            errors.put(error)

    with weave(background=True, on_done=on_done) as w:
        w.do(lambda: 1)
    assert not isinstance(errors.get(timeout=SECONDS), TaskCancelledError)


@pytest.mark.parametrize("error_mode", ["raise", "return", "exit"])
def test_a_result_that_is_not_there_yet_says_so_in_every_error_mode(error_mode: ErrorMode) -> None:
    done, go_on = Done(), threading.Event()
    with weave(background=True, on_done=done, error_mode=error_mode) as w:

        @w.do
        def task() -> bool:
            return go_on.wait(SECONDS)

    with pytest.raises(RuntimeError, match="Task 'task' has no result yet: its weave has not ended"):
        _ = w.result.task
    assert len(w.result) == 1
    assert w.result.exception is None
    go_on.set()
    assert done.wait().task is True


def test_what_is_wrong_with_the_graph_is_said_at_the_end_of_the_block() -> None:
    before = wove_threads()
    w = weave(background=True)
    w.do(lambda nothing: None)
    with pytest.raises(UnresolvedSignatureError), w:
        pass
    assert wove_threads() == before


def test_several_backgrounds_run_at_the_same_time() -> None:
    meeting, done = threading.Barrier(3), Done()
    for _ in range(3):
        with weave(background=True, on_done=done) as w:
            w.do(lambda: meeting.wait(SECONDS))
    assert sorted(done.wait().final for _ in range(3)) == [0, 1, 2]


def test_a_background_may_start_another_one_when_it_is_done() -> None:
    done = Done()

    def again(result: WoveResult) -> None:
        with weave(background=True, on_done=done, before=result.final) as w:
            w.do(lambda before: before + 1)

    with weave(background=True, on_done=again) as w:
        w.do(lambda: 1)
    assert done.wait().final == 2


# --- before a process is started ---


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Catch the processes that would be started: the files that they would read."""
    files: list[Any] = []

    class Popen:
        def __init__(self, command: list[str], *, stdin: Any, **options: Any) -> None:
            files.append((os.fstat(stdin.fileno()), stdin.read(), options))

        def wait(self) -> int:
            return 0

    monkeypatch.setattr(subprocess, "Popen", Popen)
    return files


def test_a_process_gets_its_work_in_a_private_file_without_a_name(started: list[Any]) -> None:
    with weave(background=True, fork=True) as w:
        w.do(lambda: 1)
    ((status, content, options),) = started
    assert stat.S_IMODE(status.st_mode) == 0o600
    assert status.st_nlink == 0
    assert content
    assert options["start_new_session"]


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("task", "Cannot send task 'uses_lock' to a background process: .* closure variable 'lock' cannot be pickled"),
        ("value", "Cannot send the initial value 'value' to a background process: .* cannot be pickled"),
        ("on_done", "Cannot send on_done to a background process: .* closure variable 'lock' cannot be pickled"),
        ("executor", "Cannot send the configuration to a background process: .* cannot be pickled"),
    ],
)
def test_what_cannot_be_pickled_is_an_error_at_the_end_of_the_block_and_starts_no_process(
    what: str, message: str, started: list[Any], configuration: RuntimeConfig
) -> None:
    lock = threading.Lock()

    def uses_lock(*_: object) -> None:
        lock.acquire()

    values: dict[str, Any] = {"value": lock} if what == "value" else {}
    w = weave(background=True, fork=True, on_done=uses_lock if what == "on_done" else None, **values)
    w.do(uses_lock if what == "task" else lambda: 1)
    if what == "executor":
        executor = ScriptedExecutor()
        executor.config = {"lock": lock}
        configuration.configure(environments={"remote": {"executor": executor}})
    with pytest.raises(SerializationError, match=message), w:
        pass
    assert started == []


def test_what_is_wrong_with_the_graph_is_said_before_a_process_is_started(started: list[Any]) -> None:
    w = weave(background=True, fork=True)
    w.do(_self_needing)
    with pytest.raises(CircularDependencyError), w:
        pass
    assert started == []


def _self_needing(_self_needing: object) -> None: ...


def test_without_the_serializer_a_process_is_refused_with_the_command_that_installs_it(
    started: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serialization, "cloudpickle", None)
    w = weave(background=True, fork=True)
    w.do(lambda: 1)
    with pytest.raises(MissingDispatchFeatureError, match=r"fork=True.*dispatch") as caught, w:
        pass
    assert "fork=True" in caught.value.reason
    assert started == []
