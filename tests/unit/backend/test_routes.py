"""The own server's routes answer as the application does that projects mount."""

from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from wove.backend.app import callback_app
from wove.backend.routes import CallbackRoutes

Application = Callable[[Any, Any, Any], Awaitable[None]]


async def answer(app: Application, method: str, path: str) -> tuple[int, set[tuple[bytes, bytes]], bytes]:
    sent: list[dict[str, Any]] = []
    scope = {"type": "http", "method": method, "path": path, "root_path": "", "headers": [], "query_string": b""}

    async def receive() -> dict[str, Any]:
        return {"type": "http.request"}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    await app(scope, receive, send)
    body = b"".join(message.get("body", b"") for message in sent[1:])
    return sent[0]["status"], set(sent[0]["headers"]), body


@pytest.mark.parametrize("method", ["POST", "GET", "DELETE"])
@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/other",
        "/wove/events",
        "/wove/events/",
        "/wove/events//run",
        "/wove/events/unknown",
        "/wove/events/unknown/",
        "/wove/events/unknown/run",
        "/wove/events/unknown/run/more",
        "/wove/eventsunknown",
        "/wove/events/\x85\n",
    ],
)
async def test_every_path_is_answered_as_by_the_application(method: str, path: str) -> None:
    assert await answer(CallbackRoutes(), method, path) == await answer(callback_app, method, path)
