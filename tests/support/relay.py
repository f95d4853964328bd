"""A TCP relay that can be cut, for tests about connections that break on the way."""

import asyncio
from contextlib import suppress
from types import TracebackType
from typing import Self

from wove.backend.loop import IOLoop


class Relay:
    """Passes bytes between clients and a loopback port. Lives on a loop of its own; call it from any other thread.

    Attributes:
        port: where it listens.
        connections: how many it has accepted.
    """

    def __init__(self, target: int, *, delay: float = 0.0) -> None:
        self.port = 0
        self.connections = 0
        self._target = target
        self._delay = delay
        self._open: set[asyncio.StreamWriter] = set()
        self._pumps: set[asyncio.Task[None]] = set()
        self._background = IOLoop()
        self._server = self._background.spawn(self._listen()).result(10)

    def cut(self) -> None:
        """Break all connections; new ones are accepted."""
        self._background.spawn(self._cut()).result(10)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._background.spawn(self._close()).result(10)
        self._background.close()

    async def _listen(self) -> asyncio.Server:
        server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        return server

    async def _cut(self) -> None:
        for writer in list(self._open):
            writer.transport.abort()

    async def _close(self) -> None:
        self._server.close()
        await self._cut()
        for pump in list(self._pumps):
            pump.cancel()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        there, back = await asyncio.open_connection("127.0.0.1", self._target)
        for source, sink in ((reader, back), (there, writer)):
            pump = asyncio.create_task(self._pump(source, sink))
            self._pumps.add(pump)
            pump.add_done_callback(self._pumps.discard)

    async def _pump(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        self._open.add(sink)
        with suppress(OSError):
            while data := await source.read(65536):
                await asyncio.sleep(self._delay)
                sink.write(data)
                await sink.drain()
        self._open.discard(sink)
        sink.close()
