"""Weaves in the cells of a notebook: a loop runs in the thread, and goes on from cell to cell."""

import ast
import asyncio
import inspect
from collections.abc import Iterator
from contextvars import ContextVar
from textwrap import dedent
from types import CodeType
from typing import Any

import pytest

from tests.support.waiting import wait_until, wove_threads

request = ContextVar("request", default="none")


class Notebook:
    """Runs cells like IPython's kernel: each as a coroutine of one loop, with ``await`` at the top where it stands."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.names: dict[str, Any] = {"request": request}

    def run(self, cell: str) -> None:
        code = compile(dedent(cell), "<cell>", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
        self.loop.run_until_complete(self._run(code))

    async def _run(self, code: CodeType) -> None:
        answer = eval(code, self.names)
        if inspect.iscoroutine(answer):
            await answer


@pytest.fixture
def notebook() -> Iterator[Notebook]:
    before = wove_threads()
    made = Notebook()
    yield made
    made.loop.close()
    wait_until(lambda: wove_threads() <= before, what="the threads of the weaves end")


def test_a_blocking_weave_works_in_a_cell_and_its_result_in_the_next(notebook: Notebook) -> None:
    notebook.run("""
        from wove import merge, weave

        with weave(base=2) as w:
            @w.do
            async def numbers(base):
                return [base, base + 1]

            @w.do("numbers")
            def square(number):
                return merge(lambda: number**2)
    """)
    notebook.run("squares = w.result.square")
    assert notebook.names["squares"] == [4, 9]


def test_an_asynchronous_weave_works_in_a_cell(notebook: Notebook) -> None:
    notebook.run("""
        from wove import weave

        async with weave() as w:
            @w.do
            async def answer():
                return 42
    """)
    assert notebook.names["w"].result.answer == 42


def test_a_background_of_one_cell_can_be_awaited_in_another(notebook: Notebook) -> None:
    notebook.run("""
        import asyncio
        from wove import weave

        loop, done = asyncio.get_running_loop(), asyncio.Event()
        with weave(background=True, on_done=lambda result: loop.call_soon_threadsafe(done.set)) as w:
            @w.do
            def answer():
                return 42
    """)
    notebook.run("await done.wait()")
    assert notebook.names["w"].result.answer == 42


def test_tasks_of_other_cells_go_on_after_a_blocking_weave(notebook: Notebook) -> None:
    notebook.run("""
        import asyncio
        from wove import weave

        async def ticking():
            for _ in range(3):
                await asyncio.sleep(0)
            return "ticked"

        ticker = asyncio.create_task(ticking())
        loop = asyncio.get_running_loop()
        with weave() as w:
            @w.do
            async def other_loop():
                return asyncio.get_running_loop() is not loop
        ticked_meanwhile = ticker.done()
    """)
    notebook.run("outcome = await ticker")
    assert notebook.names["outcome"] == "ticked"
    assert notebook.names["w"].result.other_loop
    assert not notebook.names["ticked_meanwhile"]


def test_a_failure_is_raised_in_the_cell_that_reads_it(notebook: Notebook) -> None:
    notebook.run("""
        from wove import weave

        with weave() as w:
            w.do(lambda: 1 / 0)
    """)
    with pytest.raises(ZeroDivisionError):
        notebook.run("w.result.final")


def test_context_variables_of_the_cell_are_those_of_the_tasks(notebook: Notebook) -> None:
    notebook.run("""
        from wove import weave

        request.set("the cell's")
        with weave() as w:
            w.do(lambda: request.get())
            @w.do
            async def in_loop():
                return request.get()
    """)
    assert list(notebook.names["w"].result) == ["the cell's"] * 2
