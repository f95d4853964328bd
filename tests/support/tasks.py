"""Small functions to declare as tasks."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any


def task_named(name: str, parameters: str, work: Callable[[], Any], *, asynchronous: bool = True) -> Callable[..., Any]:
    """Make a function with parameters; it calls, or awaits, the work."""
    text = f"async def {name}({parameters}): return await work()\n"
    if not asynchronous:
        text = f"def {name}({parameters}): return work()\n"
    namespace: dict[str, Any] = {"work": work}
    exec(text, namespace)
    function: Callable[..., Any] = namespace[name]
    return function


def sleeping(seconds: float) -> Callable[[], Coroutine[Any, Any, None]]:
    """Make a function whose coroutine sleeps."""
    return lambda: asyncio.sleep(seconds)


def seven() -> int:
    return 7


async def eight() -> int:
    await asyncio.sleep(0)
    return 8


def double(number: int) -> int:
    return number * 2


async def double_async(number: int) -> int:
    await asyncio.sleep(0)
    return number * 2
