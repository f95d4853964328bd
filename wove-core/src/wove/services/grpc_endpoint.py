"""Takes commands over gRPC: ``Send`` answers once, ``Stream`` as the run lives. Bytes of JSON in and out, no schema."""

import logging
from collections.abc import AsyncIterator
from pathlib import Path

from wove.backend.frames import json_to_bytes
from wove.errors import MissingDispatchFeatureError
from wove.security import NetworkExecutorSecurity
from wove.services.answer import NO_NEWS, Answer, joined
from wove.services.service import BadCommand, Busy, WorkerService

try:
    import grpc
except ImportError:
    raise MissingDispatchFeatureError("The gRPC worker service", install='pip install "wove[grpc]"') from None

SERVICE = "wove.network_executor.WorkerService"
HELLO = b'{"type":"hello"}'

_LARGEST_MESSAGE = 2**31 - 1

logger = logging.getLogger("wove.services")

Context = grpc.aio.ServicerContext[bytes, bytes]


class GrpcEndpoint:
    """The two methods of the service."""

    def __init__(self, service: WorkerService, security: NetworkExecutorSecurity) -> None:
        self._service = service
        self._security = security

    async def send(self, body: bytes, context: Context) -> bytes:
        """Answer a command with one event, or a list, when its run has ended; a cancel with nothing."""
        answer = Answer()
        run_id = await self._take(body, answer, context, method=f"/{SERVICE}/Send")
        try:
            while run_id is not None and not answer.final:
                await answer.wait(self._service.settings.beat)
            return joined(answer.take())
        finally:
            if run_id is not None:
                self._service.leave(run_id, answer.hear)

    async def stream(self, body: bytes, context: Context) -> AsyncIterator[bytes]:
        """Answer a command with messages until its run has ended, and a sign of life at each beat."""
        answer = Answer()
        answer.streams = True
        run_id = await self._take(body, answer, context, method=f"/{SERVICE}/Stream")
        if body == HELLO:
            yield json_to_bytes({"type": "hello", "beat": self._service.settings.beat})
            return
        try:
            while run_id is not None and not answer.final:
                arrived = await answer.wait(self._service.settings.beat)
                yield joined(answer.take()) if arrived else NO_NEWS
            if answer.events:
                yield joined(answer.take())
        finally:
            if run_id is not None:
                self._service.leave(run_id, answer.hear)

    async def _take(self, body: bytes, answer: Answer, context: Context, *, method: str) -> str | None:
        # gRPC gives text, and bytes for names that end in -bin.
        pairs = [(name, value) for name, value in context.invocation_metadata() or ()]
        try:
            self._security.verify_metadata(metadata=pairs, transport="grpc", target=method, body=body)
            return None if body == HELLO else self._service.take(body, answer.hear)
        except PermissionError as error:
            logger.warning("A call from %s was refused: %s", context.peer(), error)
            status, reason = grpc.StatusCode.UNAUTHENTICATED, str(error)
        except BadCommand as error:
            status, reason = grpc.StatusCode.INVALID_ARGUMENT, str(error)
        except Busy as error:
            status, reason = grpc.StatusCode.UNAVAILABLE, str(error)
        return await context.abort(status, reason)


def make_server(service: WorkerService, security: NetworkExecutorSecurity) -> grpc.aio.Server:
    """Return a gRPC server with the two methods, which listens nowhere yet."""
    endpoint = GrpcEndpoint(service, security)
    handlers: dict[str, grpc.RpcMethodHandler[bytes, bytes]] = {
        "Send": grpc.unary_unary_rpc_method_handler(endpoint.send),
        "Stream": grpc.unary_stream_rpc_method_handler(endpoint.stream),
    }
    server = grpc.aio.server(
        options=[
            ("grpc.max_receive_message_length", min(service.settings.max_body_bytes, _LARGEST_MESSAGE)),
            ("grpc.max_send_message_length", -1),
            ("grpc.so_reuseport", 0),
        ]
    )
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))
    return server


def listen(server: grpc.aio.Server, address: str, *, certificate: Path | None, key: Path | None) -> int:
    """Let a server listen, with TLS if a certificate is given; return the port.

    Raises:
        RuntimeError: the address is in use or is none of this machine.
        OSError: a file cannot be read.
    """
    if certificate is None or key is None:
        return server.add_insecure_port(address)
    pairs = [(key.read_bytes(), certificate.read_bytes())]
    return server.add_secure_port(address, grpc.ssl_server_credentials(pairs))
