"""How messages follow each other on a pipe: JSON lines for any worker, length-prefixed frames for Wove's own.

Nothing here reads or writes. A decoder says where the next bytes go (`buffer`), is told how many came (`received`) and
hands out what is complete (`take`), so the same code serves a blocking reader and an event loop.

A frame of Wove's own is a prefix, a head (a pickled dict) and a body (the one value that may be large, as pickled bytes
that nobody has to copy or to encode as text).
"""

import json
import pickle
import struct
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

FRAMING = "wove-1"
FRAMING_VARIABLE = "WOVE_STDIO_FRAMING"

# A line that long is not a frame but a program gone wild: the memory of the reader is worth more.
MAX_LINE = 1 << 30

_MAGIC = b"wove"
_PREFIX = struct.Struct("<4sIQ")
_CHUNK = 1 << 16
_LARGEST_SCRATCH = 1 << 22
# Joining copies: worth it for small buffers, and for more of them than one system call takes.
_JOINED_UP_TO = 1 << 16
_MOST_PIECES = 16


class Frame(NamedTuple):
    """A received frame. The body is empty where the frame's type has none; see `FrameDecoder` for how long it lives."""

    head: dict[str, Any]
    body: bytes | memoryview


def pack(head: Mapping[str, Any], body: Sequence[bytes] = ()) -> list[bytes]:
    """Return the buffers of one frame, at most a few, in the order in which they are to be written.

    Args:
        head: small values that any pickle can hold.
        body: the pieces of the large value's pickle.
    """
    packed = pickle.dumps(head, pickle.HIGHEST_PROTOCOL)
    size = sum(map(len, body))
    prefix = _PREFIX.pack(_MAGIC, len(packed), size)
    if size > _JOINED_UP_TO and len(body) <= _MOST_PIECES:
        return [b"".join((prefix, packed, body[0])), *body[1:]]
    return [b"".join((prefix, packed, *body))]


def hello_line(**settings: object) -> bytes:
    """Return the line after which its sender speaks Wove's own framing."""
    return json.dumps({"type": "hello", "framing": FRAMING, **settings}).encode("ascii") + b"\n"


def read_hello(line: bytes) -> dict[str, Any] | None:
    """Return the settings of a hello line, or None for any other line."""
    if FRAMING.encode() not in line:
        return None
    try:
        message = json.loads(line)
    except ValueError:
        return None
    is_hello = isinstance(message, dict) and message.get("type") == "hello" and message.get("framing") == FRAMING
    return message if is_hello else None


class FrameDecoder:
    """Splits a stream of Wove's own frames.

    Args:
        start: bytes of the stream that were read before.
        keep: bodies may be kept. Otherwise one is valid until the next `take`, which spares most of them a copy.
    """

    __slots__ = ("_begin", "_end", "_keep", "_large", "_large_end", "_scratch", "_view")

    def __init__(self, start: bytes = b"", *, keep: bool = True) -> None:
        self._keep = keep
        self._begin = 0
        self._end = 0
        self._large: memoryview | None = None
        self._large_end = 0
        self._use_scratch(max(_CHUNK, len(start)), start)

    def buffer(self) -> memoryview:
        """Return where the next bytes of the stream go; never empty after a `take` that returned None."""
        if self._large is not None:
            return self._large[self._large_end :]
        return self._view[self._end :]

    def received(self, count: int) -> None:
        """Say how many bytes were written into the last `buffer`."""
        if self._large is not None:
            self._large_end += count
        else:
            self._end += count

    def take(self) -> Frame | None:
        """Return the next complete frame, or None until more bytes have come.

        Raises:
            ValueError: the stream is no stream of frames.
        """
        if self._large is not None:
            return self._take_large(self._large)
        available = self._end - self._begin
        if available < _PREFIX.size:
            self._make_room()
            return None
        magic, head_size, body_size = _PREFIX.unpack_from(self._scratch, self._begin)
        if magic != _MAGIC:
            raise ValueError("The stream holds something that is no frame.")
        size = _PREFIX.size + head_size + body_size
        if available >= size:
            data = self._view[self._begin : self._begin + size]
            self._begin += size
            return _frame(data, head_size, copy=self._keep)
        self._make_room_for(size)
        return None

    def _take_large(self, large: memoryview) -> Frame | None:
        if self._large_end < len(large):
            return None
        self._large = None
        _, head_size, _ = _PREFIX.unpack_from(large)
        return _frame(large, head_size, copy=False)

    def _make_room_for(self, size: int) -> None:
        """Let `buffer` return enough room for a frame: in the memory that is used again and again, if it is not kept
        and not too large for that.
        """
        if size <= len(self._scratch):
            self._make_room()
        elif not self._keep and size <= _LARGEST_SCRATCH:
            self._use_scratch(1 << (size - 1).bit_length(), self._view[self._begin : self._end])
        else:
            known = self._view[self._begin : self._end]
            self._large = memoryview(bytearray(size))
            self._large[: len(known)] = known
            self._large_end = len(known)
            self._begin = self._end = 0

    def _make_room(self) -> None:
        if self._begin == self._end:
            self._begin = self._end = 0
        elif self._begin:
            rest = bytes(self._view[self._begin : self._end])
            self._scratch[: len(rest)] = rest
            self._begin, self._end = 0, len(rest)

    def _use_scratch(self, size: int, content: bytes | memoryview) -> None:
        scratch = bytearray(size)
        scratch[: len(content)] = content
        self._scratch, self._view = scratch, memoryview(scratch)
        self._begin, self._end = 0, len(content)


def _frame(data: memoryview, head_size: int, *, copy: bool) -> Frame:
    body_at = _PREFIX.size + head_size
    head = pickle.loads(data[_PREFIX.size : body_at])
    body = data[body_at:]
    return Frame(head, bytes(body) if copy else body)


class LineDecoder:
    """Splits a stream of lines of any length."""

    __slots__ = ("_chunk", "_lines", "_parts", "_size", "_view")

    def __init__(self) -> None:
        self._chunk = bytearray(_CHUNK)
        self._view = memoryview(self._chunk)
        self._parts: list[bytes] = []
        self._size = 0
        self._lines: deque[bytes] = deque()

    def buffer(self) -> memoryview:
        """Return where the next bytes of the stream go."""
        return self._view

    def received(self, count: int) -> None:
        """Say how many bytes were written into the last `buffer`.

        Raises:
            ValueError: the line that has begun is longer than `MAX_LINE`.
        """
        first, *others = bytes(self._view[:count]).split(b"\n")
        self._parts.append(first)
        self._size += len(first)
        if others:
            self._lines.append(b"".join(self._parts))
            self._lines.extend(others[:-1])
            self._parts = [others[-1]]
            self._size = len(others[-1])
        elif self._size > MAX_LINE:
            raise ValueError(f"A line is longer than {MAX_LINE:,} bytes.")

    def take(self) -> bytes | None:
        """Return the next complete line without its end, or None until more bytes have come."""
        return self._lines.popleft() if self._lines else None

    def rest(self) -> bytes:
        """Return everything after the last line that was taken."""
        return b"\n".join([*self._lines, b"".join(self._parts)])


def remaining(buffers: Sequence[bytes | memoryview], written: int) -> list[bytes | memoryview]:
    """Return what is left of buffers when their first bytes have been written."""
    left: list[bytes | memoryview] = []
    for buffer in buffers:
        if written >= len(buffer):
            written -= len(buffer)
        else:
            left.append(memoryview(buffer)[written:] if written else buffer)
            written = 0
    return left
