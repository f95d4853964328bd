"""Reads one HTTP/1.1 answer from a blocking socket, with one deadline for all of it and a bound on its size.

https://www.rfc-editor.org/rfc/rfc9112: sections 4 (status line), 5 (fields), 6 (body) and 7.1 (chunks).
"""

import re
import socket
import time
from collections.abc import Mapping
from dataclasses import dataclass

_LONGEST_HEAD = 64 * 1024
_READ = 64 * 1024
_CHUNK_SIZE = re.compile(rb"[0-9A-Fa-f]{1,12}")


@dataclass(frozen=True, slots=True)
class Answer:
    """An HTTP answer: its status, headers by lower-case name, and the body."""

    status: int
    headers: Mapping[str, str]
    body: bytes


def read_answer(connection: socket.socket, *, method: str, deadline: float, longest: int) -> tuple[Answer, bool]:
    """Return the answer to a request, and whether the connection can carry another one.

    Args:
        connection: a socket; its timeout is changed.
        method: of the request.
        deadline: when all of the answer must be there, on the monotonic clock.
        longest: bytes of body.

    Raises:
        TimeoutError: the deadline has passed.
        ConnectionError: the connection was closed too early, the answer is too long, or it is not HTTP.
    """
    incoming = _Incoming(connection, deadline)
    try:
        version, status, headers = _parse_head(incoming.until(b"\r\n\r\n", _LONGEST_HEAD))
        while status < 200:  # That was an announcement of the answer proper.
            version, status, headers = _parse_head(incoming.until(b"\r\n\r\n", _LONGEST_HEAD))
        body, framed = _body(incoming, headers, longest, none=method == "HEAD" or status in (204, 304))
    except ValueError as error:
        raise ConnectionError(f"The answer is not HTTP ({error}).") from None
    closing = "close" in headers.get("connection", "").lower() or version != "HTTP/1.1"
    return Answer(status, headers, body), framed and not closing and not incoming.surplus


class _Incoming:
    """What a socket receives, as far as it has been asked for."""

    def __init__(self, connection: socket.socket, deadline: float) -> None:
        self._connection = connection
        self._deadline = deadline
        self._buffer = bytearray()

    @property
    def surplus(self) -> bool:
        """Whether more has arrived than was asked for."""
        return bool(self._buffer)

    def until(self, mark: bytes, longest: int) -> bytes:
        """Return everything up to a mark, without it."""
        searched = 0
        while (found := self._buffer.find(mark, searched)) < 0:
            searched = max(0, len(self._buffer) - len(mark) + 1)
            if len(self._buffer) > longest:
                raise ValueError(f"no end within {longest:,} bytes")
            if not self._receive():
                raise ConnectionResetError("The connection was closed before the answer was complete.")
        taken = bytes(self._buffer[:found])
        del self._buffer[: found + len(mark)]
        return taken

    def exactly(self, count: int) -> bytes:
        """Return so many bytes."""
        while len(self._buffer) < count:
            if not self._receive():
                missing = count - len(self._buffer)
                raise ConnectionResetError(f"The answer was cut off {missing:,} bytes before its end.")
        taken = bytes(self._buffer[:count])
        del self._buffer[:count]
        return taken

    def rest(self, longest: int) -> bytes:
        """Return everything until the other side closes the connection."""
        _require_short(len(self._buffer), longest)
        while self._receive():
            _require_short(len(self._buffer), longest)
        taken = bytes(self._buffer)
        self._buffer.clear()
        return taken

    def _receive(self) -> bool:
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError("The answer did not arrive in time.")
        self._connection.settimeout(left)
        data = self._connection.recv(_READ)
        self._buffer += data
        return bool(data)


def _parse_head(head: bytes) -> tuple[str, int, dict[str, str]]:
    start, *lines = head.decode("latin-1").split("\r\n")
    version, _, rest = start.partition(" ")
    if not version.startswith("HTTP/1.") or not rest[:3].isdecimal() or rest[3:4] not in ("", " "):
        raise ValueError("no status line")
    headers: dict[str, str] = {}
    for line in lines:
        name, colon, value = line.partition(":")
        if not colon:
            raise ValueError("a header without a colon")
        headers[name.lower()] = value.strip(" \t")
    return version, int(rest[:3]), headers


def _body(incoming: _Incoming, headers: Mapping[str, str], longest: int, *, none: bool) -> tuple[bytes, bool]:
    """Return the body, and whether its end was marked by something else than the end of the connection."""
    if none:
        return b"", True
    if "transfer-encoding" in headers:
        if headers["transfer-encoding"].lower() != "chunked":
            raise ValueError("an unknown transfer encoding")
        return _chunks(incoming, longest), True
    length = headers.get("content-length")
    if length is None:
        return incoming.rest(longest), False
    if not length.isdecimal() or len(length) > 15:
        raise ValueError("a malformed content-length")
    _require_short(int(length), longest)
    return incoming.exactly(int(length)), True


def _chunks(incoming: _Incoming, longest: int) -> bytes:
    body = bytearray()
    while size := _chunk_size(incoming.until(b"\r\n", _LONGEST_HEAD)):
        _require_short(len(body) + size, longest)
        body += incoming.exactly(size)
        if incoming.exactly(2) != b"\r\n":
            raise ValueError("a chunk without an end")
    while incoming.until(b"\r\n", _LONGEST_HEAD):
        continue  # Trailers say nothing that a worker needs.
    return bytes(body)


def _chunk_size(line: bytes) -> int:
    digits = line.partition(b";")[0].strip()
    if not _CHUNK_SIZE.fullmatch(digits):
        raise ValueError("a malformed chunk")
    return int(digits, 16)


def _require_short(size: int, longest: int) -> None:
    if size > longest:
        raise ConnectionError(f"The answer is longer than {longest:,} bytes.")
