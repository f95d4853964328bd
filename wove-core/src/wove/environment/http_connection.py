"""One kept-alive HTTP/1.1 connection: httptools parses the answers, asyncio carries the bytes.

Processor time for one POST of 1 kB to a local uvicorn when 32 are under way: `httpx.AsyncClient` 2.7 ms (its pool is
searched and locked on every step), a bare httpcore connection 0.38 ms, h11 on asyncio streams 0.17 ms. This takes less:
of the weave's whole share of a task, 591 of 695 microseconds were left when it replaced h11.
httptools is what uvicorn parses requests with, too.
"""

import asyncio
import ssl
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import httptools

from wove.environment.network_link import TransportFailure
from wove.environment.network_settings import NetworkSettings
from wove.environment.sockets import broken, keep_alive, unreachable

_CHUNK = 256 * 1024
# So much of an answer waits here at the most, beside what one read of the socket brings.
_UNREAD = 512 * 1024
# The parser has no limit for what is not body: status line, headers, trailers.
_HEAD_BYTES = 64 * 1024
# Servers close idle connections, uvicorn after 5 s, and a request that crosses the closing is lost. So an idle
# connection is used again only while the server has promised to keep it (`Keep-Alive: timeout=…`), or for this long.
_KEPT_SECONDS = 4.0


@dataclass(frozen=True, slots=True)
class ResponseHead:
    """Status and headers of an answer; header names are lower-case."""

    status: int
    headers: dict[str, str]


