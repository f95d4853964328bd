"""The routes of the callback protocol as the receiver's own server takes them: two, told apart by their slashes.

Starlette's router and middlewares have nothing to do here. An application that mounts `wove.backend.callback_app`
below a prefix of its own needs them.
"""

from collections.abc import MutableMapping
from typing import Any

from wove.backend.app import ClaimEndpoint, EventEndpoint, Send
from wove.backend.bodies import DEFAULT_LIMITS, Receive, ReceiveLimits
from wove.backend.callback_settings import EVENTS_PATH

_PREFIX = f"{EVENTS_PATH}/"
_BODY = b"Not Found"
_NOT_FOUND = {
    "type": "http.response.start",
    "status": 404,
    "headers": [(b"content-length", str(len(_BODY)).encode()), (b"content-type", b"text/plain; charset=utf-8")],
}


class CallbackRoutes:
    """An ASGI application for HTTP alone: what `wove.backend.app.build_callback_app` answers at the root of a server.

    Args:
        limits: how long a client may take.
    """

    def __init__(self, limits: ReceiveLimits = DEFAULT_LIMITS) -> None:
        self._events = EventEndpoint(limits)
        self._claims = ClaimEndpoint()

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        path: str = scope["path"]
        token, slash, run_id = path[len(_PREFIX) :].partition("/") if path.startswith(_PREFIX) else ("", "", "")
        if token and not slash:
            scope["path_params"] = {"token": token}
            await self._events(scope, receive, send)
        elif token and run_id and "/" not in run_id:
            scope["path_params"] = {"token": token, "run_id": run_id}
            await self._claims(scope, receive, send)
        else:
            await send(_NOT_FOUND)
            await send({"type": "http.response.body", "body": _BODY})
