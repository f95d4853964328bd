"""Requests to the API server, in plain JSON, through Kubernetes' own client."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any, cast
from urllib.parse import urlencode

from aiohttp import ClientConnectorCertificateError, ClientConnectorError, ClientError, ClientTimeout

from wove.backend.threads import in_daemon_thread
from wove.errors import WoveError

_ANSWER_SECONDS = 20.0
_CONNECT_SECONDS = 4.0
# Of a watch: how long the server may keep silent. It sends a bookmark every minute.
_SILENCE_SECONDS = 150.0
_ROUNDS = 5


class Refused(WoveError):
    """The API server refuses a request.

    Attributes:
        status: of the HTTP answer.
        reason: Kubernetes' own word, such as ``AlreadyExists``.
        retry_after: seconds that the server asks for, or None.
    """

    def __init__(self, status: int, reason: str, message: str, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.reason = reason
        self.retry_after = retry_after


class Unreachable(WoveError, ConnectionError):
    """The API server does not answer.

    Attributes:
        sent: whether it may have got the request all the same.
    """

    def __init__(self, message: str, *, sent: bool) -> None:
        super().__init__(message)
        self.sent = sent


class Connection:
    """Requests to the API server. Lives as long as its adapter; its loop only.

    Args:
        connect: makes a client. Blocking; called in a thread, and again when the credentials have run out.
    """

    def __init__(self, connect: Callable[[], Any]) -> None:
        self._connect = connect
        self._client: Any = None
        self._renewing = asyncio.Lock()
        self._retired: list[Any] = []

    async def open(self) -> None:
        """Make the client.

        Raises:
            ConfigurationError: there are no usable address and credentials.
        """
        self._client = await in_daemon_thread(self._connect)

    async def close(self) -> None:
        """Close all connections."""
        clients, self._client = [*self._retired, self._client], None
        for each in clients:
            if each is not None:
                await each.close()
        # Transports that were aborted close their sockets in the loop's next rounds.
        for _ in range(_ROUNDS):
            await asyncio.sleep(0)

    @property
    def address(self) -> str:
        """Where the API server is."""
        return str(self._opened.configuration.host)

    async def call(
        self, method: str, path: str, *, query: Mapping[str, Any] | None = None, body: object = None
    ) -> dict[str, Any]:
        """Return the answer to a request.

        Raises:
            Refused: it is refused.
            Unreachable: there is no answer.
        """
        timeout = ClientTimeout(total=_ANSWER_SECONDS, sock_connect=_CONNECT_SECONDS)
        async with self._asking(method, path, query, body, timeout) as answer:
            return cast("dict[str, Any]", json.loads(await answer.read()))

    async def stream(self, path: str, query: Mapping[str, Any]) -> AsyncIterator[dict[str, Any]]:
        """Yield the JSON lines of an answer until the server ends it.

        Raises:
            Refused: it is refused.
            Unreachable: the connection broke.
        """
        timeout = ClientTimeout(total=None, sock_connect=_CONNECT_SECONDS, sock_read=_SILENCE_SECONDS)
        async with self._asking("GET", path, query, None, timeout) as answer:
            try:
                while line := await answer.content.readline():
                    yield json.loads(line)
            finally:
                _break_off(answer)

    @asynccontextmanager
    async def _asking(
        self, method: str, path: str, query: Mapping[str, Any] | None, body: object, timeout: ClientTimeout
    ) -> AsyncIterator[Any]:
        try:
            answer = await self._ask(method, path, query, body, timeout)
            if answer.status == 401:
                await self._renew(self._opened)
                answer = await self._ask(method, path, query, body, timeout)
            if answer.status >= 300:
                raise _refusal(answer, await answer.read())
            yield answer
        except (ClientError, OSError, TimeoutError, ValueError) as error:
            if isinstance(error, Unreachable):
                raise
            what = f"The Kubernetes API server at {self.address} cannot be reached ({type(error).__name__})."
            advice = f"{_advice(error)} another context: 'load_config_options': {{'context': 'staging'}}."
            raise Unreachable(f"{what} {advice}", sent=not isinstance(error, ClientConnectorError)) from error

    async def _ask(
        self, method: str, path: str, query: Mapping[str, Any] | None, body: object, timeout: ClientTimeout
    ) -> Any:
        where = f"{path}?{urlencode(query)}" if query else path
        # Without the client's models: what is not in them travels too, and an event of a watch costs a tenth.
        prepared = await self._opened.param_serialize(method, where, body=body, auth_settings=["BearerToken"])
        method, url, headers, sent, _ = prepared
        asked = await self._opened.call_api(method, url, headers, sent, _request_timeout=timeout)
        return asked.response

    async def _renew(self, used: Any) -> None:
        """Get new credentials: those of many clouds last for minutes."""
        async with self._renewing:
            if self._client is used:
                self._client = await in_daemon_thread(self._connect)
                # Other requests may still be using it.
                self._retired.append(used)

    @property
    def _opened(self) -> Any:
        if self._client is None:
            raise RuntimeError("The connection has not been opened.")
        return self._client


def _break_off(answer: Any) -> None:
    """Close the connection of an answer that has not been read to its end, without waiting for TLS to say goodbye."""
    connection = answer.connection
    if connection is not None and connection.transport is not None:
        connection.transport.abort()
    answer.close()


def _advice(error: Exception) -> str:
    if isinstance(error, ClientConnectorCertificateError):
        return (
            "Its certificate is not one that the kubeconfig's certificate-authority has signed. Correct that, or name"
        )
    return "See to it that the cluster runs and that this machine can reach it, or name"


def _refusal(answer: Any, body: bytes) -> Refused:
    try:
        status = json.loads(body)
        reason, message = str(status.get("reason") or answer.reason), str(status.get("message"))
    except (ValueError, AttributeError):
        reason, message = str(answer.reason), body.decode(errors="replace")[:500]
    try:
        retry_after = float(answer.headers["Retry-After"])
    except (KeyError, ValueError):
        retry_after = None
    return Refused(answer.status, reason, message, retry_after)
