"""Runs a worker service over gRPC, until a signal comes."""

import argparse
import asyncio
import signal
import sys
from pathlib import Path

from wove.backend.addresses import url_host
from wove.security import NetworkExecutorSecurity
from wove.services.asgi_server import DRAINING, announcement
from wove.services.grpc_endpoint import listen, make_server
from wove.services.service import WorkerService
from wove.services.settings import ServiceSettings

_FLUSH_SECONDS = 5.0


def serve_grpc(options: argparse.Namespace, security: NetworkExecutorSecurity) -> int:
    """Serve gRPC; return the exit code.

    Raises:
        OSError: the address cannot be used.
        ConfigurationError: an option has a wrong value.
    """
    settings = ServiceSettings(
        workers=options.workers,
        threads=options.threads,
        beat=options.beat,
        grace=options.grace,
        max_body_bytes=options.max_body_bytes,
    )
    return asyncio.run(_serve(options, security, settings))


async def _serve(options: argparse.Namespace, security: NetworkExecutorSecurity, settings: ServiceSettings) -> int:
    service = WorkerService(settings)
    server = make_server(service, security)
    host = url_host(options.host)
    try:
        port = listen(
            server,
            f"{host}:{options.port}",
            certificate=Path(options.tls_cert) if options.tls_cert else None,
            key=Path(options.tls_key) if options.tls_key else None,
        )
    except RuntimeError as error:
        raise OSError(str(error)) from None
    await service.start()
    await server.start()
    stopped = asyncio.Event()

    def on_signal() -> None:
        if stopped.is_set():
            service.hurry()
        stopped.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, on_signal)
    print(announcement(f"{'grpcs' if options.tls_cert else 'grpc'}://{host}:{port}", service, security), flush=True)
    await stopped.wait()
    print(DRAINING, file=sys.stderr, flush=True)
    await service.stop()
    await server.stop(_FLUSH_SECONDS)
    return 0
