"""Reads a request's body: hashed as it comes, to a limit, by a deadline, in a file where it is large."""

import asyncio
import hashlib
import tempfile
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass
from types import TracebackType
from typing import IO, Any

from wove.backend.threads import in_daemon_thread

Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]

MIB = 1024 * 1024
# Up to this many bytes stay in memory, and larger pieces are written to the file in a thread.
_IN_MEMORY = MIB


@dataclass(frozen=True, slots=True)
class ReceiveLimits:
    """How long a client may take. uvicorn itself has no limits of this kind.

    Attributes:
        head_seconds: from connecting, or from the first byte of a further request, to the end of its headers.
        body_seconds: from there to the end of the body.
        body_seconds_per_mib: added to that for each MiB.
    """

    head_seconds: float = 10.0
    body_seconds: float = 10.0
    body_seconds_per_mib: float = 1.0


DEFAULT_LIMITS = ReceiveLimits()


class BodyTooLarge(Exception):
    """The body has more bytes than allowed; the rest was not read."""


class BodyTooSlow(Exception):
    """The body did not arrive by its deadline."""


class ClientGone(Exception):
    """The client left before the body was complete."""


class Body:
    """A received body. Use it as a context manager: leaving it removes the file of a large one.

    Attributes:
        size: bytes.
    """

    def __init__(self, data: bytes | bytearray = b"") -> None:
        self.size = len(data)
        self._data = data
        self._hash: Any = None
        self._file: IO[bytes] | None = None

    @property
    def in_memory(self) -> bool:
        """Whether `read` costs no file access."""
        return self._file is None

    @property
    def digest(self) -> str:
        """The SHA-256 of the body, hexadecimal."""
        hashed = self._hash if self._hash is not None else hashlib.sha256(self._data)
        return str(hashed.hexdigest())

    def read(self) -> bytes:
        """Return the whole body. Blocks while a file is read."""
        if self._file is None:
            return bytes(self._data)
        self._file.seek(0)
        return self._file.read()

    def __enter__(self) -> "Body":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file is not None:
            self._file.close()

    async def _append(self, piece: bytes) -> None:
        if self._hash is None:
            self._hash = hashlib.sha256()
        self._hash.update(piece)
        self.size += len(piece)
        self._data += piece
        if len(self._data) > _IN_MEMORY:
            await in_daemon_thread(self._spill)

    def _spill(self) -> None:
        if self._file is None:
            # Closed by __exit__: it lives as long as the body.
            self._file = tempfile.TemporaryFile(prefix="wove-event-")  # noqa: SIM115
        self._file.write(self._data)
        self._data = bytearray()

    async def _finish(self) -> None:
        if self._file is not None and self._data:
            await in_daemon_thread(self._spill)


async def receive_body(receive: Receive, *, length: int | None, limit: int, limits: ReceiveLimits) -> Body:
    """Read a request's body.

    Args:
        receive: the ASGI callable.
        length: the announced bytes; None where they are not announced.
        limit: the most bytes to take.
        limits: how long it may take.

    Raises:
        BodyTooLarge, BodyTooSlow, ClientGone: it could not be read; nothing of it is kept.
    """
    loop = asyncio.get_running_loop()
    began = loop.time()
    body = Body(bytearray())
    try:
        async with asyncio.timeout(_seconds(limits, length or 0)) as deadline:
            while True:
                message = await receive()
                if message["type"] != "http.request":
                    raise ClientGone
                piece, more = message.get("body", b""), message.get("more_body", False)
                if body.size + len(piece) > limit:
                    raise BodyTooLarge
                if not more and not body.size:
                    return Body(piece)
                await body._append(piece)
                if not more:
                    await body._finish()
                    return body
                if length is None:
                    deadline.reschedule(began + _seconds(limits, body.size))
    except BaseException as error:
        body.__exit__(None, None, None)
        if isinstance(error, TimeoutError):
            raise BodyTooSlow from None
        raise


def _seconds(limits: ReceiveLimits, size: int) -> float:
    return limits.body_seconds + limits.body_seconds_per_mib * size / MIB
