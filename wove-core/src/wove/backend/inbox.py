"""Frames on their way from the receiver to whoever waits for them."""

import asyncio
import threading
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any

Listener = Callable[[dict[str, Any]], None]

# A reader that is this far behind makes the receiver answer "try again later".
MOST_WAITING = 10_000
_UNPICKLED_AT_ONCE = 2


class Inbox:
    """A queue of event frames: written on the background loop, read on any one loop.

    A reader that is cancelled loses no frame, whichever loop it runs on.

    Attributes:
        unpickling: held while a large frame is decoded.
    """

    def __init__(self) -> None:
        self._frames: deque[dict[str, Any]] = deque()
        self._lock = threading.Lock()
        self._waiting: tuple[asyncio.AbstractEventLoop, asyncio.Future[None]] | None = None
        self._closed = False
        self._tasks: set[asyncio.Task[None]] = set()
        self._listener: Listener | None = None
        self.unpickling = asyncio.Semaphore(_UNPICKLED_AT_ONCE)

    @property
    def full(self) -> bool:
        """Whether the reader is so far behind that no more events should be accepted."""
        return len(self._frames) >= MOST_WAITING

    def put(self, frame: dict[str, Any]) -> None:
        """Append a frame. The caller has looked at `full`; a frame that has been accepted is never dropped."""
        if self._listener is not None:
            self._listener(frame)
            return
        with self._lock:
            self._frames.append(frame)
        self._wake()

    def listen(self, listener: "Listener") -> None:
        """Pass every frame on at once, on the background loop, in place of `get`. Called before there are any."""
        self._listener = listener

    def spawn(self, coroutine: Coroutine[Any, Any, None]) -> "asyncio.Task[None]":
        """Start what will put a frame. It ends by itself, also after `close`."""
        task = asyncio.get_running_loop().create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def get(self) -> dict[str, Any]:
        """Return the next frame; waits until there is one. One reader at a time.

        Raises:
            RuntimeError: the inbox is closed, or another reader waits.
        """
        while True:
            with self._lock:
                if self._frames:
                    return self._frames.popleft()
                if self._closed:
                    raise RuntimeError("The callback receiver is closed; no more events arrive.")
                if self._waiting is not None:
                    raise RuntimeError("Another recv() already waits for the next event.")
                loop = asyncio.get_running_loop()
                wake = loop.create_future()
                self._waiting = (loop, wake)
            try:
                await wake
            finally:
                with self._lock:
                    self._waiting = None

    def close(self) -> None:
        """Let the waiting reader and all later ones end with an error once the frames that are here have been read."""
        with self._lock:
            self._closed = True
        self._wake()

    def _wake(self) -> None:
        with self._lock:
            waiting = self._waiting
        if waiting is None:
            return
        loop, wake = waiting
        if loop is _running_loop():
            # Mostly: waking another thread's loop costs a system call.
            _set(wake)
            return
        try:
            loop.call_soon_threadsafe(_set, wake)
        except RuntimeError:
            pass  # The reader's loop is closed; nobody waits any more.


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


def _set(wake: "asyncio.Future[None]") -> None:
    if not wake.done():
        wake.set_result(None)
