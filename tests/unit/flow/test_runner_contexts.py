"""What context variables tasks see: those of the caller, and none of each other."""

from contextvars import ContextVar
from typing import Any

import pytest

from tests.support.tasks import task_named
from wove import weave

pytestmark = pytest.mark.usefixtures("nothing_is_left")

request = ContextVar("request", default="none")


def test_tasks_see_the_context_variables_of_the_caller() -> None:
    token = request.set("caller's")
    try:
        with weave() as w:

            @w.do
            async def in_loop() -> str:
                return request.get()

            @w.do
            def in_thread() -> str:
                return request.get()

            @w.do(timeout=60.0)
            def in_thread_with_timeout() -> str:
                return request.get()

            @w.do([1])
            async def item_in_loop(item: int) -> str:
                return request.get()

            @w.do([1])
            def item_in_thread(item: int) -> str:
                return request.get()

            @w.do([1], timeout=60.0)
            def item_in_thread_with_timeout(item: int) -> str:
                return request.get()

            @w.do(request.get() for _ in range(1))
            def source_in_thread(item: str) -> str:
                return item

            @w.do(request.get() for _ in range(1))
            async def source_in_loop(item: str) -> str:
                return item

    finally:
        request.reset(token)
    seen = [value[0] if isinstance(value, list) else value for value in w.result]
    assert seen == ["caller's"] * 8


@pytest.mark.parametrize("asynchronous", [True, False], ids=["async", "sync"])
@pytest.mark.parametrize("options", [{}, {"timeout": 60.0}], ids=["plain", "timeout"])
def test_what_one_task_or_item_sets_no_other_one_sees(options: dict[str, Any], asynchronous: bool) -> None:
    def set_and_tell() -> str:
        seen = request.get()
        request.set("a task's")
        return seen

    async def set_and_tell_async() -> str:
        return set_and_tell()

    work = set_and_tell_async if asynchronous else set_and_tell
    with weave(max_workers=1, **options) as w:
        w.do(task_named("first", "", work, asynchronous=asynchronous))
        w.do(task_named("second", "first", work, asynchronous=asynchronous))
        w.do([1, 2])(task_named("items", "item, second", work, asynchronous=asynchronous))
    assert list(w.result) == ["none", "none", ["none", "none"]]
    assert request.get() == "none"
