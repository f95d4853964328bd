"""The HTTP servers that the receiver listens with: one per port, shared by everything in the process that names it."""

import asyncio
import logging
import os
import socket
from typing import TYPE_CHECKING, NamedTuple

from wove.backend.addresses import bind, is_wildcard, resolve
from wove.backend.bodies import DEFAULT_LIMITS, ReceiveLimits
from wove.backend.connection_guard import ConnectionGuard
from wove.backend.sharing import SharedResources
from wove.backend.threads import in_daemon_thread
from wove.errors import ConfigurationError, MissingDispatchFeatureError

if TYPE_CHECKING:
    from uvicorn import Config
    from uvicorn.server import ServerState

BACKLOG = 2048
# Longer than the pause between two heartbeats of a worker, so that its connection is kept.
_KEEP_ALIVE_SECONDS = 75
_GRACE_SECONDS = 1.0

logger = logging.getLogger("wove.receiver")


class _ServerKey(NamedTuple):
    """What sessions must agree on to share a server: the port, or the host where any free port will do."""

    host: str
    port: int
    limits: ReceiveLimits


class CallbackServer:
    """Serves the callback application on one port, on one or more addresses of this machine.

    Lives on the background loop, for as long as `SharedResources` keeps it.

    Args:
        port: the port; 0 takes any free one at the first `listen`.
        limits: how long a client may take.

    Attributes:
        port: the port.
        closed: whether it has been closed.
    """

    def __init__(self, port: int, limits: ReceiveLimits) -> None:
        self.port = port
        self.closed = False
        self._limits = limits
        self._lock = asyncio.Lock()
        self._doors: dict[tuple[socket.AddressFamily, str], tuple[socket.socket, asyncio.Server]] = {}
        self._config: Config | None = None
        self._state: ServerState | None = None
        self._guards: set[ConnectionGuard] = set()
        _servers.add(self)

    async def listen(self, host: str) -> tuple[socket.AddressFamily, str]:
        """Listen on an address or host name, unless that is covered already; return its family and numeric address.

        Raises:
            ConfigurationError: the address is not one of this machine, or the port is taken.
            MissingDispatchFeatureError: uvicorn or starlette is not installed.
        """
        async with self._lock:
            if self._config is None:
                self._config, self._state = await in_daemon_thread(_configure, self._limits)
            family, address = await in_daemon_thread(resolve, host, self.port)
            if not self._covers(family, address):
                await self._open(family, address)
            return family, address

    async def close(self) -> None:
        """Stop listening, let running requests end within a second, and close all connections."""
        self.closed = True
        _servers.discard(self)
        for _, door in self._doors.values():
            door.close()
        self._doors.clear()
        if self._state is None:
            return
        for connection in list(self._state.connections):
            connection.shutdown()
        if self._state.tasks:
            await asyncio.wait(self._state.tasks, timeout=_GRACE_SECONDS)
        for guard in list(self._guards):
            guard.abort()

    @property
    def file_descriptors(self) -> list[int]:
        """The file descriptors of everything that is open."""
        return [bound.fileno() for bound, _ in self._doors.values()] + [g.file_descriptor for g in self._guards]

    def _covers(self, family: socket.AddressFamily, address: str) -> bool:
        return any(
            door == (family, address) or (is_wildcard(door[1]) and door[0] in (family, socket.AF_INET6))
            for door in self._doors
        )

    async def _open(self, family: socket.AddressFamily, address: str) -> None:
        # An address cannot be bound beside all addresses: open doors that are narrower make place first.
        narrower = [door for door in self._doors if is_wildcard(address) and family in (door[0], socket.AF_INET6)]
        for door in narrower:
            self._doors.pop(door)[1].close()
        try:
            await self._open_door(family, address)
        except ConfigurationError:
            for door in narrower:
                await self._open_door(*door)
            raise

    async def _open_door(self, family: socket.AddressFamily, address: str) -> None:
        bound = bind(family, address, self.port)
        self.port = bound.getsockname()[1]
        loop = asyncio.get_running_loop()
        self._doors[family, address] = bound, await loop.create_server(self._connect, sock=bound, backlog=BACKLOG)

    def _connect(self) -> ConnectionGuard:
        config = self._config
        if config is None or config.loaded_app is None:
            raise RuntimeError("The server has not been configured.")
        protocol = config.http_protocol_class(config=config, server_state=self._state, app_state={})  # type: ignore[call-arg]
        # uvicorn's own switch for this turns the access log off for the whole process; the path holds the token.
        protocol.access_log = False  # type: ignore[attr-defined]
        protocol.logger = logger  # type: ignore[attr-defined]
        guard = ConnectionGuard(protocol, config.loaded_app, self._limits, closed=self._guards.discard)
        self._guards.add(guard)
        return guard


