"""What needs asyncio, and loads it where there is a coroutine.

It takes as long to load as all the rest of a worker, and a batch system starts a process for every task, most of which
never need it.
"""

import contextvars
import sys
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


def run_in_own_loop(coroutine: Coroutine[Any, Any, T]) -> T:
    """Return what a coroutine returns, run in a loop of its own, also where a loop runs in this thread already."""
    import asyncio
    from concurrent.futures import ThreadPoolExecutor

    if not _in_running_loop():
        return asyncio.run(coroutine)
    # Called synchronously inside of a loop, which cannot run another one in the same thread.
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(contextvars.copy_context().run, asyncio.run, coroutine).result()


def _in_running_loop() -> bool:
    import asyncio

    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def is_being_cancelled() -> bool:
    """Tell whether somebody has cancelled the running task, which has not ended yet."""
    import asyncio

    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def is_cancellation(error: BaseException) -> bool:
    """Tell whether an exception is asyncio's `CancelledError`."""
    # Where asyncio has not been loaded, nobody can have raised it.
    asyncio = sys.modules.get("asyncio.exceptions")
    return asyncio is not None and isinstance(error, asyncio.CancelledError)
