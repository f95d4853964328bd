"""The ``grpc`` executor: one call of a generic method for each command, with the same JSON bytes as over HTTP."""

import asyncio
import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from wove.backend.frames import frame_from_bytes
from wove.environment.network import NetworkExecutor
from wove.environment.network_conversation import REACH_SECONDS
from wove.environment.network_link import Command, Hear, Link, TransportFailure, beat_of, decoded
from wove.environment.network_settings import ConfigReader, NetworkSettings, is_local
from wove.errors import MissingDispatchFeatureError

if TYPE_CHECKING:
    import grpc

DEFAULT_METHOD = "/wove.network_executor.WorkerService/Send"
STREAM_METHOD = "/wove.network_executor.WorkerService/Stream"
HELLO = b'{"type":"hello"}'

_SETTINGS = (
    "target", "method", "secure", "root_certificates", "metadata", "timeout", "security", "insecure",
    "max_response_bytes",
)  # fmt: skip
_PROBE_SECONDS = 5.0
_SECONDS_FOR_THE_END = 0.2
_LARGEST_MESSAGE = 2**31 - 1
_URL_SCHEMES = ("grpc", "grpcs", "http", "https", "ws", "wss")
_USELESS = ("UNAUTHENTICATED", "PERMISSION_DENIED", "INVALID_ARGUMENT", "UNIMPLEMENTED", "RESOURCE_EXHAUSTED")


class GrpcLink(Link):
    """One channel; it reconnects by itself. Calls are streams where the service is Wove's own, and unary elsewhere."""

    def __init__(self, settings: NetworkSettings) -> None:
        super().__init__(settings)
        self._channel = _channel(settings)
        self._unary: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = self._channel.unary_unary(settings.target)
        self._stream: grpc.aio.UnaryStreamMultiCallable[bytes, bytes] = self._channel.unary_stream(STREAM_METHOD)
        self._streams: bool | None = None if settings.target == DEFAULT_METHOD else False
        self._probing = asyncio.Lock()

    async def converse(self, command: Command, hear: Hear, alive: Callable[[], None]) -> None:
        """Call the service and pass on the events of the answer."""
        streams = await self._speaks_in_streams()
        ready = await self._ready()
        # gRPC does not tell when a command has been sent; from here on it may have been.
        alive()
        await (self._converse_in_stream(command, hear, ready) if streams else self._call(command.body, hear, ready))

    async def cancel(self, command: Command, hear: Hear) -> None:
        """Call the service and pass on what answers, if anything."""
        await self._call(command.body, hear, await self._ready())

    async def close(self) -> None:
        """Close the channel."""
        channel = self._channel
        # gRPC's thread ends with the last reference to the last channel, and whoever owned this link may still hold it.
        del self._channel, self._unary, self._stream
        await channel.close()

    async def _call(self, body: bytes, hear: Hear, ready: bool) -> None:
        import grpc

        try:
            data = await self._unary(body, metadata=_metadata(self.settings, self.settings.target, body))
        except grpc.aio.AioRpcError as error:
            raise _failure(error, ready=ready) from None
        await hear(decoded(data))

    async def _converse_in_stream(self, command: Command, hear: Hear, ready: bool) -> None:
        import grpc

        call = self._stream(command.body, metadata=_metadata(self.settings, STREAM_METHOD, command.body))
        try:
            # An `async for` that is left early keeps the call, and thereby gRPC's thread, in a cycle of references.
            while isinstance(data := await call.read(), bytes):
                if await hear(decoded(data)):
                    async with asyncio.timeout(_SECONDS_FOR_THE_END):
                        await call.code()
                    return
        except grpc.aio.AioRpcError as error:
            raise _failure(error, ready=ready) from None
        finally:
            call.cancel()

    async def _speaks_in_streams(self) -> bool:
        """Ask the service once whether it has the streaming method. It carries no task, so any refusal is harmless."""
        import grpc

        if self._streams is not None:
            return self._streams
        async with self._probing:
            if self._streams is None:
                ready = await self._ready()
                call = self._stream(
                    HELLO, metadata=_metadata(self.settings, STREAM_METHOD, HELLO), timeout=_PROBE_SECONDS
                )
                try:
                    async for answer in call:
                        self.beat = _promised_beat(answer) or self.beat
                except grpc.aio.AioRpcError as error:
                    if not ready:
                        raise _failure(error, ready=False) from None
                finally:
                    call.cancel()
                self._streams = self.beat is not None
        return self._streams

    async def _ready(self) -> bool:
        import grpc

        if self._channel.get_state(try_to_connect=True) is grpc.ChannelConnectivity.READY:
            return True
        try:
            async with asyncio.timeout(REACH_SECONDS):
                await self._channel.channel_ready()
        except TimeoutError:
            return False
        return True


