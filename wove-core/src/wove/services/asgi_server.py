"""Runs the ASGI application of a worker service under uvicorn, until a signal comes."""

import argparse
import asyncio
import os
import socket
import sys
from types import FrameType

from wove.backend.addresses import url_host
from wove.backend.bodies import DEFAULT_LIMITS
from wove.backend.connection_guard import ConnectionGuard
from wove.errors import MissingDispatchFeatureError
from wove.security import NetworkExecutorSecurity
from wove.services.asgi import create_app
from wove.services.service import WorkerService

try:
    import uvicorn
except ImportError:
    raise MissingDispatchFeatureError("A worker service") from None

DRAINING = "Wove worker service: takes no more tasks and waits for those that run."

_BACKLOG = 2048
# Clients keep their connections as long as they are told that the server does.
_KEEP_ALIVE = 75
_FLUSH_SECONDS = 5
_PING_SECONDS = 20.0
_PONG_SECONDS = 60.0


class _Server(uvicorn.Server):
    """A server that lets running tasks finish before it goes; a second signal ends their grace."""

    def __init__(self, config: uvicorn.Config, service: WorkerService, announcement: str) -> None:
        super().__init__(config)
        self._service = service
        self._announcement = announcement
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stopping: asyncio.Task[None] | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        self._loop = asyncio.get_running_loop()
        await super().startup(sockets)
        if self.started:
            print(self._announcement, flush=True)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if self._loop is None:
            self.should_exit = True
        else:
            self._loop.call_soon_threadsafe(self._drain)

    def _drain(self) -> None:
        if self._stopping is None:
            print(DRAINING, file=sys.stderr, flush=True)
            self._stopping = asyncio.ensure_future(self._stop())
        else:
            self._service.hurry()

    async def _stop(self) -> None:
        try:
            await self._service.stop()
        finally:
            self.should_exit = True


class _Guard(ConnectionGuard):
    """Leaves a connection alone that has become a WebSocket."""

    def abort(self) -> None:
        transport = self._transport
        if isinstance(transport, asyncio.Transport) and transport.get_protocol() is self:
            transport.abort()


def serve_asgi(options: argparse.Namespace, security: NetworkExecutorSecurity) -> int:
    """Serve HTTP and WebSocket; return the exit code.

    Raises:
        OSError: the address cannot be used.
        ConfigurationError: an option has a wrong value.
    """
    if options.transport == "websocket":
        _require_websockets()
    app = create_app(
        security=security,
        workers=options.workers,
        threads=options.threads,
        path=options.path,
        beat=options.beat,
        grace=options.grace,
        max_body_bytes=options.max_body_bytes,
    )
    listening = _listen(options.host, options.port)
    config = uvicorn.Config(
        app,
        log_config=None,
        log_level="warning",
        access_log=False,
        backlog=_BACKLOG,
        timeout_keep_alive=_KEEP_ALIVE,
        timeout_graceful_shutdown=_FLUSH_SECONDS,
        headers=[("Keep-Alive", f"timeout={_KEEP_ALIVE}")],
        server_header=False,
        ws_max_size=options.max_body_bytes,
        ws_per_message_deflate=False,
        ws_ping_interval=_PING_SECONDS,
        ws_ping_timeout=_PONG_SECONDS,
        ssl_certfile=options.tls_cert,
        ssl_keyfile=options.tls_key,
    )
    _guard(config)
    scheme = {"http": "http", "websocket": "ws"}[options.transport] + ("s" if options.tls_cert else "")
    url = f"{scheme}://{url_host(options.host)}:{listening.getsockname()[1]}{options.path}"
    service: WorkerService = app.state.service
    server = _Server(config, service, announcement(url, service, security))
    asyncio.run(server.serve(sockets=[listening]))
    return 0 if server.started else 3


def announcement(url: str, service: WorkerService, security: NetworkExecutorSecurity) -> str:
    """Return the line that says where a service listens."""
    processes = service.settings.processes
    many = f"{processes} worker processes" if processes > 1 else "1 worker process"
    return f"Wove worker service on {url} ({many}, security: {security.type})"


def _guard(config: uvicorn.Config) -> None:
    """Put a guard before each connection: uvicorn itself would wait for headers for ever."""
    config.load()
    make_protocol = config.http_protocol_class

    def guarded(**arguments: object) -> _Guard:
        return _Guard(make_protocol(**arguments), config.loaded_app, DEFAULT_LIMITS, closed=lambda guard: None)

    config.http_protocol_class = guarded  # type: ignore[assignment]


def _listen(host: str, port: int) -> socket.socket:
    family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    # Without the explicit protocol asyncio leaves Nagle's algorithm on, which delays every answer by 40 ms.
    listening = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        if os.name == "posix":
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
        listening.listen(_BACKLOG)
    except OSError:
        listening.close()
        raise
    listening.setblocking(False)
    return listening


def _require_websockets() -> None:
    try:
        import websockets  # noqa: F401
    except ImportError:
        raise MissingDispatchFeatureError(
            "The WebSocket worker service", install='pip install "wove[websocket]"'
        ) from None
