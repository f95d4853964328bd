"""What runs on the background loop while a thread waits for it."""

import asyncio
import threading
from collections.abc import Callable, Coroutine
from contextvars import Context
from typing import Any


class BackgroundRun:
    """A coroutine on the background loop that one thread waits for.

    Args:
        run: makes the coroutine.
        context: what it runs in.

    Attributes:
        failure: what the coroutine has raised, once it is over.
    """

    def __init__(self, run: Callable[[], Coroutine[Any, Any, None]], context: Context) -> None:
        self.failure: BaseException | None = None
        self._run = run
        self._context = context
        self._over = threading.Event()

    def wait(self, seconds: float | None = None) -> bool:
        """Wait until it is over, at most some seconds; return whether it is."""
        return self._over.wait(seconds)

    def begin(self, loop: asyncio.AbstractEventLoop) -> "asyncio.Task[None]":
        """Begin. Called on the background loop."""
        # Not by `create_task`, so that no task factory can change what happens.
        return asyncio.Task(self._contained(), loop=loop, context=self._context)

    def end(self, failure: BaseException | None) -> None:
        """Let the thread go on. Only the first end counts."""
        if not self._over.is_set():
            self.failure = failure
            self._over.set()

    async def _contained(self) -> None:
        # SystemExit and KeyboardInterrupt would end the whole loop.
        try:
            await self._run()
        except BaseException as error:
            self.end(error)
        else:
            self.end(None)
