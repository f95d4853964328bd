"""Event loops between two weaves: making and closing one takes longer than everything else that a small weave does."""

import asyncio
import os
import threading
from contextvars import Context

# Three descriptors each. More that are idle at a time are closed.
_MOST = 8

_lock = threading.Lock()
_idle: list[asyncio.Runner] = []


def new_runner() -> asyncio.Runner:
    """Return a runner that leaves the thread's own loop, that of `asyncio.set_event_loop`, as it is."""
    return asyncio.Runner(loop_factory=asyncio.new_event_loop)


def take() -> asyncio.Runner:
    """Return a runner that nobody else uses, to be closed or given back. May be called from any thread."""
    with _lock:
        if _idle:
            return _idle.pop()
    # A loop keeps the context that it is made in, and with it the values of its variables.
    return Context().run(_made)


def _made() -> asyncio.Runner:
    runner = new_runner()
    runner.get_loop()
    return runner


def give(runner: asyncio.Runner) -> bool:
    """Keep a runner on whose loop nothing is left and only Wove's own code has run; return whether it is kept. May be
    called from any thread.
    """
    with _lock:
        if len(_idle) >= _MOST:
            return False
        _idle.append(runner)
        return True


def close_all() -> None:
    """Close the loops that are idle. May be called from any thread."""
    with _lock:
        _close_each()


def _close_each() -> None:
    while _idle:
        _idle.pop().close()


def _before_fork() -> None:
    # The child would share what the parent waits with: a loop that is closed there would deafen the one here.
    _lock.acquire()
    _close_each()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_lock.release, after_in_child=_lock.release)
