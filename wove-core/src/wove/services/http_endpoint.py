"""Takes commands over HTTP: one POST for each, answered when the run ends or, as a stream, while it lives."""

import asyncio
import logging

from starlette.datastructures import Headers
from starlette.types import Message, Receive, Scope, Send

from wove.backend.bodies import DEFAULT_LIMITS, Body, BodyTooLarge, BodyTooSlow, ClientGone, receive_body
from wove.backend.frames import json_to_bytes
from wove.errors import WoveError
from wove.security import NetworkExecutorSecurity
from wove.services.answer import NO_NEWS, Answer, joined
from wove.services.service import BadCommand, Busy, WorkerService

STREAM_TYPE = "application/x-ndjson"

# A task that has not ended after this long is answered with a stream, if the client can read one.
_PATIENCE = 1.0

logger = logging.getLogger("wove.services")


class _Refused(WoveError):
    """A request that is answered with an error status. The text is meant for the client."""

    def __init__(self, status: int, reason: str, headers: tuple[tuple[bytes, bytes], ...] = ()) -> None:
        super().__init__(reason)
        self.status = status
        self.headers = headers


class _Client:
    """Notices, when asked, that the client has gone. Asking costs a task, so short answers never do."""

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._listening: asyncio.Future[Message] | None = None

    async def has_gone(self) -> bool:
        """Whether the connection has been closed."""
        if self._listening is None:
            self._listening = asyncio.ensure_future(self._receive())
            await asyncio.sleep(0)
        return self._listening.done()

    def close(self) -> None:
        """Listen no more."""
        if self._listening is not None:
            self._listening.cancel()


class HttpEndpoint:
    """An ASGI application for one path.

    Before anything is unpickled, in this order: method, token, size, signature, shape.
    """

    def __init__(self, service: WorkerService, security: NetworkExecutorSecurity) -> None:
        self._service = service
        self._security = security
        self._limit = service.settings.max_body_bytes
        self._beat = service.settings.beat

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        answer = Answer()
        try:
            if scope["method"] != "POST":
                raise _Refused(405, "Commands are posted.", ((b"allow", b"POST"),))
            headers = Headers(scope=scope)
            body = await self._authentic_body(scope, headers, receive)
            await self._service.start()
            run_id = self._service.take(body, answer.hear)
        except _Refused as refused:
            await self._refuse(send, refused)
        except BadCommand as error:
            await self._refuse(send, _Refused(400, str(error)))
        except Busy as error:
            await self._refuse(send, _Refused(503, str(error), ((b"retry-after", b"1"),)))
        else:
            if run_id is None:
                await self._respond(send, joined(answer.take()))
                return
            try:
                await self._answer(answer, headers, receive, send)
            finally:
                self._service.leave(run_id, answer.hear)

    async def _authentic_body(self, scope: Scope, headers: Headers, receive: Receive) -> bytes:
        target = target_of(scope)
        try:
            if self._security.type == "bearer":
                self._security.verify_headers(headers=scope["headers"], transport="http", target=target)
            with await self._body(headers.get("content-length"), receive) as body:
                self._security.verify_headers(
                    headers=scope["headers"], transport="http", target=target, digest=body.digest
                )
                return body.read() if body.in_memory else await asyncio.to_thread(body.read)
        except PermissionError as error:
            log_refusal(scope, error)
            raise _Refused(401, str(error)) from None

    async def _body(self, announced: str | None, receive: Receive) -> Body:
        length = int(announced) if announced is not None and announced.isdecimal() else None
        try:
            if length is not None and length > self._limit:
                raise BodyTooLarge
            return await receive_body(receive, length=length, limit=self._limit, limits=DEFAULT_LIMITS)
        except BodyTooLarge:
            raise _Refused(413, f"The command is larger than {self._limit:,} bytes.") from None
        except BodyTooSlow:
            raise _Refused(408, "The body came too slowly.") from None
        except ClientGone:
            raise _Refused(400, "The connection ended before the body did.") from None

    async def _answer(self, answer: Answer, headers: Headers, receive: Receive, send: Send) -> None:
        client = _Client(receive)
        try:
            streams = STREAM_TYPE in headers.get("accept", "")
            await answer.wait(min(_PATIENCE, self._beat))
            while not answer.final and not streams:
                if await client.has_gone():
                    return
                await answer.wait(self._beat)
            if answer.final:
                await self._respond(send, joined(answer.take()))
            else:
                await self._stream(answer, client, send)
        finally:
            client.close()

    async def _stream(self, answer: Answer, client: _Client, send: Send) -> None:
        answer.streams = True
        headers = [(b"content-type", STREAM_TYPE.encode()), (b"wove-beat", f"{self._beat:g}".encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        while not await client.has_gone():
            final, lines = answer.final, answer.take() or [NO_NEWS]
            await send({"type": "http.response.body", "body": b"\n".join([*lines, b""]), "more_body": not final})
            if final:
                return
            await answer.wait(self._beat)

    async def _refuse(self, send: Send, refused: _Refused) -> None:
        body = json_to_bytes({"error": str(refused)})
        await self._respond(send, body, status=refused.status, more=refused.headers)

    async def _respond(
        self, send: Send, body: bytes, *, status: int = 200, more: tuple[tuple[bytes, bytes], ...] = ()
    ) -> None:
        headers = [
            (b"content-type", b"application/json"),
            (b"content-length", str(len(body)).encode()),
            (b"wove-beat", f"{self._beat:g}".encode()),
            *more,
        ]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})


def target_of(scope: Scope) -> str:
    """Return what a signature covers of a request's URL: the path with its query, as the client wrote it."""
    path: bytes = scope.get("raw_path") or scope["path"].encode()
    query: bytes = scope["query_string"]
    return (path + b"?" + query if query else path).decode("latin-1")


def log_refusal(scope: Scope, error: PermissionError) -> None:
    """Say in the log that a request was not authentic."""
    client = scope.get("client") or ("an unknown address",)
    logger.warning("A request from %s was refused: %s", client[0], error)
