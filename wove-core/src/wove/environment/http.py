"""The ``http`` and ``https`` executors: one POST for each command, answered with events.

A service answers with one event, a list, or ``{"events": [...]}`` as JSON; with nothing to ``cancel_task``. Wove's own
service may answer with a stream of such messages, one per line (``application/x-ndjson``), which starts when a task
takes longer than the service's beat, and then holds a sign of life at each beat.
"""

import asyncio
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from wove.backend.addresses import url_host
from wove.environment.network import NetworkExecutor
from wove.environment.network_link import Command, Hear, Link, TransportFailure, beat_of, decoded, refusal
from wove.environment.network_settings import NetworkSettings, url_settings
from wove.errors import ConfigurationError, MissingDispatchFeatureError

if TYPE_CHECKING:
    from wove.environment.http_connection import HttpConnection, ResponseHead

STREAM_TYPE = "application/x-ndjson"

_SETTINGS = (
    "url",
    "security",
    "headers",
    "timeout",
    "insecure",
    "open_timeout",
    "root_certificates",
    "max_response_bytes",
)
_MOST_OF_A_REFUSAL = 64 * 1024
_SECONDS_FOR_THE_END = 0.2
# Each run holds a connection until it ends; more runs wait for one, so that file descriptors are left for others.
_FEWEST_CONNECTIONS = 64
# The service says that it has not taken the command; a proxy's 502 or 504 leaves that open.
_NOT_TAKEN = (429, 503)


class HttpLink(Link):
    """A pool of kept-alive connections to one service: one per run in flight, the most recently used one first."""

    def __init__(self, settings: NetworkSettings) -> None:
        super().__init__(settings)
        self._tls = settings.tls_context()
        self._idle: list[HttpConnection] = []
        self._slots = asyncio.Semaphore(_most_connections())
        self._static_headers = _static_headers(settings)

    async def converse(self, command: Command, hear: Hear, alive: Callable[[], None]) -> None:
        """Post the command and pass on the events of the answer."""
        async with self._slots:
            await self._post(command, hear, alive)

    async def cancel(self, command: Command, hear: Hear) -> None:
        """Post the command; never waits behind the runs."""
        await self._post(command, hear, lambda: None)

    async def close(self) -> None:
        """Close the idle connections; the others are closed by those who use them."""
        while self._idle:
            self._idle.pop().close()
        await asyncio.sleep(0)

    async def _post(self, command: Command, hear: Hear, alive: Callable[[], None]) -> None:
        connection = await self._connection()
        kept = False
        try:
            await connection.send(self._head_of(command.body), command.body, alive)
            alive()
            head = await connection.head()
            self._note_beat(head)
            alive()
            await self._read(connection, head, hear, alive)
            kept = connection.recycle(asyncio.get_running_loop().time())
        finally:
            if kept:
                self._idle.append(connection)
            else:
                connection.close()

    def _head_of(self, body: bytes) -> bytes:
        from wove.environment.http_connection import request_head

        signed = self.settings.signed_headers(body)
        headers = [*self._static_headers, ("Content-Length", str(len(body))), *signed]
        return request_head("POST", self.settings.target, headers)

    async def _connection(self) -> "HttpConnection":
        from wove.environment.http_connection import HttpConnection

        now = asyncio.get_running_loop().time()
        while self._idle:
            connection = self._idle.pop()
            if connection.usable(now):
                return connection
            connection.close()
        return await HttpConnection.open(self.settings, self._tls)

    def _note_beat(self, head: "ResponseHead") -> None:
        self.beat = beat_of(head.headers.get("wove-beat")) or self.beat

    async def _read(
        self, connection: "HttpConnection", head: "ResponseHead", hear: Hear, alive: Callable[[], None]
    ) -> None:
        if not 200 <= head.status < 300:
            raise await _refusal(connection, head)
        self._check_size(int(head.headers.get("content-length", "0")))
        if head.headers.get("content-type", "").partition(";")[0].strip().lower() == STREAM_TYPE:
            await self._read_stream(connection, hear, alive)
            return
        parts: list[bytes] = []
        size = 0
        while part := await connection.chunk():
            alive()
            parts.append(part)
            size += len(part)
            self._check_size(size)
        await hear(decoded(b"".join(parts)))

    async def _read_stream(self, connection: "HttpConnection", hear: Hear, alive: Callable[[], None]) -> None:
        pending: list[bytes] = []
        size = 0
        while part := await connection.chunk():
            alive()
            *complete, rest = part.split(b"\n")
            for line in complete:
                if await hear(decoded(b"".join([*pending, line]))):
                    await _skip_rest(connection)
                    return
                pending, size = [], 0
            pending.append(rest)
            size += len(rest)
            self._check_size(size)
        await hear(decoded(b"".join(pending)))

    def _check_size(self, size: int) -> None:
        limit = self.settings.max_response_bytes
        if size > limit:
            raise TransportFailure(
                f"its answer is larger than the {limit:,} bytes that executor_config 'max_response_bytes' allows",
                kind="PayloadTooLargeError",
                retryable=False,
            )


