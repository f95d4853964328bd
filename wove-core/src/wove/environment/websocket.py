"""The ``websocket`` executor: one connection for all runs, one command per text message, events as messages."""

import asyncio
import logging
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from wove.backend.addresses import url_host
from wove.backend.frames import frames_from_bytes
from wove.environment.network import NetworkExecutor
from wove.environment.network_link import Command, Hear, Link, TransportFailure, beat_of, refusal
from wove.environment.network_settings import NetworkSettings, url_settings
from wove.environment.sockets import keep_alive, unreachable
from wove.errors import MissingDispatchFeatureError

if TYPE_CHECKING:
    from websockets.asyncio.client import ClientConnection
    from websockets.http11 import Response

_SETTINGS = (
    "url", "security", "headers", "open_timeout", "insecure", "timeout", "root_certificates", "max_response_bytes",
)  # fmt: skip
_CLOSE_SECONDS = 2.0
# The library answers pings by itself, so even a service that is busy for long is heard of; one that runs tasks on its
# own loop is not, and is given this long.
_PING_SECONDS = 20.0
_PONG_SECONDS = 60.0
_TOO_BIG = 1009
# A service that is about to be there again: nothing has been sent but the handshake.
_PASSING = (429, 502, 503, 504)

logger = logging.getLogger("wove.environment")


class _Socket:
    """One open connection, and the runs that listen to it."""

    def __init__(self, connection: "ClientConnection") -> None:
        self.connection = connection
        # Bounded by what the service says about one run; its conversation reads it all the time.
        self.listeners: dict[str, asyncio.Queue[list[dict[str, Any]] | TransportFailure]] = {}
        self.failure: TransportFailure | None = None
        self.reader = asyncio.create_task(self._read())

    async def send(self, body: bytes) -> None:
        """Send one command.

        Raises:
            TransportFailure: the connection is closed.
        """
        from websockets.exceptions import ConnectionClosed

        try:
            await self.connection.send(body, text=True)
        except ConnectionClosed as error:
            raise self.failure or _closed(error) from None

    async def close(self) -> None:
        """Close the connection and end its reader."""
        await self.connection.close()
        await asyncio.wait([self.reader])

    async def _read(self) -> None:
        from websockets.exceptions import ConnectionClosed

        failure = TransportFailure("the connection ended", stage="broken")
        try:
            while True:
                self._route(await self.connection.recv(decode=False))
        except ConnectionClosed as error:
            failure = _closed(error)
        except ValueError as error:
            # Nobody knows whose answer this was.
            failure = TransportFailure(f"it sent something that is no event: {error}", kind="ProtocolError")
        finally:
            self.failure = failure
            for queue in self.listeners.values():
                queue.put_nowait(failure)
        if failure.stage == "final":
            await self.connection.close(1002)

    def _route(self, message: bytes) -> None:
        frames = frames_from_bytes(message)
        if not frames:
            for queue in self.listeners.values():
                queue.put_nowait([])
        for frame in frames:
            queue_of_run = self.listeners.get(str(frame.get("run_id")))
            if queue_of_run is not None:
                queue_of_run.put_nowait([frame])
            else:
                # An event of a run that has ended here, or that this process never sent.
                logger.debug("%s: ignored an event of run %.80r.", self.connection.remote_address, frame.get("run_id"))


