"""Waits for what happens on its own time, with a deadline instead of a sleep."""

import asyncio
import threading
import time
from collections.abc import Callable

SECONDS = 10.0


def wait_until(condition: Callable[[], object], *, what: str = "the condition holds") -> None:
    """Block until something holds; fail after `SECONDS`."""
    deadline = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < deadline, f"In {SECONDS} s it did not happen that {what}."
        time.sleep(0.001)


async def wait_in_loop_until(condition: Callable[[], object], *, what: str = "the condition holds") -> None:
    """Let the loop run until something holds; fail after `SECONDS`."""
    deadline = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < deadline, f"In {SECONDS} s it did not happen that {what}."
        await asyncio.sleep(0.001)


def wove_threads() -> set[threading.Thread]:
    """The threads that run tasks, weaves or their traffic, and are alive."""
    return {thread for thread in threading.enumerate() if thread.name.startswith("wove-") and thread.name != "wove-io"}
