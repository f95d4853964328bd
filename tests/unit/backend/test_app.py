"""Bad input at the receiver's door, over real sockets: wrong addresses, wrong methods, malformed requests."""

import json
from typing import Any

import pytest

from tests.support.receiving import Connection, Receiving, answered_without_body, event, still_works
from wove.backend.app import callback_app


async def test_a_wrong_token_gets_404_before_the_body_is_read(receiver: Receiving) -> None:
    assert await answered_without_body(receiver.url + "x") == 404
    assert await answered_without_body(receiver.url[:-1]) == 404


@pytest.mark.parametrize("path", ["/", "/wove", "/wove/events", "/wove/events/", "/other", "/%2e%2e/wove/events"])
async def test_an_unknown_path_gets_404(receiver: Receiving, path: str) -> None:
    async with Connection(receiver.url) as connection:
        await connection.send(connection.head("POST", {"content-length": "2"}, path=path) + b"{}")
        assert (await connection.answer()).status == 404


@pytest.mark.parametrize("method", ["GET", "PUT", "PATCH", "DELETE", "OPTIONS", "PROPFIND"])
async def test_another_method_gets_405(receiver: Receiving, method: str) -> None:
    async with Connection(receiver.url) as connection:
        await connection.send(connection.head(method, {}))
        answer = await connection.answer()
    assert (answer.status, answer.headers["allow"]) == (405, "post")


async def test_another_method_than_get_for_a_claim_gets_405(receiver: Receiving) -> None:
    async with Connection(receiver.url) as connection:
        await connection.send(connection.head("POST", {"content-length": "0"}, path=f"{connection.path}/a"))
        answer = await connection.answer()
    assert (answer.status, answer.headers["allow"]) == (405, "get")


async def test_an_unknown_type_gets_400_and_the_run_lives_on(receiver: Receiving) -> None:
    await receiver.open_run("a")
    answer = await receiver.post(event("a", "task_resalt"))
    assert answer.status == 400
    assert "Did you mean 'task_result'" in answer.json["error"]
    assert (await receiver.post(event("a", "task_result", result=1))).status == 200
    assert (await receiver.recv())["result"] == 1


@pytest.mark.parametrize("run_id", [["a"], {"a": 1}, None, 7, "", "x" * 100_000])
async def test_a_run_id_that_is_no_short_string_gets_400(receiver: Receiving, run_id: Any) -> None:
    assert (await receiver.post(json.dumps({"type": "heartbeat", "run_id": run_id}).encode())).status == 400


@pytest.mark.parametrize(
    "body", [b"", b"hello", b'{"type": "heart', b"\xff\xfe\x00", b"[]", b"3", b'{"a":' * 100_000, b"[" * 500_000]
)
async def test_a_body_that_is_not_a_json_object_gets_400(receiver: Receiving, body: bytes) -> None:
    assert (await receiver.post(body)).status == 400
    assert await still_works(receiver)


@pytest.mark.parametrize("length", ["-1", "abc", "1e3", "+5", "0x10", "5, 6", "9" * 30, "\u0661"])
async def test_a_content_length_that_is_no_number_is_refused_at_once(receiver: Receiving, length: str) -> None:
    assert 400 <= await answered_without_body(receiver.url, content_length=length) < 500


async def test_two_content_lengths_are_refused_at_once(receiver: Receiving) -> None:
    async with Connection(receiver.url) as connection:
        lines = connection.head("POST", {"content-length": "5"})[:-2] + b"content-length: 6\r\n\r\n"
        await connection.send(lines)
        assert (await connection.answer()).status == 400


@pytest.mark.parametrize("lease", ["soon", "nan", "-1", "0", "inf", "1e99", ""])
async def test_a_lease_that_is_no_number_of_seconds_gets_400(receiver: Receiving, lease: str) -> None:
    await receiver.open_run("a")
    assert (await receiver.post(event("a", "task_started"), headers={"wove-lease": lease})).status == 400


async def test_two_content_lengths_are_refused_under_any_server(receiver: Receiving) -> None:
    sent: list[dict[str, Any]] = []

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    async def receive() -> Any:
        raise AssertionError("The body must not be read.")

    scope = {
        "type": "http",
        "method": "POST",
        "path": Connection(receiver.url).path,
        "query_string": b"",
        "headers": [(b"content-length", b"5"), (b"content-length", b"6")],
    }
    await callback_app(scope, receive, send)  # type: ignore[arg-type]
    assert sent[0]["status"] == 400
