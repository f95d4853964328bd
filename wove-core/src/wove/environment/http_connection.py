"""One kept-alive HTTP/1.1 connection: h11 does the protocol, asyncio the transport.

An `httpx.AsyncClient` spends 2.7 ms of processor time on a request when 32 are under way (its pool is searched and
locked on every step), a bare httpcore connection 0.38 ms, h11 on asyncio streams 0.17 ms: measured with 300 POSTs of
1 kB to a local uvicorn, which is kept busy by the last one alone. h11 is what uvicorn and httpcore parse with, too.
"""

import asyncio
import ssl
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import h11

from wove.environment.network_link import TransportFailure
from wove.environment.network_settings import NetworkSettings
from wove.environment.sockets import broken, keep_alive, unreachable

_READ = 256 * 1024
_CHUNK = 256 * 1024
# Servers close idle connections, uvicorn after 5 s, and a request that crosses the closing is lost. So an idle
# connection is used again only while the server has promised to keep it (`Keep-Alive: timeout=…`), or for this long.
_KEPT_SECONDS = 4.0


@dataclass(frozen=True, slots=True)
class ResponseHead:
    """Status and headers of an answer; header names are lower-case."""

    status: int
    headers: dict[str, str]


class HttpConnection:
    """A connection that serves one request after the other. Not to be shared by two requests at a time."""

    __slots__ = ("_expects_head", "_h11", "_idle_until", "_kept", "_reader", "_writer")

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._h11 = h11.Connection(h11.CLIENT)
        self._expects_head = False
        self._kept = _KEPT_SECONDS
        self._idle_until = 0.0

    @classmethod
    async def open(cls, settings: NetworkSettings, tls: ssl.SSLContext | None) -> "HttpConnection":
        """Connect to a service.

        Raises:
            TransportFailure: it cannot be reached, or its certificate is not trusted.
        """
        try:
            async with asyncio.timeout(settings.open_timeout):
                reader, writer = await asyncio.open_connection(
                    settings.host, settings.port, ssl=tls, limit=_READ, happy_eyeballs_delay=0.25
                )
        except OSError as error:
            raise unreachable(error) from None
        keep_alive(writer.get_extra_info("socket"))
        return cls(reader, writer)

    def usable(self, now: float) -> bool:
        """Whether an idle connection can take another request."""
        return now < self._idle_until and not self._reader.at_eof() and not self._writer.is_closing()

    async def send(
        self, method: str, target: str, headers: Sequence[tuple[str, str]], body: bytes, alive: Callable[[], None]
    ) -> None:
        """Send a request; `alive` is called as the service takes in a large body.

        Raises:
            TransportFailure: the connection broke.
        """
        head = self._h11.send(h11.Request(method=method, target=target, headers=list(headers))) or b""
        payload = self._h11.send(h11.Data(data=body)) or b""
        self._h11.send(h11.EndOfMessage())
        self._expects_head = True
        try:
            if len(payload) <= _CHUNK:
                self._writer.write(head + payload)
                return
            self._writer.write(head)
            for start in range(0, len(payload), _CHUNK):
                self._writer.write(payload[start : start + _CHUNK])
                await self._writer.drain()
                alive()
        except OSError as error:
            # A service that refuses a body early answers before it closes; the answer says more than the broken pipe.
            if not self._reader.at_eof():
                return
            raise broken(error) from None

    async def head(self) -> ResponseHead:
        """Read status and headers of the answer.

        Raises:
            TransportFailure: the connection broke, or what came is not HTTP.
        """
        while True:
            event = await self._next()
            if isinstance(event, h11.Response):
                headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in event.headers}
                self._kept = _promised(headers.get("keep-alive", ""))
                return ResponseHead(event.status_code, headers)
            if not isinstance(event, h11.InformationalResponse):
                raise TransportFailure("it closed the connection without an answer", stage="broken")

    async def chunk(self) -> bytes:
        """Read the next piece of the answer's body; empty at its end.

        Raises:
            TransportFailure: the connection broke.
        """
        while True:
            event = await self._next()
            if isinstance(event, h11.Data):
                if event.data:
                    return bytes(event.data)
            elif isinstance(event, h11.EndOfMessage):
                return b""
            else:
                raise TransportFailure("it closed the connection before the end of its answer", stage="broken")

    def recycle(self, now: float) -> bool:
        """Make the connection ready for another request after a complete answer; False if it cannot take one."""
        if self._h11.our_state is not h11.DONE or self._h11.their_state is not h11.DONE:
            return False
        self._h11.start_next_cycle()
        self._idle_until = now + self._kept
        return not self._h11.trailing_data[0] and self.usable(now)

    def close(self) -> None:
        """Close at once; what is under way is lost."""
        self._writer.transport.abort()

    async def _next(self) -> object:
        try:
            while (event := self._h11.next_event()) is h11.NEED_DATA:
                data = await self._reader.read(_READ)
                if self._expects_head and not b"HTTP/".startswith(data[:5]):
                    # h11 would wait for the end of the headers, and a server of another protocol for us.
                    raise h11.RemoteProtocolError("its answer does not begin with HTTP/")
                self._expects_head = False
                self._h11.receive_data(data)
        except h11.RemoteProtocolError as error:
            if self._reader.at_eof():
                raise TransportFailure("it closed the connection", stage="broken") from None
            raise TransportFailure(f"it does not speak HTTP: {error}", kind="ProtocolError") from None
        except OSError as error:
            raise broken(error) from None
        return event


def _promised(keep_alive: str) -> float:
    """Return how long an idle connection may be used, from a header like ``timeout=75``."""
    for part in keep_alive.split(","):
        name, _, value = part.strip().partition("=")
        if name.lower() == "timeout" and value.isdecimal() and len(value) < 6:
            return max(int(value) - 1.0, 0.0)
    return _KEPT_SECONDS
