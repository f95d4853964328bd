"""A worker service over HTTP, as any client sees it."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.routing import Mount

from tests.support.commands import add, command, plain, sleep, until, wait_for
from wove import NetworkExecutorSecurity
from wove.backend.frames import deserialize_event
from wove.errors import ConfigurationError
from wove.services import create_app
from wove.services import service as service_module

PATH = "/wove/tasks"
SIGNED = {"type": "signed", "secret": "a secret of more than sixteen bytes"}
BEARER = {"type": "bearer", "token": "a-token-of-enough-length"}
STREAMS = {"Accept": "application/json, application/x-ndjson"}


@asynccontextmanager
async def serving(**settings: Any) -> AsyncIterator[tuple[httpx.AsyncClient, Starlette]]:
    app = create_app(**{"workers": 1, **settings})
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://service") as client:
        try:
            yield client, app
        finally:
            await app.state.service.stop(0)


def signed_headers(body: bytes, target: str = PATH, config: Any = SIGNED) -> dict[str, str]:
    return NetworkExecutorSecurity.from_config(config).headers_for(transport="http", target=target, body=body)


def lines(response: httpx.Response) -> list[Any]:
    return [json.loads(line) for line in response.text.splitlines()]


async def test_a_short_task_is_answered_with_its_one_event() -> None:
    async with serving() as (client, _):
        response = await client.post(PATH, content=command(add, left=1, right=2), headers=STREAMS)
    assert response.status_code == 200
    assert response.headers["content-type"] == "application/json"
    assert response.headers["wove-beat"] == "10"
    event = deserialize_event(response.json())
    assert (event["type"], event["run_id"], event["result"]) == ("task_result", "run-1", 3)


async def test_a_long_task_is_answered_with_a_stream_of_lines() -> None:
    async with serving(beat=0.1) as (client, _):
        response = await client.post(PATH, content=command(sleep, seconds=0.5), headers=STREAMS)
    assert response.headers["content-type"] == "application/x-ndjson"
    answers = lines(response)
    assert [answer["type"] for answer in answers if "type" in answer] == ["task_started", "task_result"]
    assert [answer for answer in answers if "type" not in answer].count({"events": []}) == len(answers) - 2 > 0


async def test_heartbeats_come_as_often_as_the_command_asks() -> None:
    body = command(sleep, seconds=0.6, delivery={"delivery_heartbeat_seconds": 0.3})
    async with serving() as (client, _):
        response = await client.post(PATH, content=body, headers=STREAMS)
    kinds = [line["type"] for line in lines(response)]
    assert kinds[0] == "task_started"
    assert kinds[-1] == "task_result"
    assert kinds.count("heartbeat") >= 3


async def test_a_client_that_reads_no_streams_gets_one_answer_in_the_end() -> None:
    body = command(sleep, seconds=0.5, delivery={"delivery_heartbeat_seconds": 0.3})
    async with serving(beat=0.1) as (client, _):
        response = await client.post(PATH, content=body)
    assert response.headers["content-type"] == "application/json"
    answer = response.json()
    events = answer if isinstance(answer, list) else [answer]
    assert events[-1]["type"] == "task_result"


async def test_a_cancel_is_answered_with_nothing_and_stops_the_run(tmp_path: Path) -> None:
    async with serving() as (client, _):
        waiting = asyncio.create_task(client.post(PATH, content=command(wait_for, path=str(tmp_path / "go"))))
        await until((tmp_path / "go.begun").exists)
        response = await client.post(PATH, content=plain("cancel_task"))
        assert (response.status_code, response.content) == (200, b"")
        assert (await waiting).json()["type"] == "task_cancelled"


async def test_who_attaches_gets_the_outcome() -> None:
    async with serving() as (client, _):
        await client.post(PATH, content=command(add, left=1, right=2))
        response = await client.post(PATH, content=plain("attach_run"))
    assert deserialize_event(response.json())["result"] == 3


async def test_a_run_whose_client_has_gone_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service_module, "ABANDONED_SECONDS", 0.05)
    app = create_app(workers=1, beat=0.05)
    gone = asyncio.Event()
    messages = [{"type": "http.request", "body": command(wait_for, path=str(tmp_path / "go")), "more_body": False}]

    async def receive() -> Any:
        if messages:
            return messages.pop()
        await gone.wait()
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        pass

    scope = {"type": "http", "method": "POST", "path": PATH, "raw_path": PATH.encode(), "query_string": b""}
    scope |= {"headers": [(b"accept", b"application/x-ndjson")], "root_path": ""}
    serving = asyncio.create_task(app(scope, receive, send))
    await until((tmp_path / "go.begun").exists)
    gone.set()
    await serving
    await until((tmp_path / "go.cancelled").exists)
    await app.state.service.stop(0)


# --- who may send tasks ---


async def test_a_signed_command_is_executed() -> None:
    body = command(add, left=1, right=2)
    async with serving(security=SIGNED) as (client, _):
        response = await client.post(PATH + "?a=1", content=body, headers=signed_headers(body, PATH + "?a=1"))
    assert deserialize_event(response.json())["result"] == 3


@pytest.mark.parametrize(
    "headers",
    [
        {},
        signed_headers(b"another body"),
        signed_headers(command(add, left=1, right=2), "/elsewhere"),
        signed_headers(command(add, left=1, right=2), config={**SIGNED, "secret": "another secret of this length"}),
        {"Authorization": "Bearer a-token-of-enough-length"},
    ],
    ids=["none", "another body", "another path", "another secret", "a token"],
)
async def test_a_command_that_is_not_signed_rightly_is_refused(
    headers: dict[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    async with serving(security=SIGNED) as (client, app):
        response = await client.post(PATH, content=command(add, left=1, right=2), headers=headers)
        assert app.state.service.running == 0
    assert response.status_code == 401
    assert "Request refused" in response.json()["error"]
    assert "was refused" in caplog.text


async def test_a_signed_command_is_not_accepted_twice() -> None:
    body = command(add, left=1, right=2)
    headers = signed_headers(body)
    async with serving(security=SIGNED) as (client, _):
        statuses = [(await client.post(PATH, content=body, headers=headers)).status_code for _ in range(2)]
    assert statuses == [200, 401]


async def test_without_the_token_no_byte_of_the_body_is_read() -> None:
    read = 0

    async def body() -> AsyncIterator[bytes]:
        nonlocal read
        for _ in range(100):
            read += 1
            yield b"x" * 1000

    async with serving(security=BEARER) as (client, _):
        assert (await client.post(PATH, content=body())).status_code == 401
        assert read == 0
        headers = {"Authorization": "Bearer a-token-of-enough-length"}
        response = await client.post(PATH, content=command(add, left=1, right=2), headers=headers)
    assert response.status_code == 200


async def test_an_application_that_is_mounted_verifies_the_whole_path() -> None:
    app = create_app(security=SIGNED, workers=1, path="/tasks")
    outer = Starlette(routes=[Mount("/inner", app=app)])
    body = command(add, left=1, right=2)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(outer), base_url="http://service") as client:
        response = await client.post("/inner/tasks", content=body, headers=signed_headers(body, "/inner/tasks"))
    await app.state.service.stop(0)
    assert deserialize_event(response.json())["result"] == 3


# --- what is refused ---


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS"])
async def test_another_method_is_refused(method: str) -> None:
    async with serving() as (client, _):
        response = await client.request(method, PATH)
    assert response.status_code == 405
    assert response.headers["allow"] == "POST"


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b'{"type": "run_task"}', b"[" * 100_000])
async def test_what_is_no_command_is_refused(body: bytes) -> None:
    async with serving() as (client, _):
        response = await client.post(PATH, content=body)
    assert response.status_code == 400
    assert response.json()["error"]


async def test_a_body_that_is_announced_as_too_large_is_refused_unread() -> None:
    async with serving(max_body_bytes=1000) as (client, _):
        response = await client.post(PATH, content=b"x" * 1001)
    assert response.status_code == 413
    assert "1,000 bytes" in response.json()["error"]


async def test_an_endless_body_is_cut_off() -> None:
    sent = 0

    async def body() -> AsyncIterator[bytes]:
        nonlocal sent
        while True:
            sent += 1
            yield b"x" * 1000

    async with serving(max_body_bytes=10_000) as (client, _):
        response = await client.post(PATH, content=body())
    assert response.status_code == 413
    assert sent <= 12


async def test_a_service_that_is_shutting_down_says_when_to_come_again() -> None:
    async with serving() as (client, app):
        await app.state.service.stop(0)
        response = await client.post(PATH, content=command(add, left=1, right=2))
    assert response.status_code == 503
    assert response.headers["retry-after"] == "1"


async def test_the_health_of_a_service_is_no_secret() -> None:
    async with serving(security=SIGNED) as (client, app):
        assert (await client.get("/healthz")).json() == {"status": "ok", "running": 0, "workers": 1}
        await app.state.service.stop(0)
        assert (await client.get("/healthz")).json()["status"] == "draining"


@pytest.mark.parametrize("path", ["wove/tasks", "", "/wove/{name}"])
def test_a_path_that_cannot_be_served_is_an_error(path: str) -> None:
    with pytest.raises(ConfigurationError, match="path"):
        create_app(path=path)


def test_a_wrong_security_setting_is_an_error() -> None:
    with pytest.raises(ConfigurationError, match="security"):
        create_app(security="hunter2")
