"""What a worker process writes to stderr: passed on to this process's stderr, the last lines kept for errors."""

import asyncio
import codecs
import os
import sys
from collections import deque

from wove.backend.threads import in_daemon_thread

LINES_KEPT = 20
LONGEST_LINE = 500
_CHUNK = 1 << 14
_MOST_CHUNKS_AT_CLOSE = 64


class WorkerStderr:
    """Reads one worker's stderr on the background loop until `close`.

    Writing to this process's stderr happens in a thread, and nothing more is read meanwhile: a stuck terminal blocks
    the worker, not the loop.
    """

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._lines: deque[str] = deque(maxlen=LINES_KEPT)
        self._partial = ""
        self._loop = asyncio.get_running_loop()
        self._passing: asyncio.Task[None] | None = None
        self._closed = False
        os.set_blocking(fd, False)
        self._loop.add_reader(fd, self._readable)

    def tail(self) -> str:
        """Return the last lines, the latest at the end; an empty string if there are none."""
        return "\n".join([*self._lines, *([self._partial] if self._partial else [])])

    def keep(self, line: str) -> None:
        """Remember a line that did not come through stderr."""
        self._lines.append(line[:LONGEST_LINE])

    async def close(self) -> None:
        """Take what has been written until now and stop reading. Idempotent."""
        if self._closed:
            return
        self._closed = True
        self._loop.remove_reader(self._fd)
        if self._passing is not None:
            await asyncio.wait([self._passing])
        chunks: list[bytes] = []
        # A child of the worker may have inherited the pipe and write on for ever.
        while len(chunks) < _MOST_CHUNKS_AT_CLOSE and (chunk := self._read()):
            chunks.append(chunk)
        if chunks:
            await _pass_on(self._taken(b"".join(chunks)))

    def _readable(self) -> None:
        # Removed at the end of the stream too: it would be readable for ever.
        self._loop.remove_reader(self._fd)
        if chunk := self._read():
            self._passing = self._loop.create_task(_pass_on(self._taken(chunk)))
            self._passing.add_done_callback(self._passed)

    def _passed(self, passing: "asyncio.Task[None]") -> None:
        self._passing = None
        if not self._closed:
            self._loop.add_reader(self._fd, self._readable)

    def _read(self) -> bytes:
        try:
            return os.read(self._fd, _CHUNK)
        except OSError:  # Nothing there just now, or nobody at the other end.
            return b""

    def _taken(self, chunk: bytes) -> str:
        text = self._decoder.decode(chunk)
        *lines, partial = (self._partial + text).split("\n")
        for line in lines:
            self.keep(line.rstrip("\r"))
        self._partial = partial[:LONGEST_LINE]
        return text


async def _pass_on(text: str) -> None:
    try:
        await in_daemon_thread(_write, text)
    except RuntimeError:  # At the interpreter's exit no thread can be started any more.
        _write(text)


def _write(text: str) -> None:
    try:
        if sys.stderr is not None:
            sys.stderr.write(text)
            sys.stderr.flush()
    except Exception:  # A program may have put anything in place of its stderr, also something that is closed.
        pass
