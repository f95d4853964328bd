"""The block: nothing runs before it ends, nothing at all if it raises, and its plan can be read."""

import asyncio
import threading
from typing import Any

import pytest

from tests.support.tasks import seven
from tests.support.waiting import wove_threads
from wove import weave
from wove.errors import UnresolvedSignatureError


def test_nothing_runs_before_the_block_ends() -> None:
    ran: list[str] = []
    with weave() as w:

        @w.do
        def a() -> None:
            ran.append("a")

        assert ran == []
    assert ran == ["a"]


async def test_nothing_runs_before_an_asynchronous_block_ends() -> None:
    ran: list[str] = []
    async with weave() as w:

        @w.do
        async def a() -> None:
            ran.append("a")

        await asyncio.sleep(0)
        assert ran == []
    assert ran == ["a"]


def test_an_exception_of_the_block_leaves_it_unchanged_and_runs_nothing() -> None:
    ran: list[str] = []
    error = ValueError("mine")
    w = weave()

    def block() -> None:
        with w:
            w.do(lambda: ran.append("a"))
            raise error

    with pytest.raises(ValueError, match="mine") as caught:
        block()
    assert caught.value is error
    assert not hasattr(error, "__notes__")
    assert error.__cause__ is None
    assert error.__context__ is None
    assert ran == []
    assert len(w.result) == 0


async def test_an_exception_of_an_asynchronous_block_leaves_it_unchanged_and_runs_nothing() -> None:
    ran: list[str] = []
    error = ValueError("mine")

    async def block() -> None:
        async with weave() as w:
            w.do(lambda: ran.append("a"))
            raise error

    with pytest.raises(ValueError, match="mine") as caught:
        await block()
    assert caught.value is error
    assert not hasattr(error, "__notes__")
    assert ran == []


def test_an_exception_of_a_background_block_starts_no_background() -> None:
    before = wove_threads()

    def block() -> None:
        with weave(background=True) as w:
            w.do(lambda: None)
            raise ValueError("mine")

    with pytest.raises(ValueError, match="mine"):
        block()
    assert wove_threads() == before


def test_a_return_leaves_the_block_and_its_tasks_run() -> None:
    def run() -> Any:
        with weave() as w:
            w.do(seven)
            return w
        raise AssertionError

    assert run().result.seven == 7


def test_an_empty_weave_makes_neither_a_thread_nor_a_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[object] = []
    monkeypatch.setattr(asyncio, "new_event_loop", lambda: made.append("loop"))
    monkeypatch.setattr(threading.Thread, "start", lambda thread: made.append(thread))
    with weave(base=1) as w:
        pass
    assert made == []
    assert len(w.result) == 0
    assert w.result.final is None


async def test_an_empty_weave_lets_nothing_else_run_in_the_loop() -> None:
    ran: list[str] = []
    asyncio.get_running_loop().call_soon(ran.append, "other")
    async with weave():
        pass
    assert ran == []


def test_the_execution_plan_can_be_read_in_the_block_and_after_it() -> None:
    with weave(base=1) as w:

        @w.do
        def a(base: int) -> int:
            return base

        @w.do
        def b(a: int) -> int:
            return a

        assert w.execution_plan["sorted_tasks"] == ["a", "b"]

        @w.do("numbers")
        def c(number: int, a: int) -> int:
            return number + a

        with pytest.raises(UnresolvedSignatureError):
            _ = w.execution_plan

        @w.do
        def numbers() -> list[int]:
            return [1]

    assert w.execution_plan == {
        "dependencies": {"a": set(), "b": {"a"}, "c": {"a", "numbers"}, "numbers": set()},
        "dependents": {"a": {"b", "c"}, "b": set(), "c": set(), "numbers": {"c"}},
        "tiers": [["a", "numbers"], ["b", "c"]],
        "sorted_tasks": ["a", "numbers", "b", "c"],
    }