class GrpcEnvironmentExecutor(NetworkExecutor):
    """Sends frames to a worker service through a generic gRPC method.

    ``executor_config``: ``target`` (``host:port``); ``method``: unary, bytes in and out, by default
    ``/wove.network_executor.WorkerService/Send``; ``secure``: TLS, by default for another machine;
    ``root_certificates``: PEM text, or the path of a PEM file; ``metadata``: a dict of extra metadata; ``timeout``:
    seconds that one task's answer may take in all, None for no limit; ``security``, ``max_response_bytes`` and
    ``insecure`` as for the http executor. ``target`` may also be ``grpc://host:port``, as Wove's service prints it, or
    ``grpcs://host:port``, which demands TLS.

    Where the service is Wove's own, its streaming method is used instead of the default one, so that signs of life come
    through.
    """

    feature = "The grpc executor"
    reusable = begins = listens = True

    @classmethod
    def open_link(cls, settings: NetworkSettings) -> Link:
        """Return a link whose channel is not connected yet."""
        return GrpcLink(settings)

    def read_settings(self, environment: str, config: Mapping[str, Any]) -> NetworkSettings:
        """Check the packages and settings that the transport needs, and return the settings."""
        try:
            import grpc  # noqa: F401
        except ImportError:
            raise MissingDispatchFeatureError(self.feature, install='pip install "wove[grpc]"') from None
        return _settings(environment, config)


def _settings(environment: str, config: Mapping[str, Any]) -> NetworkSettings:
    reader = ConfigReader(environment, config, _SETTINGS)
    target, demands_tls = _target(reader)
    method = reader.get("method", DEFAULT_METHOD, _is_method, "text of the form '/package.Service/Method'")
    port = target.rpartition(":")[2]
    local = _is_local(target)
    insecure = reader.flag("insecure", False)
    certificates = reader.certificates()
    settings = NetworkSettings(
        transport="grpc",
        address=target,
        host=target,
        port=int(port) if port.isdecimal() else 0,
        target=method,
        tls=reader.flag("secure", demands_tls or certificates is not None or not (local or insecure)),
        security=reader.security(),
        headers=tuple((name.lower(), value) for name, value in reader.pairs("metadata")),
        timeout=reader.seconds("timeout", None),
        watch_silence=not reader.has("timeout"),
        open_timeout=None,
        root_certificates=certificates,
        max_response_bytes=reader.size(),
        local=local,
    )
    reader.check_safety(settings, insecure=insecure)
    return settings


def _target(reader: ConfigReader) -> tuple[str, bool]:
    """Return the target, and whether it demands TLS. Wove's service prints its own as a URL."""
    target = reader.text("target", "workers.internal:50051")
    scheme, separator, rest = target.partition("://")
    if not separator or scheme not in _URL_SCHEMES:
        return target, False
    if scheme not in ("grpc", "grpcs"):
        raise reader.refuse(f"target must be host:port, like 'workers.internal:50051', not {scheme}://...")
    return rest.rstrip("/"), scheme == "grpcs"


def _is_method(value: object) -> bool:
    return isinstance(value, str) and re.fullmatch(r"/[^/\s]+/[^/\s]+", value) is not None


def _is_local(target: str) -> bool:
    """Whether a target means this machine: https://github.com/grpc/grpc/blob/master/doc/naming.md."""
    scheme, separator, rest = target.partition(":")
    if separator and scheme in ("unix", "unix-abstract", "vsock"):
        return scheme != "vsock"
    if separator and scheme in ("dns", "ipv4", "ipv6"):
        target = rest.rpartition("/")[2]
    return all(is_local(_host(address)) for address in target.split(","))


def _host(address: str) -> str:
    if address.startswith("["):
        return address[1:].partition("]")[0]
    return address.rpartition(":")[0] if address.count(":") == 1 else address


def _channel(settings: NetworkSettings) -> "grpc.aio.Channel":
    import grpc

    # No keepalive pings: by default a server takes more than one in 5 minutes for an attack and hangs up on every call.
    # https://github.com/grpc/grpc/blob/master/doc/keepalive.md
    options = [
        ("grpc.enable_http_proxy", 0),
        ("grpc.max_send_message_length", -1),
        ("grpc.max_receive_message_length", min(settings.max_response_bytes, _LARGEST_MESSAGE)),
        ("grpc.initial_reconnect_backoff_ms", 100),
        ("grpc.min_reconnect_backoff_ms", 100),
        ("grpc.max_reconnect_backoff_ms", 1000),
        ("grpc.use_local_subchannel_pool", 1),
    ]
    if not settings.tls:
        return grpc.aio.insecure_channel(settings.host, options)
    return grpc.aio.secure_channel(settings.host, grpc.ssl_channel_credentials(settings.root_certificates), options)


def _metadata(settings: NetworkSettings, method: str, body: bytes) -> list[tuple[str, str]]:
    return [*settings.headers, *settings.security.metadata_for(transport="grpc", target=method, body=body)]


def _promised_beat(answer: bytes) -> float | None:
    try:
        hello = frame_from_bytes(answer)
    except ValueError:
        return None
    return beat_of(str(hello.get("beat"))) if hello.get("type") == "hello" else None


def _failure(error: "grpc.aio.AioRpcError", *, ready: bool) -> TransportFailure:
    status = error.code().name
    details = (error.details() or "").strip().rstrip(".")[:300]
    if not ready:
        return TransportFailure(f"it cannot be reached ({details})", stage="unreached", absent=True)
    if status in ("UNAVAILABLE", "CANCELLED"):
        return TransportFailure(f"the connection broke ({status}: {details})", stage="broken")
    return TransportFailure(f"{status}: {details}", kind=f"GRPCStatus{status}", retryable=status not in _USELESS)
