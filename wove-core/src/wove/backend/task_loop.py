"""An event loop in a thread of its own, for the coroutines of a worker process."""

import asyncio
import threading
from collections.abc import Coroutine
from typing import Any


class TaskLoop:
    """Runs coroutines side by side. The thread starts with the first one and is a daemon. Callable from any thread.

    A coroutine that is given must not raise.
    """

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._lock = threading.Lock()

    def submit(self, coroutine: Coroutine[Any, Any, None]) -> None:
        """Start a coroutine."""
        with self._lock:
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                threading.Thread(target=self._run, args=(self._loop,), name="wove-task-loop", daemon=True).start()
        self._loop.call_soon_threadsafe(self._begin, self._loop, coroutine)

    def _run(self, loop: asyncio.AbstractEventLoop) -> None:
        asyncio.set_event_loop(loop)
        loop.run_forever()

    def _begin(self, loop: asyncio.AbstractEventLoop, coroutine: Coroutine[Any, Any, None]) -> None:
        task = loop.create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
