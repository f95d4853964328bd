"""An HTTP server that answers as a test says, byte by byte if need be."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self


@dataclass(slots=True)
class Exchange:
    """One request, and the ways to answer it.

    Attributes:
        connection: the number of the connection that it came over, from 1.
        method, target, headers, body: what came; header names are lower-case.
    """

    connection: int
    method: str
    target: str
    headers: dict[str, str]
    body: bytes
    writer: asyncio.StreamWriter = field(repr=False)

    @property
    def frame(self) -> dict[str, Any]:
        """The command in the body."""
        frame: dict[str, Any] = json.loads(self.body)
        return frame

    async def answer(self, body: Any = b"", *, status: str = "200 OK", headers: dict[str, str] | None = None) -> None:
        """Send a complete answer; what is no bytes is sent as JSON."""
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        await self.send(status, {"Content-Length": str(len(data)), **(headers or {})}, data)

    async def send(self, status: str, headers: dict[str, str], body: bytes = b"") -> None:
        """Send status and headers, and the beginning of a body."""
        lines = [f"HTTP/1.1 {status}", *(f"{name}: {value}" for name, value in headers.items()), "", ""]
        await self.raw("\r\n".join(lines).encode() + body)

    async def chunk(self, data: bytes) -> None:
        """Send a piece of a chunked body; an empty one ends it."""
        await self.raw(b"%x\r\n%s\r\n" % (len(data), data))

    async def raw(self, data: bytes) -> None:
        """Send bytes."""
        self.writer.write(data)
        await self.writer.drain()

    def drop(self) -> None:
        """Close the connection."""
        self.writer.close()

    def event(self, kind: str, **fields: Any) -> dict[str, Any]:
        """Return an event of the request's run."""
        return {"type": kind, "run_id": self.frame["run_id"], "task_id": self.frame["task_id"], **fields}

    def result(self, value: Any = 42) -> dict[str, Any]:
        """Return the result of the request's run, as a plain JSON value."""
        return self.event("task_result", result=value)


Handler = Callable[[Exchange], Awaitable[None]]


class HttpStub:
    """Listens on a loopback port and gives each request to a handler.

    Attributes:
        exchanges: every request so far.
        connections: how many connections were made.
        open: how many of them are open.
    """

    def __init__(self, handler: Handler) -> None:
        self.handler = handler
        self.exchanges: list[Exchange] = []
        self.connections = 0
        self.open = 0
        self.port = 0
        self._server: asyncio.Server | None = None
        self._changed = asyncio.Condition()

    @property
    def url(self) -> str:
        """The address for an ``executor_config``."""
        return f"http://127.0.0.1:{self.port}/wove/tasks"

    def commands(self) -> list[str]:
        """The types of the commands that came, in order."""
        return [exchange.frame["type"] for exchange in self.exchanges]

    async def until(self, condition: Callable[["HttpStub"], bool]) -> None:
        """Wait until something is true of the requests and connections so far."""
        async with self._changed, asyncio.timeout(20):
            await self._changed.wait_for(lambda: condition(self))

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Listen no more."""
        if self._server is not None:
            self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.open += 1
        number = self.connections
        try:
            while True:
                exchange = await _read(reader, writer, number)
                self.exchanges.append(exchange)
                await self._notify()
                await self._handle(exchange, reader)
                if writer.is_closing():
                    return
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            self.open -= 1
            writer.close()
            await self._notify()

    async def _handle(self, exchange: Exchange, reader: asyncio.StreamReader) -> None:
        """Run the handler until it is done or the client has gone; clients send nothing while they wait."""
        handling = asyncio.ensure_future(self.handler(exchange))
        leaving = asyncio.ensure_future(reader.read(1))
        await asyncio.wait([handling, leaving], return_when=asyncio.FIRST_COMPLETED)
        if handling.done():
            leaving.cancel()
            await asyncio.wait([leaving])
        else:
            handling.cancel()
            await asyncio.wait([handling])
            raise ConnectionResetError
        handling.result()

    async def _notify(self) -> None:
        async with self._changed:
            self._changed.notify_all()


async def _read(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int) -> Exchange:
    head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
    method, target, _ = head[0].split(" ")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:] if line)}
    body = await reader.readexactly(int(headers.get("content-length", "0")))
    return Exchange(number, method, target, headers, body, writer)