class HttpEnvironmentExecutor(NetworkExecutor):
    """Sends frames to a worker service over HTTP or HTTPS.

    ``executor_config``: ``url``; ``security`` (see `wove.security.NetworkExecutorSecurity`); ``headers``: a dict of
    extra headers; ``timeout``: seconds that one task's answer may take in all, None for no limit; ``open_timeout``:
    seconds for connecting, 10 by default; ``root_certificates``: PEM text, or the path of a PEM file, that TLS trusts
    instead of the system's authorities; ``max_response_bytes``: 256 MiB by default; ``insecure``: True allows plain
    HTTP, and no ``security``, to another machine.

    Proxy variables of the environment are ignored and redirects are not followed.

    Args:
        require_https: refuse a plain ``http://`` URL, also to this machine.
    """

    feature = "The http executor"
    reusable = begins = listens = True

    def __init__(self, *, require_https: bool = False) -> None:
        super().__init__()
        self._require_https = require_https

    @classmethod
    def open_link(cls, settings: NetworkSettings) -> Link:
        """Return a pool without connections."""
        return HttpLink(settings)

    def read_settings(self, environment: str, config: Mapping[str, Any]) -> NetworkSettings:
        """Check the packages and settings that the transport needs, and return the settings."""
        try:
            import httptools  # noqa: F401
        except ImportError:
            raise MissingDispatchFeatureError(self.feature) from None
        settings = url_settings(environment, config, transport="http", schemes=("http", "https"), known=_SETTINGS)
        if self._require_https and not settings.tls:
            raise ConfigurationError(
                f"Environment {environment!r}: the executor 'https' needs a url that begins with https://, "
                f"not {settings.address}. Use the executor 'http' for plain HTTP."
            )
        return settings


async def _skip_rest(connection: "HttpConnection") -> None:
    # Usually the end has come together with the final event, and then the connection can be used again.
    with suppress(TimeoutError):
        async with asyncio.timeout(_SECONDS_FOR_THE_END):
            while await connection.chunk():
                pass


async def _refusal(connection: "HttpConnection", head: "ResponseHead") -> TransportFailure:
    body = bytearray()
    while len(body) < _MOST_OF_A_REFUSAL and (part := await connection.chunk()):
        body += part
    return refusal(head.status, bytes(body), taken=head.status not in _NOT_TAKEN)


def _static_headers(settings: NetworkSettings) -> list[tuple[str, str]]:
    default = 443 if settings.tls else 80
    host = url_host(settings.host)
    return [
        ("Host", host if settings.port == default else f"{host}:{settings.port}"),
        ("Content-Type", "application/json"),
        ("Accept", f"application/json, {STREAM_TYPE}"),
        ("User-Agent", "wove"),
    ]


def _most_connections() -> int:
    try:
        import resource
    except ImportError:  # Windows has no such limit.
        return 1000
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return max(_FEWEST_CONNECTIONS, soft // 2 if soft != resource.RLIM_INFINITY else 10_000)
