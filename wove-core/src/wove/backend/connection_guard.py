"""Drops clients that hold a connection without getting on with a request."""

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from wove.backend.bodies import MIB, ReceiveLimits

Application = Callable[[MutableMapping[str, Any], Any, Any], Awaitable[None]]

# Headers, and what of a body comes with them before the application has begun. Not every parser has a limit.
_HEAD_BYTES = MIB
# A refused body is read and thrown away, so that its sender gets to read the answer; for this long at the most,
_DISCARD_SECONDS = 60.0
# and this far where its length is not announced.
_DISCARDED_BYTES = 16 * MIB


class _Gathered:
    """A transport that writes the head of an answer and the first part of its body with one system call.

    Used on the event loop of its connection.
    """

    def __init__(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        self._parts: list[bytes] | None = None

    def gather(self) -> None:
        """Keep the next thing that is written until another one follows, or until `flush`."""
        self._parts = []

    def flush(self) -> None:
        """Write what was kept; later writes go through at once."""
        parts, self._parts = self._parts, None
        if parts and isinstance(self._transport, asyncio.Transport):
            self._transport.write(b"".join(parts))

    def write(self, data: bytes) -> None:
        if self._parts is not None:
            self._parts.append(data)
            if len(self._parts) > 1:
                self.flush()
        elif isinstance(self._transport, asyncio.Transport):
            self._transport.write(data)

    def close(self) -> None:
        self.flush()
        self._transport.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)


class ConnectionGuard(asyncio.Protocol):
    """Stands between a connection and uvicorn's protocol, which would wait for headers forever.

    Between two requests, the first byte starts a clock; a connection whose next request has not reached the
    application when it runs out, or after a certain number of bytes, is dropped. While the application works on a
    request, its own limits hold.

    Args:
        protocol: uvicorn's protocol; its ``app`` is replaced by this guard.
        app: the application.
        limits: how long a client may take.
        closed: called with the guard when the connection is closed.
    """

    def __init__(
        self, protocol: Any, app: Application, limits: ReceiveLimits, *, closed: "Callable[[ConnectionGuard], None]"
    ) -> None:
        self._protocol = protocol
        self._app = app
        self._limits = limits
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.BaseTransport | None = None
        self._answers: _Gathered | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._deadline: float | None = None
        self._closed = closed
        self._working = 0
        self._seconds = limits.head_seconds
        self._bytes = _HEAD_BYTES
        protocol.app = self

    async def __call__(self, scope: MutableMapping[str, Any], receive: Any, send: Any) -> None:
        """Pass a request to the application."""
        self._deadline = None
        self._working += 1
        if self._answers is not None:
            self._answers.gather()
        try:
            await self._app(scope, receive, send)
        finally:
            if self._answers is not None:
                self._answers.flush()
            self._working -= 1
            self._expect_next(_content_length(scope))

    @property
    def file_descriptor(self) -> int:
        """The connection's file descriptor; -1 when it is closed."""
        found = None if self._transport is None else self._transport.get_extra_info("socket")
        return -1 if found is None else int(found.fileno())

    def abort(self) -> None:
        """Drop the connection now."""
        if isinstance(self._transport, asyncio.Transport):
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        self._answers = _Gathered(transport)
        self._start_clock()
        self._protocol.connection_made(self._answers)

    def data_received(self, data: bytes) -> None:
        if not self._working:
            if self._deadline is None:
                self._start_clock()
            self._bytes -= len(data)
            if self._bytes < 0:
                self.abort()
                return
        self._protocol.data_received(data)

    def eof_received(self) -> bool | None:
        closes: bool | None = self._protocol.eof_received()
        return closes

    def connection_lost(self, exc: Exception | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._closed(self)
        self._protocol.connection_lost(exc)

    def pause_writing(self) -> None:
        self._protocol.pause_writing()

    def resume_writing(self) -> None:
        self._protocol.resume_writing()

    def _expect_next(self, left_over: int) -> None:
        """Allow for the next request, and for what may be left over of the body of this one."""
        seconds = min(left_over / MIB * self._limits.body_seconds_per_mib, _DISCARD_SECONDS)
        self._seconds = self._limits.head_seconds + seconds
        self._bytes = _HEAD_BYTES + left_over

    def _start_clock(self) -> None:
        self._deadline = self._loop.time() + self._seconds
        # A timer for each request would cost more than the rest of this class: one goes on from request to request.
        if self._timer is None or self._timer.when() > self._deadline:
            self._set_timer(self._deadline)

    def _set_timer(self, when: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_at(when, self._look_at_clock)

    def _look_at_clock(self) -> None:
        self._timer = None
        if self._deadline is None:
            return
        if self._deadline <= self._loop.time():
            self.abort()
        else:
            self._set_timer(self._deadline)


def _content_length(scope: MutableMapping[str, Any]) -> int:
    """Return the bytes of a request's body, which may not have been read."""
    for name, value in scope["headers"]:
        if name == b"content-length":
            return int(value) if value.isdigit() and len(value) < 19 else 0
        if name == b"transfer-encoding":
            return _DISCARDED_BYTES
    return 0
