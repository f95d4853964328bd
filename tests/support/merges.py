"""Merges, from inside of a task of either kind."""

from collections.abc import Callable
from typing import Any

import pytest

from wove import weave

both_places = pytest.mark.parametrize("asynchronous", [False, True], ids=["in-sync", "in-async"])


def in_task(work: Callable[[], Any], *, asynchronous: bool = False, **options: Any) -> Any:
    """Run ``work`` as the only task of a weave and return its result."""

    def task() -> Any:
        return work()

    async def task_async() -> Any:
        return await work()

    with weave(**options) as w:
        w.do(task_async if asynchronous else task)
    return w.result.final
