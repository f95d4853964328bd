"""JSON that holds a large pickle as base64: parsed around it, and decoded a piece at a time.

Parsing, decoding and unpickling in one go would hold the interpreter's lock for as long as they take, seconds per
gigabyte, and with it every event loop of the process.
"""

import base64
import json
import os
import re
from typing import Any

# Bytes from which this is worth the while.
LARGE = 1024 * 1024
_STARTS_WITHIN = 64 * 1024
_PICKLE_FIELD = re.compile(rb'"([a-z]+_pickle)"\s*:\s*"')
# Characters decoded in one go: half a millisecond's work. A multiple of 4, so that every piece can be decoded alone.
_PIECE = 256 * 1024


def parse_json(data: bytes) -> Any:
    """Parse JSON. A large text in a field like ``result_pickle`` becomes a view of `data` instead of a string.

    Raises:
        ValueError: it is no JSON, or nested too deeply. The message does not repeat any of it.
    """
    return (_parse_around_pickle(data) if len(data) >= LARGE else None) or _parse(data)


def _parse_around_pickle(data: bytes) -> dict[str, Any] | None:
    """Parse an object without looking at the text of its large pickle; None where that cannot be done."""
    for field in _PICKLE_FIELD.finditer(data, 0, _STARTS_WITHIN):
        start, end = field.end(), data.find(b'"', field.end())
        if end - start < LARGE // 2:
            continue
        if data.find(b"\\", start, end) >= 0:
            return None  # Base64 may be escaped in JSON, but hardly anybody does it.
        stand_in = os.urandom(16).hex()
        payload = _parse(b"".join((data[:start], stand_in.encode(), data[end:])))
        name = field[1].decode("ascii")
        # Elsewhere, it belongs to something nested, or was overruled by a second field of the same name.
        if isinstance(payload, dict) and payload.get(name) == stand_in:
            payload[name] = memoryview(data)[start:end]
            return payload
        return None
    return None


def _parse(data: bytes) -> Any:
    try:
        return json.loads(data.decode("utf-8"))
    except RecursionError:
        raise ValueError("The JSON of a frame is nested too deeply.") from None
    except ValueError as error:
        # The message of a JSONDecodeError names the position; the text itself may hold secrets and stays out.
        raise ValueError(f"A frame is no valid JSON ({error}).") from None


class EncodedFile:
    """The bytes behind a base64 text, as a file for an unpickler.

    Between two reads of it, other threads run.

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