class ServerUse:
    """A share in a server that listens on an address. Ends with `release`.

    Attributes:
        family: of the address.
        address: the numeric address that is listened on.
        port: the port.
    """

    __slots__ = ("_key", "_server", "address", "family", "port")

    def __init__(self, key: _ServerKey, server: CallbackServer, family: socket.AddressFamily, address: str) -> None:
        self._key = key
        self._server = server
        self.family = family
        self.address = address
        self.port = server.port

    async def release(self, *, at_once: bool = False) -> None:
        """End this share. The last one leaves the server open for a while, unless `at_once`."""
        if self._server.closed:
            return  # By a shutdown. Others may have opened another one meanwhile.
        _shared.release(self._key, at_once=at_once)
        if at_once:
            await _shared.closed(self._key)


async def use_server(host: str, port: int, limits: ReceiveLimits = DEFAULT_LIMITS) -> ServerUse:
    """Return a share in the server of this process that listens on an address; it is started if need be.

    Call it on the background loop.

    Args:
        host: an address of this machine or a host name.
        port: a port, or 0 for any free one.
        limits: how long a client may take.

    Raises:
        ConfigurationError: the address is not one of this machine, or the port is taken.
        MissingDispatchFeatureError: uvicorn or starlette is not installed.
    """
    key = _ServerKey(host if port == 0 else "", port, limits)
    server = await _shared.acquire(key)
    try:
        return ServerUse(key, server, *await server.listen(host))
    except BaseException:
        _shared.release(key, at_once=True)
        raise


async def _opened(key: _ServerKey) -> CallbackServer:
    return CallbackServer(key.port, key.limits)


_shared = SharedResources(_opened, CallbackServer.close)
_servers: set[CallbackServer] = set()


def _let_go_after_fork() -> None:
    """Close the child's copies of the parent's sockets, so that they do not keep its port and its connections open.

    Each file descriptor is made to mean something harmless instead of being closed: its number stays taken, so nothing
    that the parent's objects do to it when the child drops them can hit a file of the child's own. The parent's event
    loop, which shares its epoll object with the child, is not told anything.
    """
    inherited = [fd for server in _servers for fd in server.file_descriptors if fd >= 0]
    for server in _servers:
        server.closed = True
    _servers.clear()
    if not inherited:
        return
    null = os.open(os.devnull, os.O_RDWR)
    for fd in inherited:
        os.dup2(null, fd, inheritable=False)
    os.close(null)


os.register_at_fork(after_in_child=_let_go_after_fork)


def _configure(limits: ReceiveLimits) -> "tuple[Config, ServerState]":
    """Import and configure uvicorn, which takes a tenth of a second."""
    try:
        from uvicorn import Config
        from uvicorn.server import ServerState
    except ImportError as error:
        raise MissingDispatchFeatureError("The callback receiver") from error
    from wove.backend.routes import CallbackRoutes

    app = CallbackRoutes(limits)
    config = Config(
        app,
        ws="none",
        lifespan="off",
        interface="asgi3",
        # None leaves the process's logging as it is.
        log_config=None,
        proxy_headers=False,
        timeout_keep_alive=_KEEP_ALIVE_SECONDS,
    )
    config.load()
    # Where everything is logged, uvicorn has wrapped it in one that logs each request's path, and with it the token.
    config.loaded_app = app
    return config, ServerState()
