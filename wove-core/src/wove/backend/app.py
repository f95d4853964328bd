"""The ASGI application that workers post their events to.

Everything is checked before the next thing is touched: method, token, signature, size; then the body is read, and
goes the way of every event, see `wove.backend.arrivals`.
"""

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping
from email.utils import formatdate
from typing import Any
from urllib.parse import parse_qs

from wove.backend.arrivals import sender_of, signature_in, signing_run, take_event
from wove.backend.bodies import (
    DEFAULT_LIMITS,
    BodyTooLarge,
    BodyTooSlow,
    ClientGone,
    Receive,
    ReceiveLimits,
    receive_body,
)
from wove.backend.callback_settings import EVENTS_PATH
from wove.backend.callbacks import RUN_OVER, Callback, Refusal, Run, callback_table, too_large
from wove.backend.signing import CLAIM_REQUEST
from wove.errors import MissingDispatchFeatureError

try:
    from starlette.applications import Starlette
    from starlette.routing import Route
except ImportError as error:
    raise MissingDispatchFeatureError("The callback receiver") from error

Scope = Mapping[str, Any]
Send = Callable[[dict[str, Any]], Awaitable[None]]

_CHUNK = 256 * 1024


class EventEndpoint:
    """``POST /wove/events/{token}``: takes one event of a worker.

    Runs on whichever loop the server has; what changes a run happens on the background loop.

    Args:
        limits: how long a client may take.
    """

    def __init__(self, limits: ReceiveLimits = DEFAULT_LIMITS) -> None:
        self._limits = limits

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            if scope["method"] != "POST":
                raise Refusal(405, "Events are posted.")
            callback = callback_table().find(scope["path_params"]["token"])
            run = await self._received(callback, scope, receive)
        except ClientGone:
            return
        except Refusal as refusal:
            await _refuse(send, refusal, allow=b"POST")
        else:
            await _reply(send, 200, b'{"cancel": %s, "lease": %s}' % (_JSON_FLAGS[run.state.cancel], _seconds(run)))

    async def _received(self, callback: Callback, scope: Scope, receive: Receive) -> Run:
        headers = _headers(scope)
        length = _content_length(headers)
        sender = sender_of(callback, headers, length=length)
        if sender.repeats is not None:
            return sender.repeats
        limit = callback.max_bytes
        try:
            body = await receive_body(receive, length=length, limit=limit, limits=self._limits)
        except BodyTooLarge:
            raise Refusal(413, too_large(None, limit)) from None
        except BodyTooSlow:
            raise Refusal(408, "The event took too long to arrive.") from None
        with body:
            run = await take_event(callback, body, sender)
        # The weave goes on before the worker, which waits for the answer.
        await asyncio.sleep(0)
        return run


class ClaimEndpoint:
    """``GET /wove/events/{token}/{run_id}``: gives a worker the rest of its payload, or with ``?apart=DIGEST`` an
    argument that waits apart from it.
    """

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            if scope["method"] != "GET":
                raise Refusal(405, "The rest of a payload is fetched.")
            claim = self._claimed(scope)
        except Refusal as refusal:
            await _refuse(send, refusal, allow=b"GET")
            return
        await _start(send, 200, len(claim), [(b"content-type", b"application/json")])
        for start in range(0, len(claim), _CHUNK):
            await send({"type": "http.response.body", "body": claim[start : start + _CHUNK], "more_body": True})
        await send({"type": "http.response.body", "body": b""})

    def _claimed(self, scope: Scope) -> bytes:
        callback = callback_table().find(scope["path_params"]["token"])
        run_id = scope["path_params"]["run_id"]
        signature = signature_in(_headers(scope))
        if signature is None or signature.run_id != run_id:
            raise Refusal(401, "The rest of a payload is given to its own run's signature only.")
        run = signing_run(callback, signature, length=0, request=CLAIM_REQUEST)
        if run.over:
            raise Refusal(410, RUN_OVER)
        digest = parse_qs(scope["query_string"].decode("latin-1")).get("apart")
        claim = run.claim if digest is None else run.apart.get(digest[0])
        if claim is None:
            raise Refusal(404, "The payload of this run is complete.")
        return claim


def build_callback_app(limits: ReceiveLimits = DEFAULT_LIMITS) -> Starlette:
    """Return an ASGI application with the routes of the callback protocol.

    Args:
        limits: how long a client may take.
    """
    app = Starlette(
        routes=[
            Route(f"{EVENTS_PATH}/{{token}}", EventEndpoint(limits)),
            Route(f"{EVENTS_PATH}/{{token}}/{{run_id}}", ClaimEndpoint()),
        ]
    )
    # Workers do not follow redirects: they sign what they post, and where.
    app.router.redirect_slashes = False
    return app


callback_app = build_callback_app()
"""The receiver's application, to be mounted in a server of the project's own, below any prefix.

It serves the weaves of the process that it runs in. Where a server has several worker processes, each of them has its
own weaves, and the events of one must not be routed to another.
"""


def _headers(scope: Scope) -> dict[str, str]:
    headers: dict[str, str] = {}
    for name, value in scope["headers"]:
        key = name.decode("latin-1")
        if key in headers and key == "content-length":
            raise Refusal(400, "The request has two content-lengths.")
        headers[key] = value.decode("latin-1")
    return headers


def _content_length(headers: Mapping[str, str]) -> int | None:
    text = headers.get("content-length")
    if text is None:
        return None
    if not (text.isascii() and text.isdigit()) or len(text) > 18:
        raise Refusal(400, "The content-length is not a whole number of bytes.")
    return int(text)


_JSON_FLAGS = {False: b"false", True: b"true"}


def _seconds(run: Run) -> bytes:
    return repr(float(run.state.lease)).encode()


async def _refuse(send: Send, refusal: Refusal, *, allow: bytes) -> None:
    headers = []
    if refusal.status == 401:
        # A worker whose clock is wrong signs again by this one.
        headers.append((b"date", formatdate(usegmt=True).encode()))
    elif refusal.status == 405:
        headers.append((b"allow", allow))
    elif refusal.status == 408:
        headers.append((b"connection", b"close"))
    elif refusal.status == 503:
        headers.append((b"retry-after", b"1"))
    await _reply(send, refusal.status, json.dumps({"error": str(refusal)}).encode(), headers)


async def _reply(send: Send, status: int, content: bytes, headers: list[tuple[bytes, bytes]] | None = None) -> None:
    await _start(send, status, len(content), [(b"content-type", b"application/json"), *(headers or ())])
    await send({"type": "http.response.body", "body": content})


async def _start(send: Send, status: int, length: int, headers: list[tuple[bytes, bytes]]) -> None:
    fields = [*headers, (b"content-length", str(length).encode())]
    await send({"type": "http.response.start", "status": status, "headers": fields})
