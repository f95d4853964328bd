"""Takes commands over WebSocket: one per message, with the events of all runs of the connection coming back."""

import asyncio
import logging
from typing import Any

from starlette.types import Message, Receive, Scope, Send

from wove.backend.frames import frame_from_bytes, json_to_bytes
from wove.backend.types import FINAL_EVENTS
from wove.security import NetworkExecutorSecurity
from wove.services.answer import NO_NEWS
from wove.services.http_endpoint import log_refusal, target_of
from wove.services.service import BadCommand, Busy, WorkerService

# https://www.rfc-editor.org/rfc/rfc6455#section-7.4.1
_UNSUPPORTED_DATA = 1003
_POLICY_VIOLATION = 1008
_TOO_BIG = 1009

logger = logging.getLogger("wove.services")


class WebSocketEndpoint:
    """An ASGI application for one path. The handshake is authenticated, before it is accepted."""

    def __init__(self, service: WorkerService, security: NetworkExecutorSecurity) -> None:
        self._service = service
        self._security = security

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await receive()  # websocket.connect
        target = target_of(scope)
        try:
            self._security.verify_headers(headers=scope["headers"], transport="websocket", target=target)
        except PermissionError as error:
            log_refusal(scope, error)
            await send({"type": "websocket.close", "code": _POLICY_VIOLATION, "reason": str(error)})
            return
        await self._service.start()
        headers = [(b"wove-beat", f"{self._service.settings.beat:g}".encode())]
        await send({"type": "websocket.accept", "headers": headers})
        await _Connection(self._service).serve(receive, send)


class _Connection:
    """One open WebSocket, and the runs that came over it."""

    def __init__(self, service: WorkerService) -> None:
        self._service = service
        # Bounded by the runs of this client; what it does not read of their results waits here.
        self._events: asyncio.Queue[bytes] = asyncio.Queue()
        self._runs: set[str] = set()

    async def serve(self, receive: Receive, send: Send) -> None:
        """Take commands until the client goes."""
        writing = asyncio.create_task(self._write(send))
        try:
            while (message := await receive())["type"] == "websocket.receive":
                code = self._take(_data(message))
                if code is not None:
                    await send({"type": "websocket.close", "code": code})
                    return
        finally:
            writing.cancel()
            await asyncio.wait([writing])
            for run_id in self._runs:
                self._service.leave(run_id, self._hear)

    def _take(self, body: bytes) -> int | None:
        """Carry out a command; return the code to close with if the client cannot be told otherwise."""
        if len(body) > self._service.settings.max_body_bytes:
            return _TOO_BIG
        try:
            run_id = self._service.take(body, self._hear)
        except (BadCommand, Busy) as error:
            return self._refuse(body, error)
        if run_id is not None:
            self._runs.add(run_id)
        return None

    def _refuse(self, body: bytes, error: Exception) -> int | None:
        try:
            frame: dict[str, Any] = frame_from_bytes(body)
        except ValueError:
            return _UNSUPPORTED_DATA
        if not isinstance(frame.get("run_id"), str):
            return _UNSUPPORTED_DATA
        failure = {
            "kind": type(error).__name__,
            "message": str(error),
            "traceback": "",
            "retryable": isinstance(error, Busy),
            "source": "transport",
        }
        ids = {"run_id": frame["run_id"], "task_id": frame.get("task_id")}
        self._events.put_nowait(json_to_bytes({"type": "task_error", **ids, "error": failure}))
        return None

    def _hear(self, run_id: str, kind: str, event: bytes) -> None:
        self._events.put_nowait(event)
        if kind in FINAL_EVENTS:
            self._runs.discard(run_id)

    async def _write(self, send: Send) -> None:
        while True:
            try:
                async with asyncio.timeout(self._service.settings.beat):
                    event = await self._events.get()
            except TimeoutError:
                event = NO_NEWS
            try:
                await send({"type": "websocket.send", "text": event.decode()})
            except Exception as error:  # Each server has its own way to say that the client has gone.
                logger.debug("A WebSocket client has gone: %s", error)
                return


def _data(message: Message) -> bytes:
    text = message.get("text")
    return text.encode() if text is not None else bytes(message.get("bytes") or b"")
