"""Whom the receiver believes: signatures of events and claims, and what is replayed."""

import time

import pytest

from tests.support.receiving import (
    MIB,
    Connection,
    Receiving,
    answered_without_body,
    event,
    fetch,
    signature,
    still_works,
)
from tests.support.tripwire import tripwire, unpickled
from wove.backend.frames import frame_to_bytes
from wove.backend.signing import body_digest

pytestmark = pytest.mark.usefixtures("untouched_tripwire")


# --- events ---


async def test_an_unsigned_event_in_signed_mode_gets_401_before_the_body_is_read(signed: Receiving) -> None:
    await signed.open_run("a")
    assert await answered_without_body(signed.url) == 401
    assert (await signed.post(tripwire())).status == 401
    assert unpickled == []


async def test_a_forged_signature_gets_401_before_the_body_is_read(signed: Receiving) -> None:
    await signed.open_run("a")
    forged = signature("another key", "a", b"x" * 10_000_000)
    assert await answered_without_body(signed.url, **forged) == 401


@pytest.mark.parametrize(
    "change",
    [
        {"webhook-digest": "sha-256=" + "0" * 64},
        {"webhook-id": "a.w1.2"},
        {"webhook-id": "b.w1.1"},
        {"webhook-id": "a"},
        {"webhook-id": "a.w1.x"},
        {"webhook-timestamp": "1"},
        {"webhook-timestamp": "soon"},
        {"webhook-timestamp": "9" * 400},
        {"webhook-signature": "w1,????"},
        {"webhook-signature": "w2,AAAA"},
        {"webhook-signature": "\xfc"},
        {"webhook-signature": ""},
    ],
)
async def test_a_changed_signature_header_gets_401(signed: Receiving, change: dict[str, str]) -> None:
    key = await signed.open_run("a")
    await signed.open_run("b")
    body = frame_to_bytes(event("a", "task_result", result=1))
    headers = signature(str(key), "a", body) | change
    assert (await signed.post(body, headers=headers)).status == 401
    assert await still_works(signed)


async def test_a_body_that_is_not_the_signed_one_gets_401_and_is_not_unpickled(signed: Receiving) -> None:
    key = await signed.open_run("a")
    body = tripwire()
    headers = signature(str(key), "a", body.replace(b"report", b"stolen"))
    assert (await signed.post(body, headers=headers)).status == 401
    assert unpickled == []


async def test_a_signed_event_without_a_length_gets_401(signed: Receiving) -> None:
    key = await signed.open_run("a")
    body = frame_to_bytes(event("a"))
    headers = signature(str(key), "a", body) | {"transfer-encoding": "chunked"}
    async with Connection(signed.url) as connection:
        await connection.send(connection.head("POST", headers) + b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body))
        assert (await connection.answer()).status == 401


async def test_another_runs_key_is_refused(signed: Receiving) -> None:
    key = await signed.open_run("a")
    await signed.open_run("b")
    assert (await signed.post(tripwire("b"), key=key)).status == 401
    assert (await signed.post(tripwire("b"), key=key, signed_run="a")).status == 401
    assert unpickled == []


async def test_a_wrong_clock_gets_401_with_the_right_time(signed: Receiving) -> None:
    key = await signed.open_run("a")
    answer = await signed.post(event("a"), key=key, timestamp=time.time() - 600)
    assert answer.status == 401
    assert "gmt" in answer.headers["date"]
    assert (await signed.post(event("a"), key=key, timestamp=time.time() - 250)).status == 200


async def test_an_unsigned_event_after_a_signed_one_is_refused(receiver: Receiving) -> None:
    key = await receiver.open_run("a")
    assert (await receiver.post(event("a", "task_started"))).status == 200
    assert (await receiver.post(event("a"), key=key)).status == 200
    assert (await receiver.post(tripwire("a"))).status == 401
    assert unpickled == []


