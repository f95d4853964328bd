"""Clients of Dask schedulers: one for each address and its options, shared by all environments; and borrowed ones."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Hashable, Mapping
from typing import Any, TypeVar

import dask
from dask.utils import parse_timedelta
from distributed import Client

from wove.environment.fingerprint import fingerprint
from wove.errors import ConfigurationError
from wove_dask.settings import ADDRESS_EXAMPLE, Settings, no_address

T = TypeVar("T")

# Dask's own default is 30 s, during which every task would wait for a scheduler that is not there.
CONNECT_SECONDS = 5.0
# Connecting is three steps, each of which may take as long as the client's timeout.
_PATIENCE = 3
_CLOSE_SECONDS = 3.0
_GATHER_SECONDS = 0.001
_BLOCKED_SECONDS = 5.0

logger = logging.getLogger("wove")


class Connection:
    """A client, and the loop that it has to be used on. Its methods are called on Wove's background loop.

    Args:
        where: how messages begin, e.g. ``"executor_config of 'dask'"``.
    """

    def __init__(self, where: str) -> None:
        self._where = where

    async def client(self) -> Client:
        """Return a client that is connected.

        Raises:
            ConnectionError: the scheduler cannot be reached, or the client has been closed.
        """
        raise NotImplementedError

    async def run(self, function: Callable[..., Awaitable[T]], *args: Any) -> T:
        """Await what a function returns, on the client's loop."""
        return await function(*args)

    async def close(self) -> None:
        """Release what belongs to Wove."""


class OwnConnection(Connection):
    """A client on Wove's background loop, which is replaced when it has lost its scheduler.

    Args:
        where: how messages begin.
        address: of the scheduler; None leaves it to Dask's own configuration and the options.
        options: for the client.
    """

    def __init__(self, where: str, address: str | None, options: Mapping[str, Any]) -> None:
        super().__init__(where)
        self._address = address
        self._options = {"timeout": CONNECT_SECONDS, **options}
        self._current: Client | None = None
        self._connecting = asyncio.Lock()

    async def client(self) -> Client:
        """Return the client, connected anew if need be."""
        async with self._connecting:
            if self._current is None or self._current.status != "running":
                await self._drop()
                self._current = await self._connected()
            return self._current

    async def close(self) -> None:
        """Close the client."""
        async with self._connecting:
            await self._drop()

    async def _connected(self) -> Client:
        address = self._address or dask.config.get("scheduler-address", None)
        if address is None and "scheduler_file" not in self._options:
            raise no_address(self._where)
        try:
            client = Client(address, **self._options)
        except (TypeError, ValueError) as error:
            raise ConfigurationError(f"{self._where}: Dask refuses the client's options: {error}") from error
        await self._awaited(client, str(address or self._options["scheduler_file"]))
        # Dask lets ten milliseconds pass between two messages, so that single calls are gathered. What Wove has to say
        # at one moment is one message anyway.
        client.scheduler_comm.interval = _GATHER_SECONDS
        return client

    async def _awaited(self, client: Client, place: str) -> None:
        # Dask waits for ever for a file that does not appear, and for what takes connections without being a scheduler.
        seconds = _PATIENCE * parse_timedelta(self._options["timeout"])
        limit = asyncio.timeout(seconds)
        try:
            async with limit:
                await client
        except Exception as error:
            await _close(client)
            if isinstance(error, ValueError):
                raise ConfigurationError(
                    f"{self._where}: {place!r} is no address of a Dask scheduler: {error}. Give one such as "
                    f"{ADDRESS_EXAMPLE}."
                ) from error
            why = f"nothing there answered as one within {seconds:g} s" if limit.expired() else str(error)
            raise ConnectionError(
                f"The Dask scheduler at {place} cannot be reached: {why.rstrip('.')}. Start one there with "
                f"'dask scheduler', or correct the address in {self._where}."
            ) from error

    async def _drop(self) -> None:
        """Close a client, which tries to connect again for a while by itself if it has lost its scheduler."""
        client, self._current = self._current, None
        if client is not None:
            await _close(client)


async def _close(client: Client) -> None:
    try:
        async with asyncio.timeout(_CLOSE_SECONDS):
            await client.close()
    except Exception as error:  # There is nothing that could be done about it.
        logger.debug("Closing a Dask client failed: %r", error)


class BorrowedConnection(Connection):
    """The project's own client, which is left open.

    Args:
        where: how messages begin.
        client: a synchronous client, or one that lives on a loop which runs.
    """

    def __init__(self, where: str, client: Client) -> None:
        super().__init__(where)
        self._client = client

    async def client(self) -> Client:
        """Return the client."""
        if self._client.status != "running":
            raise ConnectionError(
                f"{self._where}: the Dask client that was given as 'client' is {self._client.status}, not running. "
                "Give one that stays connected while weaves run, or 'address' for a client of Wove's own."
            )
        return self._client

    async def run(self, function: Callable[..., Awaitable[T]], *args: Any) -> T:
        """Await what a function returns, on the client's loop."""
        loop: asyncio.AbstractEventLoop = self._client.loop.asyncio_loop
        if loop is asyncio.get_running_loop():
            return await function(*args)
        if not loop.is_running():
            raise ConnectionError(f"{self._where}: the loop of the Dask client that was given as 'client' has ended.")

        here, begun = asyncio.get_running_loop(), asyncio.Event()

        async def called() -> T:
            here.call_soon_threadsafe(begun.set)
            return await function(*args)

        called_there = asyncio.run_coroutine_threadsafe(called(), loop)
        try:
            async with asyncio.timeout(_BLOCKED_SECONDS):
                await begun.wait()
        except TimeoutError:
            called_there.cancel()
            raise ConnectionError(
                f"{self._where}: the loop of the Dask client that was given as 'client' has been blocked for "
                f"{_BLOCKED_SECONDS:g} s. Use 'async with weave()' on it, or give a synchronous client."
            ) from None
        return await asyncio.wrap_future(called_there)


class _Shared:
    __slots__ = ("connection", "users")

    def __init__(self, connection: OwnConnection) -> None:
        self.connection = connection
        self.users = 0


# By loop, address and options: there is another background loop after wove.shutdown().
_shared: dict[Hashable, _Shared] = {}


class Lease:
    """The use of a connection by one adapter, until `close`.

    Args:
        settings: say which one.
        where: how messages begin.
    """

    def __init__(self, settings: Settings, *, where: str) -> None:
        self._key: Hashable | None = None
        self.connection: Connection
        if settings.client is not None:
            self.connection = BorrowedConnection(where, settings.client)
            return
        options = settings.client_options
        self._key = (asyncio.get_running_loop(), settings.address, fingerprint(options))
        shared = _shared.get(self._key)
        if shared is None:
            shared = _shared[self._key] = _Shared(OwnConnection(where, settings.address, options))
        shared.users += 1
        self.connection = shared.connection

    async def close(self) -> None:
        """Close the connection if nobody else uses it. Idempotent."""
        key, self._key = self._key, None
        if key is None:
            return
        shared = _shared[key]
        shared.users -= 1
        if shared.users == 0:
            del _shared[key]
            await shared.connection.close()
