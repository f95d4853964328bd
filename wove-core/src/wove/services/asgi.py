"""The ASGI application of a worker service, for HTTP and WebSocket on the same path."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from wove.errors import ConfigurationError, MissingDispatchFeatureError
from wove.security import NetworkExecutorSecurity
from wove.services.service import WorkerService
from wove.services.settings import MIB, ServiceSettings

try:
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import JSONResponse
    from starlette.routing import BaseRoute, Route, WebSocketRoute
except ImportError:
    raise MissingDispatchFeatureError("A worker service") from None

from wove.services.http_endpoint import HttpEndpoint
from wove.services.websocket_endpoint import WebSocketEndpoint

DEFAULT_PATH = "/wove/tasks"


def create_app(
    *,
    security: object = None,
    workers: int | None = None,
    threads: int = 64,
    path: str = DEFAULT_PATH,
    beat: float = 10.0,
    grace: float = 30.0,
    max_body_bytes: int = 256 * MIB,
) -> Starlette:
    """Return an ASGI application that executes the tasks of ``http`` and ``websocket`` executors.

    Run it under any ASGI server, or mount it in an application; ``python -m wove.services`` runs it under uvicorn.
    Tasks run in worker processes, which start with the application or, where it is mounted, with the first task.
    ``app.state.service`` is the `WorkerService`: a host that mounts the application awaits its ``stop`` at the end.

    Args:
        security: who may send tasks: what `wove.security.NetworkExecutorSecurity.from_config` takes. Without it anybody
            who reaches the application can run code.
        workers: how many worker processes; None for one per processor. A server that runs the application in several
            processes gives each of them that many.
        threads: how many synchronous tasks run side by side in one worker process.
        path: where commands are posted, and WebSockets opened. ``/healthz`` answers without authentication.
        beat: seconds between the signs of life that waiting clients get.
        grace: seconds that running tasks get at shutdown.
        max_body_bytes: the largest command that is accepted.

    Raises:
        ConfigurationError: a setting has a wrong value.
        MissingDispatchFeatureError: starlette is not installed.
    """
    settings = ServiceSettings(workers=workers, threads=threads, beat=beat, grace=grace, max_body_bytes=max_body_bytes)
    if not path.startswith("/") or "{" in path:
        raise ConfigurationError(f"Worker service: path must begin with '/' and hold no parameters, not {path!r}.")
    verifier = NetworkExecutorSecurity.from_config(security)
    service = WorkerService(settings)

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        await service.start()
        try:
            yield
        finally:
            await service.stop()

    async def health(request: Request) -> JSONResponse:
        status = "draining" if service.draining else "ok"
        return JSONResponse({"status": status, "running": service.running, "workers": settings.processes})

    routes: list[BaseRoute] = [
        Route(path, HttpEndpoint(service, verifier)),
        WebSocketRoute(path, WebSocketEndpoint(service, verifier)),
        Route("/healthz", health, methods=["GET"]),
    ]
    app = Starlette(routes=routes, lifespan=lifespan)
    app.state.service = service
    return app