class WebSocketLink(Link):
    """One connection, opened when it is needed, and again when it broke."""

    def __init__(self, settings: NetworkSettings) -> None:
        super().__init__(settings)
        self._tls = settings.tls_context()
        self._socket: _Socket | None = None
        self._opening: asyncio.Task[_Socket] | None = None

    async def converse(self, command: Command, hear: Hear, alive: Callable[[], None]) -> None:
        """Send the command and pass on the events of its run."""
        socket = await self._connected()
        queue: asyncio.Queue[list[dict[str, Any]] | TransportFailure] = asyncio.Queue()
        socket.listeners[command.run_id] = queue
        try:
            await socket.send(command.body)
            alive()
            while True:
                heard = await queue.get()
                if isinstance(heard, TransportFailure):
                    raise heard
                if await hear(heard):
                    return
        finally:
            del socket.listeners[command.run_id]

    async def cancel(self, command: Command, hear: Hear) -> None:
        """Send the command; what answers it is heard by its run."""
        await (await self._connected()).send(command.body)

    async def close(self) -> None:
        """Close the connection."""
        opening, self._opening = self._opening, None
        if opening is not None:
            opening.cancel()
            await asyncio.wait([opening])
        if self._socket is not None:
            await self._socket.close()

    async def _connected(self) -> _Socket:
        if self._socket is not None and self._socket.failure is None:
            return self._socket
        if self._opening is None:
            self._opening = asyncio.create_task(self._open())
        # Shielded, because others wait for the same connection.
        return await asyncio.shield(self._opening)

    async def _open(self) -> _Socket:
        try:
            connection = await self._handshake()
            response = connection.response
            self.beat = beat_of(response.headers.get("Wove-Beat") if response is not None else None)
            self._socket = _Socket(connection)
            return self._socket
        finally:
            self._opening = None

    async def _handshake(self) -> "ClientConnection":
        from websockets.asyncio.client import connect
        from websockets.exceptions import InvalidHandshake, InvalidStatus

        class Direct(connect):
            """Follows no redirect: the request is signed for one address, and carries credentials."""

            def process_redirect(self, exc: Exception) -> Exception | str:
                return exc

        settings = self.settings
        scheme = "wss" if settings.tls else "ws"
        # The library refuses `ssl=None` for a plain connection.
        tls: dict[str, Any] = {"ssl": self._tls} if self._tls else {}
        host = url_host(settings.host)
        try:
            connection = await Direct(
                f"{scheme}://{host}:{settings.port}{settings.target}",
                additional_headers=settings.signed_headers(b""),
                user_agent_header="wove",
                compression=None,
                proxy=None,
                open_timeout=settings.open_timeout,
                close_timeout=_CLOSE_SECONDS,
                ping_interval=_PING_SECONDS,
                ping_timeout=_PONG_SECONDS,
                max_size=settings.max_response_bytes,
                **tls,
            )
        except InvalidStatus as error:
            raise _refused(error.response) from None
        except InvalidHandshake as error:
            raise TransportFailure(
                f"no WebSocket handshake ({error})", kind="ProtocolError", stage="unreached"
            ) from None
        except OSError as error:
            raise unreachable(error) from None
        keep_alive(connection.transport.get_extra_info("socket"))
        return connection


class WebSocketEnvironmentExecutor(NetworkExecutor):
    """Exchanges frames with a worker service over one WebSocket.

    ``executor_config``: ``url`` (``wss://`` or ``ws://``); ``security``; ``headers``: a dict of extra headers of the
    handshake; ``open_timeout``: seconds for connecting, 10 by default; ``timeout``: seconds that one task's answer may
    take in all, None for no limit; ``root_certificates``, ``max_response_bytes`` and ``insecure`` as for the http
    executor.

    A connection that breaks is opened again. Runs that were under way go on where the service keeps them, as Wove's own
    does, and otherwise end with a retryable error.
    """

    feature = "The websocket executor"
    reusable = begins = listens = True

    @classmethod
    def open_link(cls, settings: NetworkSettings) -> Link:
        """Return a link that is not connected yet."""
        return WebSocketLink(settings)

    def read_settings(self, environment: str, config: Mapping[str, Any]) -> NetworkSettings:
        """Check the packages and settings that the transport needs, and return the settings."""
        try:
            import websockets.asyncio.client  # noqa: F401
        except ImportError:
            raise MissingDispatchFeatureError(self.feature, install='pip install "wove[websocket]"') from None
        return url_settings(environment, config, transport="websocket", schemes=("ws", "wss"), known=_SETTINGS)


def _closed(error: Any) -> TransportFailure:
    code = error.sent.code if error.sent is not None else None
    if code == _TOO_BIG:
        return TransportFailure(
            "it sent a message that is larger than executor_config 'max_response_bytes' allows",
            kind="PayloadTooLargeError",
            retryable=False,
        )
    return TransportFailure(f"the connection broke ({error})", stage="broken")


def _refused(response: "Response") -> TransportFailure:
    return refusal(response.status_code, bytes(response.body or b"")[:1000], taken=response.status_code not in _PASSING)