async def test_a_signed_event_of_a_run_that_is_over_is_answered_before_the_body_is_read(signed: Receiving) -> None:
    key = await signed.open_run("a")
    large = frame_to_bytes(event("a", "task_result", result="x" * MIB))
    headers = signature(str(key), "a", large, sequence=7)
    assert (await signed.post(large, headers=headers)).status == 200
    length = str(len(large))
    assert await answered_without_body(signed.url, **headers, content_length=length) == 200
    other = signature(str(key), "a", large, sequence=8)
    assert await answered_without_body(signed.url, **other, content_length=length) == 410


# --- replays ---


async def test_a_repeated_event_is_accepted_without_effect(signed: Receiving) -> None:
    key = await signed.open_run("a")
    for sequence, repeated in enumerate([event("a", "log", message="once"), event("a", "task_result", result=1)]):
        for _ in range(3):
            assert (await signed.post(repeated, key=key, sequence=sequence + 1)).status == 200
    assert [frame["type"] for frame in await signed.received_so_far()] == ["log", "task_result"]


async def test_a_replayed_event_of_a_closed_run_has_no_effect_on_another(receiver: Receiving) -> None:
    key = await receiver.open_run("a")
    body = frame_to_bytes(event("a", "task_result", result=1))
    recorded = signature(str(key), "a", body)
    assert (await receiver.post(body, headers=recorded)).status == 200
    await receiver.close_run("a")
    await receiver.open_run("b")
    assert (await receiver.post(body, headers=recorded)).status == 200
    assert (await receiver.post(body.replace(b'"a"', b'"b"'), headers=recorded)).status in (200, 401, 410)
    assert [frame["run_id"] for frame in await receiver.received_so_far()] == ["a"]


async def test_a_replayed_heartbeat_does_not_keep_a_dead_run_alive(signed: Receiving) -> None:
    key = await signed.open_run("a")
    body = frame_to_bytes(event("a"))
    recorded = signature(str(key), "a", body)
    for _ in range(5):
        assert (await signed.post(body, headers=recorded)).status == 200
    assert len(await signed.received_so_far()) == 1


# --- claims ---


async def test_the_claimed_part_of_a_payload_is_given_to_its_own_run_only(signed: Receiving) -> None:
    claim = b'{"args_pickle": "' + b"x" * 20 * MIB + b'"}'
    key = await signed.open_run("a", body=claim)
    other = await signed.open_run("b")
    got = await fetch(signed.url, "a", key)
    assert (got.status, body_digest(got.body)) == (200, body_digest(claim))
    assert (await fetch(signed.url, "a", None)).status == 401
    assert (await fetch(signed.url, "a", other)).status == 401
    assert (await fetch(signed.url, "a", other, signed_run="b")).status == 401
    assert (await fetch(signed.url, "b", other)).status == 404
    assert (await fetch(signed.url + "x", "a", key)).status == 404
    await signed.close_run("a")
    assert (await fetch(signed.url, "a", key)).status == 410


async def test_an_argument_apart_is_given_to_the_runs_that_need_it(signed: Receiving) -> None:
    key = await signed.open_run("a", body=b"{}", apart={"abc": b"shared"})
    other = await signed.open_run("b", body=b"{}")
    assert (await fetch(signed.url, "a", key, query="?apart=abc")).body == b"shared"
    assert (await fetch(signed.url, "a", key)).body == b"{}"
    assert (await fetch(signed.url, "a", key, query="?apart=abd")).status == 404
    assert (await fetch(signed.url, "b", other, query="?apart=abc")).status == 404
    assert (await fetch(signed.url, "a", other, query="?apart=abc")).status == 401
    await signed.close_run("a")
    assert (await fetch(signed.url, "a", key, query="?apart=abc")).status == 410


async def test_an_event_signature_does_not_fetch(signed: Receiving) -> None:
    key = await signed.open_run("a", body=b"{}")
    async with Connection(f"{signed.url}/a") as connection:
        await connection.send(connection.head("GET", signature(str(key), "a", b"")))
        assert (await connection.answer()).status == 401