class HttpConnection(asyncio.Protocol):
    """A connection that serves one request after the other. Not to be shared by two requests at a time.

    `open` it. The methods named ``on_…`` are the parser's, the others of `asyncio.Protocol` the transport's.
    """

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._parser = httptools.HttpResponseParser(self)
        self._transport: asyncio.Transport | None = None
        self._closed = False
        # The reader of the answer, and the sender of a request whose bytes the other side does not take in.
        self._waiting: asyncio.Future[None] | None = None
        self._stuck: asyncio.Future[None] | None = None
        self._paused = False
        self._asked = False
        self._surplus = False
        self._kept = _KEPT_SECONDS
        self._idle_until = 0.0
        self._failure: TransportFailure | None = None
        self._expect()

    def _expect(self) -> None:
        """Forget the answer before: the next one has not begun."""
        self._first = True
        self._without_body = 0
        self._headers: dict[str, str] = {}
        self._head: ResponseHead | None = None
        self._reusable = False
        self._body: list[bytes] = []
        self._unread = 0
        self._complete = False

    @classmethod
    async def open(cls, settings: NetworkSettings, tls: ssl.SSLContext | None) -> "HttpConnection":
        """Connect to a service.

        Raises:
            TransportFailure: it cannot be reached, or its certificate is not trusted.
        """
        try:
            async with asyncio.timeout(settings.open_timeout):
                transport, connection = await asyncio.get_running_loop().create_connection(
                    cls, settings.host, settings.port, ssl=tls, happy_eyeballs_delay=0.25
                )
        except OSError as error:
            raise unreachable(error) from None
        keep_alive(transport.get_extra_info("socket"))
        return connection

    def usable(self, now: float) -> bool:
        """Whether an idle connection can take another request."""
        return now < self._idle_until and not self._is_closing and not self._surplus

    async def send(self, head: bytes, body: bytes, alive: Callable[[], None]) -> None:
        """Send a request; `alive` is called as the service takes in a large body.

        Returns early where the connection breaks. `head` says why, or gives the answer that came before.

        Args:
            head: from `request_head`.
            body: as long as the head says.
            alive: takes no arguments.
        """
        transport = self._transport
        if transport is None:
            raise RuntimeError("The connection is not open.")
        self._expect()
        self._asked = True
        if len(body) <= _CHUNK:
            transport.write(head + body)
            return
        transport.write(head)
        for start in range(0, len(body), _CHUNK):
            if transport.is_closing():
                return
            transport.write(body[start : start + _CHUNK])
            if self._stuck is not None:
                await self._stuck
            alive()

    async def head(self) -> ResponseHead:
        """Read status and headers of the answer.

        Raises:
            TransportFailure: the connection broke, or what came is not HTTP.
        """
        while self._head is None:
            if self._failure is not None:
                raise self._failure
            await self._news()
        return self._head

    async def chunk(self) -> bytes:
        """Read the next piece of the answer's body; empty at its end.

        Raises:
            TransportFailure: the connection broke.
        """
        while not self._body:
            if self._complete:
                return b""
            if self._failure is not None:
                raise self._failure
            await self._news()
        piece = self._body[0] if len(self._body) == 1 else b"".join(self._body)
        self._body.clear()
        self._unread = 0
        if self._paused and self._transport is not None:
            self._paused = False
            self._transport.resume_reading()
        return piece

    def recycle(self, now: float) -> bool:
        """Make the connection ready for another request after a complete answer; False if it cannot take one."""
        if not self._complete or not self._reusable or self._body or self._stuck is not None:
            return False
        self._asked = False
        self._idle_until = now + self._kept
        return self.usable(now)

    def close(self) -> None:
        """Close at once; what is under way is lost."""
        if self._transport is not None:
            self._transport.abort()

    @property
    def _is_closing(self) -> bool:
        return self._closed or self._transport is None or self._transport.is_closing()

    async def _news(self) -> None:
        self._waiting = self._loop.create_future()
        try:
            await self._waiting
        finally:
            self._waiting = None

    def _tell(self) -> None:
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(None)

    def _fail(self, failure: TransportFailure) -> None:
        if self._failure is None:
            self._failure = failure
        self.close()
        self._tell()

    # What the transport says.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport if isinstance(transport, asyncio.Transport) else None

    def data_received(self, data: bytes) -> None:
        if not self._asked or self._complete:
            self._surplus = True  # Nobody has asked for it.
            return
        if self._first and not b"HTTP/".startswith(data[:5]):
            # The parser takes other protocols, too.
            self._fail(_not_http("its answer does not begin with HTTP/"))
            return
        self._first = False
        self._without_body += len(data)
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            self._surplus = True
            if not self._complete:
                self._fail(_not_http(f"{type(error).__name__}: {error}"))
        else:
            if self._without_body > _HEAD_BYTES and not self._complete:
                self._fail(_not_http(f"its headers are longer than {_HEAD_BYTES:,} bytes"))
        if self._unread > _UNREAD and not self._paused and self._transport is not None:
            self._paused = True
            self._transport.pause_reading()
        if self._head is not None:
            self._tell()

    def eof_received(self) -> None:
        self._end(None)

    def connection_lost(self, exc: Exception | None) -> None:
        self._closed = True
        self._end(exc)
        if self._stuck is not None and not self._stuck.done():
            self._stuck.set_result(None)

    def pause_writing(self) -> None:
        self._stuck = self._loop.create_future()

    def resume_writing(self) -> None:
        stuck, self._stuck = self._stuck, None
        if stuck is not None and not stuck.done():
            stuck.set_result(None)

    def _end(self, exc: Exception | None) -> None:
        self._reusable = False
        if not self._asked or self._complete:
            return
        if isinstance(exc, OSError):
            self._fail(broken(exc))
        elif self._head is not None and _ends_with_connection(self._head):
            self._complete = True
            self._tell()
        else:
            answer = " without an answer" if self._first else ""
            self._fail(TransportFailure(f"it closed the connection{answer}", stage="broken"))

    # What the parser says.

    def on_message_begin(self) -> None:
        self._surplus = self._complete

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._head is None:  # Trailers say nothing that we need.
            self._headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        if self._complete:
            return
        status = self._parser.get_status_code()
        if status < 200:  # It announces the answer proper.
            self._headers = {}
            return
        self._head = ResponseHead(status, self._headers)
        self._reusable = self._parser.should_keep_alive() and self._parser.get_http_version() == "1.1"
        self._kept = _promised(self._headers.get("keep-alive", ""))

    def on_body(self, data: bytes) -> None:
        if not self._complete:
            self._without_body = 0
            self._unread += len(data)
            self._body.append(data)

    def on_message_complete(self) -> None:
        self._complete = self._head is not None


def request_head(method: str, target: str, headers: Sequence[tuple[str, str]]) -> bytes:
    """Return a request's first line and headers.

    Raises:
        ValueError: a header holds a line break.
    """
    lines = [f"{method} {target} HTTP/1.1", *(f"{name}: {value}" for name, value in headers)]
    text = "\r\n".join(lines)
    if text.count("\n") != len(lines) - 1 or text.count("\r") != len(lines) - 1:
        raise ValueError("A header holds a line break.")
    return f"{text}\r\n\r\n".encode("ascii")


def _not_http(reason: str) -> TransportFailure:
    return TransportFailure(f"it does not speak HTTP: {reason}", kind="ProtocolError")


def _ends_with_connection(head: ResponseHead) -> bool:
    """Whether nothing but the end of the connection marks the end of the answer (RFC 9112, section 6.3)."""
    chunked = head.headers.get("transfer-encoding", "").lower().endswith("chunked")
    return not chunked and "content-length" not in head.headers


def _promised(keep_alive: str) -> float:
    """Return how long an idle connection may be used, from a header like ``timeout=75``."""
    for part in keep_alive.split(",") if keep_alive else ():
        name, _, value = part.strip().partition("=")
        if name.lower() == "timeout" and value.isdecimal() and len(value) < 6:
            return max(int(value) - 1.0, 0.0)
    return _KEPT_SECONDS
