"""The worker's end of the pipes to its owner."""

import os
import select
import sys
import threading
from collections import deque
from collections.abc import Iterator, Sequence

from wove.backend.framing import (
    FRAMING,
    FRAMING_VARIABLE,
    Frame,
    FrameDecoder,
    LineDecoder,
    hello_line,
    read_hello,
    remaining,
)
from wove.backend.stdio_codec import event_lines, pack_event, started_event
from wove.backend.types import EventFrame


class Channel:
    """Reads commands from and writes events to the process that started this one.

    Reading belongs to one thread; `post`, `post_soon` and `flush` may be called from any.

    Args:
        source: the descriptor that commands come from.
        target: the descriptor that events go to.
        framed: the owner understands Wove's own framing. It has been greeted; JSON lines come until it greets back.
    """

    def __init__(self, source: int, target: int, *, framed: bool) -> None:
        self.framed = framed
        self._source = source
        self._target = target
        self._lock = threading.Lock()
        self._soon: deque[EventFrame] = deque()
        self._decoder: LineDecoder | FrameDecoder = LineDecoder()
        self._readable = select.poll()
        self._readable.register(source, select.POLLIN)
        if framed:
            # Whatever was printed before this process took its stdout over ends here.
            self._write([b"\n" + hello_line()])

    @classmethod
    def take_over(cls) -> "Channel":
        """Take stdin and stdout for the protocol and put something harmless in their place: tasks read the end of a
        file, and what they print goes to stderr.

        The descriptors of the protocol are not inherited by programs that tasks start.
        """
        source, target = os.dup(0), os.dup(1)
        null = os.open(os.devnull, os.O_RDONLY)
        os.dup2(null, 0)
        os.close(null)
        os.dup2(2, 1)
        # Line by line, as on a terminal: what a task prints must not stay here until the worker ends.
        sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
        # Not handed down: a worker that a task starts has another owner.
        return cls(source, target, framed=os.environ.pop(FRAMING_VARIABLE, None) == FRAMING)

    def wait(self, seconds: float) -> bool:
        """Wait for bytes to read, up to `seconds`; tell whether there are any."""
        return bool(self._readable.poll(seconds * 1000))

    def receive(self) -> Sequence[Frame | bytes] | None:
        """Wait for bytes and return the frames and lines that they complete; None when the owner has gone."""
        try:
            count = os.readv(self._source, [self._decoder.buffer()])
        except OSError:
            return None
        if not count:
            return None
        self._decoder.received(count)
        return self._decoded()

    def post(self, event: EventFrame, *, started: bool = False) -> None:
        """Write an event, and before it whatever was posted for later. Waits for the owner to read.

        An event that cannot travel becomes a ``task_error`` that says so. Does nothing when the owner has gone.

        Args:
            event: the event.
            started: say also, first, that the task has started.
        """
        if self.framed:
            buffers = pack_event(event, started=started)
        else:
            buffers = event_lines([started_event(event), event] if started else [event])
        with self._lock:
            self._write([*self._take_soon(), *buffers])

    def post_soon(self, event: EventFrame) -> None:
        """Keep a small event until the next `post` or `flush`. Never waits: may be called where a task may be stopped,
        in the middle of anything.
        """
        self._soon.append(event)

    def flush(self) -> None:
        """Write what was posted for later."""
        if self._soon:
            with self._lock:
                self._write(self._take_soon())

    def _take_soon(self) -> list[bytes]:
        events = [self._soon.popleft() for _ in range(len(self._soon))]
        if not events:
            return []
        pack_all = [buffer for event in events for buffer in pack_event(event)] if self.framed else event_lines(events)
        return [b"".join(pack_all)]

    def forget(self) -> None:
        """Close the descriptors in a forked child. The child cannot post; it ends when it tries."""
        os.close(self._source)
        os.close(self._target)
        self._target = -1

    def _write(self, buffers: Sequence[bytes | memoryview]) -> None:
        if self._target < 0:
            # A task has forked, and the child has come back from the task as if it were the worker.
            os._exit(0)
        try:
            while buffers:
                buffers = remaining(buffers, os.writev(self._target, buffers))
        except OSError:
            pass  # The owner has gone; whoever reads commands notices, too.

    def _decoded(self) -> list[Frame | bytes]:
        decoded: list[Frame | bytes] = []
        if isinstance(self._decoder, LineDecoder):
            decoded += self._lines(self._decoder)
        if isinstance(self._decoder, FrameDecoder):
            while (frame := self._decoder.take()) is not None:
                decoded.append(frame)
        return decoded

    def _lines(self, decoder: LineDecoder) -> Iterator[Frame | bytes]:
        while (line := decoder.take()) is not None:
            hello = read_hello(line)
            if hello is None:
                yield line
                continue
            self._decoder = FrameDecoder(decoder.rest())
            yield Frame(hello, b"")
            return
