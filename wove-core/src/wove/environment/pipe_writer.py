"""Writes to a pipe without ever waiting for its reader."""

import asyncio
import fcntl
import os
import sys
import termios
from collections import deque
from collections.abc import Callable, Sequence

from wove.backend.framing import remaining

_BUFFERS_AT_ONCE = 64


class PipeWriter:
    """The writing end of a pipe on the background loop. What the pipe does not take at once is kept and written later.

    The queue has no bound of its own: whoever writes looks at `unsent` and holds back.

    Attributes:
        position: how many bytes have been given to `write`.
        unsent: how many of them the pipe has not taken yet.

    Args:
        fd: the descriptor; the writer closes it.
        on_empty: called when the queue has been written.
        on_closed: called when the reader has gone.
    """

    def __init__(self, fd: int, *, on_empty: Callable[[], None], on_closed: Callable[[], None]) -> None:
        self.position = 0
        self.unsent = 0
        self._fd = fd
        self._on_empty = on_empty
        self._on_closed = on_closed
        self._queue: deque[bytes | memoryview] = deque()
        self._held = False
        self._taken = 0
        self._received = 0
        self._loop = asyncio.get_running_loop()
        os.set_blocking(fd, False)

    @property
    def closed(self) -> bool:
        return self._fd < 0

    @property
    def received(self) -> int:
        """How many bytes the reader has read; of a closed pipe, until it was closed."""
        return self._received if self.closed else self._taken - _unread(self._fd)

    def write(self, buffers: Sequence[bytes | memoryview]) -> None:
        """Write buffers one after the other. When the writer is closed they only count.

        What follows within the same turn of the loop goes out at its end, in one system call.
        """
        self.position += sum(map(len, buffers))
        if self._fd < 0:
            return
        if not self._queue and not self._held:
            buffers = remaining(buffers, self._try(buffers))
            if self.closed:
                return
            if buffers:
                self._loop.add_writer(self._fd, self._continue)
            else:
                self._held = True
                self._loop.call_soon(self._release)
                return
        self._queue.extend(buffers)
        self.unsent += sum(map(len, buffers))

    def _release(self) -> None:
        self._held = False
        if self._queue:
            self._continue()
            if self._queue:
                self._loop.add_writer(self._fd, self._continue)

    def close(self) -> None:
        """Close the pipe; what has not been written is lost. Idempotent."""
        if self.closed:
            return
        self._received = self.received
        if self._queue:
            self._loop.remove_writer(self._fd)
        self._queue.clear()
        self.unsent = 0
        os.close(self._fd)
        self._fd = -1

    def forget(self) -> None:
        """Close the descriptor in a forked child, whose copy of the loop is not to be touched."""
        if not self.closed:
            os.close(self._fd)
            self._fd = -1

    def _try(self, buffers: Sequence[bytes | memoryview]) -> int:
        try:
            written = os.writev(self._fd, buffers)
        except BlockingIOError:
            return 0
        except OSError:  # Nobody reads any more.
            self.close()
            self._on_closed()
            return 0
        self._taken += written
        return written

    def _continue(self) -> None:
        buffers = [self._queue[index] for index in range(min(len(self._queue), _BUFFERS_AT_ONCE))]
        written = self._try(buffers)
        if self.closed:
            return
        for _ in buffers:
            self._queue.popleft()
        self._queue.extendleft(reversed(remaining(buffers, written)))
        self.unsent -= written
        if not self._queue:
            self._loop.remove_writer(self._fd)
            self._on_empty()


def _unread(fd: int) -> int:
    """Return how many bytes lie in a pipe, see https://man7.org/linux/man-pages/man2/FIONREAD.2const.html."""
    count = bytearray(4)
    fcntl.ioctl(fd, termios.FIONREAD, count)
    return int.from_bytes(count, sys.byteorder)
