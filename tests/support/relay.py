"""A TCP relay that can be cut, shut and silenced, for tests about servers that go away and connections that break."""

import asyncio
from collections.abc import Coroutine
from types import TracebackType
from typing import Self

from wove.backend.loop import IOLoop

HOST = "127.0.0.1"
_CHUNK = 65536


class Relay:
    """Passes bytes between clients and a loopback port. Lives on a loop of its own; call it from any other thread.

    Attributes:
        port: where it listens.
    """

    def __init__(self, target: int) -> None:
        self.port = 0
        self._target = target
        self._connections: set[asyncio.Task[None]] = set()
        self._background = IOLoop()
        self._server: asyncio.Server | None = None
        self._fatal: bytes | None = None
        self._flowing = asyncio.Event()
        self.open()

    def open(self) -> None:
        """Accept connections, on the same port as before, and pass on what they send."""
        self._do(self._open())

    def cut(self) -> None:
        """Break all connections; new ones are accepted."""
        self._do(self._cut())

    def shut(self) -> None:
        """Break all connections and refuse new ones."""
        self._do(self._shut())

    def hold(self) -> None:
        """Keep all connections and accept new ones, but pass nothing on until the relay is opened again."""
        self._do(self._hold())

    def lose_answer(self, request: bytes) -> None:
        """Pass on the next request that begins with these bytes, and break its connection in place of the answer.

        Args:
            request: how it begins, within what a client sends at once.
        """
        self._fatal = request

    def close(self) -> None:
        """Shut for good."""
        self.shut()
        self._background.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _do(self, coroutine: Coroutine[object, object, None]) -> None:
        self._background.spawn(coroutine).result(10.0)

    async def _open(self) -> None:
        self._flowing.set()
        if self._server is None:
            self._server = await asyncio.start_server(self._accept, HOST, self.port)
            self.port = self._server.sockets[0].getsockname()[1]

    async def _hold(self) -> None:
        self._flowing.clear()

    async def _shut(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None
        await self._cut()

    async def _cut(self) -> None:
        connections = list(self._connections)
        for connection in connections:
            connection.cancel()
        await asyncio.gather(*connections, return_exceptions=True)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._server is None:  # It was on its way when the relay was shut.
            writer.transport.abort()
            return
        connection = asyncio.get_running_loop().create_task(self._connect(reader, writer))
        self._connections.add(connection)
        connection.add_done_callback(self._connections.discard)

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers = [writer]
        try:
            there, back = await asyncio.open_connection(HOST, self._target)
            writers.append(back)
            doomed = asyncio.Event()
            await asyncio.gather(self._pump_requests(reader, back, doomed), self._pump_answers(there, writer, doomed))
        except asyncio.CancelledError:
            for each in writers:
                each.transport.abort()
            raise
        except OSError:
            pass  # One side is gone.
        finally:
            for each in writers:
                each.close()

    async def _pump_requests(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, doomed: asyncio.Event
    ) -> None:
        while data := await reader.read(_CHUNK):
            if self._fatal is not None and data.startswith(self._fatal):
                self._fatal = None
                doomed.set()
            await self._flowing.wait()
            writer.write(data)
            await writer.drain()
        raise ConnectionResetError

    async def _pump_answers(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, doomed: asyncio.Event
    ) -> None:
        while (data := await reader.read(_CHUNK)) and not doomed.is_set():
            await self._flowing.wait()
            writer.write(data)
            await writer.drain()
        raise ConnectionResetError
