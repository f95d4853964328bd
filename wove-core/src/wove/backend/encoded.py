"""Large base64 texts, decoded a piece at a time."""

import base64

# Characters decoded in one go: half a millisecond's work. A multiple of 4, so that every piece can be decoded alone.
_PIECE = 256 * 1024


class EncodedFile:
    """The bytes behind a base64 text, as a file for an unpickler.

    Decoding and unpickling a large value in one go would hold the interpreter's lock for as long, and with it
    every event loop of the process; between two reads of this file other threads run.

    Args:
        text: base64, without line breaks. A read raises ValueError where it is something else.
    """

    __slots__ = ("_at", "_piece", "_text", "_used")

    def __init__(self, text: memoryview) -> None:
        self._text = text
        self._at = 0
        self._piece = b""
        self._used = 0

    def read(self, size: int) -> bytes:
        """Return the next bytes, fewer than `size` only at the end."""
        parts: list[bytes] = []
        while size > 0 and (part := self._take(size)):
            parts.append(bytes(part))
            size -= len(part)
        return b"".join(parts)

    def readinto(self, buffer: memoryview) -> int:
        """Fill a buffer with the next bytes and return how many there were."""
        target = memoryview(buffer).cast("B")
        filled = 0
        while filled < len(target) and (part := self._take(len(target) - filled)):
            target[filled : filled + len(part)] = part
            filled += len(part)
        return filled

    def readline(self) -> bytes:
        """Return the next bytes up to and including a line feed."""
        parts: list[bytes] = []
        while part := self._take(_PIECE, up_to=b"\n"):
            parts.append(bytes(part))
            if parts[-1].endswith(b"\n"):
                break
        return b"".join(parts)

    def _take(self, size: int, *, up_to: bytes | None = None) -> memoryview:
        """Return some of the next bytes, at most `size` and none beyond `up_to`; none at the end."""
        if self._used == len(self._piece):
            encoded = self._text[self._at : self._at + _PIECE]
            self._at += len(encoded)
            self._piece = base64.b64decode(encoded, validate=True)
            self._used = 0
        end = min(self._used + size, len(self._piece))
        if up_to is not None:
            # Without one, find() returns -1: 0 after adding 1.
            end = self._piece.find(up_to, self._used, end) + 1 or end
        taken = memoryview(self._piece)[self._used : end]
        self._used = end
        return taken
