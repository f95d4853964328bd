"""Bad input at the receiver's door, over real sockets: every answer comes before the next thing is touched."""

import asyncio
import contextlib
import gc
import json
import time
import tracemalloc
from typing import Any

import pytest

from tests.support.receiving import IMPATIENT, Connection, Receiving, fetch, receiving, signature
from wove.backend.app import callback_app
from wove.backend.frames import frame_to_bytes
from wove.backend.signing import body_digest
from wove.serialization import dumps, encode

MIB = 1024 * 1024
unpickled: list[str] = []


class Tripwire:
    """Says so when its pickle is loaded."""

    def __reduce__(self) -> tuple[Any, ...]:
        return unpickled.append, ("loaded",)


@pytest.fixture(autouse=True)
def _reset() -> None:
    unpickled.clear()


@pytest.fixture
async def receiver() -> Any:
    async with receiving() as session:
        yield session


@pytest.fixture
async def signed() -> Any:
    async with receiving(callback_security="signed") as session:
        yield session


def event(run_id: str = "a", kind: str = "heartbeat", **more: Any) -> dict[str, Any]:
    return {"type": kind, "run_id": run_id, "task_id": "report", **more}


def tripwire(run_id: str = "a", kind: str = "task_result") -> bytes:
    return json.dumps(event(run_id, kind, result_pickle=encode(dumps(Tripwire(), what="it")))).encode()


async def still_works(receiver: Receiving) -> bool:
    """Whether a run that is open now gets its result."""
    key = await receiver.open_run(run_id := f"probe-{time.monotonic_ns()}")
    posted = await receiver.post(event(run_id, "task_result", result=1), key=key)
    return posted.status == 200 and (await receiver.received_so_far())[-1]["run_id"] == run_id


async def answered_without_body(url: str, method: str = "POST", **fields: str) -> int:
    """The status that a request gets whose body is announced and never sent."""
    async with Connection(url) as connection:
        headers = {"content-length": "10000000", **{k.replace("_", "-"): v for k, v in fields.items()}}
        await connection.send(connection.head(method, headers))
        return (await connection.answer()).status


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


async def test_a_pickle_for_an_unknown_run_is_not_unpickled(receiver: Receiving) -> None:
    assert (await receiver.post(tripwire("stranger"))).status == 410
    assert unpickled == []


async def test_a_pickle_for_a_run_that_is_over_is_not_unpickled(receiver: Receiving) -> None:
    await receiver.open_run("a")
    await receiver.close_run("a")
    assert (await receiver.post(tripwire("a"))).status == 410
    assert unpickled == []


async def test_a_pickle_in_a_heartbeat_is_ignored(receiver: Receiving) -> None:
    await receiver.open_run("a")
    assert (await receiver.post(tripwire("a", "heartbeat"))).status == 200
    assert await receiver.recv() == event("a")
    assert unpickled == []


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


async def test_a_body_above_the_limit_gets_413_before_it_is_read() -> None:
    async with receiving(callback_max_bytes=1000) as receiver:
        await receiver.open_run("a")
        assert await answered_without_body(receiver.url, content_length="1001") == 413
        answer = await receiver.post(event("a", "log", message="x" * 1000))
        assert answer.status == 413
        assert "1,000" in answer.json["error"]
        assert await still_works(receiver)


async def test_a_body_at_the_limit_is_accepted() -> None:
    body = frame_to_bytes(event("a", "log", message="x" * 1000))
    async with receiving(callback_max_bytes=len(body)) as receiver:
        await receiver.open_run("a")
        assert (await receiver.post(body)).status == 200
        assert (await receiver.post(body + b" ")).status == 413


async def test_500_megabytes_are_refused_in_flat_memory(receiver: Receiving) -> None:
    await receiver.open_run("a")
    size = 500 * MIB
    async with Connection(receiver.url) as connection:
        with allocations() as peak:
            await connection.send(connection.head("POST", {"content-length": str(size)}))
            piece = b"x" * MIB
            for _ in range(500):
                await connection.send(piece)
            answer = await connection.answer()
        assert answer.status == 413
        # The connection has been read to the end of the body, so it carries another request.
        body = frame_to_bytes(event("a"))
        await connection.send(connection.head("POST", {"content-length": str(len(body))}) + body)
        assert (await connection.answer()).status == 200
    assert peak() < 16 * MIB


async def test_an_endless_body_is_cut_at_the_limit_in_flat_memory() -> None:
    async with receiving(callback_max_bytes=64 * MIB) as receiver:
        sent = 0
        with allocations() as peak:
            async with Connection(receiver.url) as connection:
                await connection.send(connection.head("POST", {"transfer-encoding": "chunked"}))
                reading = asyncio.ensure_future(connection.answer(seconds=60))
                piece = b"%x\r\n%s\r\n" % (MIB, b"x" * MIB)
                while not reading.done():
                    await connection.send(piece)
                    sent += MIB
                answer = await reading
        assert answer.status == 413
        assert sent < 96 * MIB
        assert peak() < 16 * MIB
        assert await still_works(receiver)


async def test_headers_that_come_slowly_are_dropped() -> None:
    async with receiving(limits=IMPATIENT) as receiver:
        async with Connection(receiver.url) as silent, Connection(receiver.url) as slow:
            await slow.send(slow.head("POST", {"content-length": "5"})[:-4])
            began = time.monotonic()
            drip = asyncio.ensure_future(_drip(slow, b"\r\nx: y"))
            await asyncio.gather(silent.ends(), slow.ends())
            drip.cancel()
            assert time.monotonic() - began < 5
        assert await still_works(receiver)


@pytest.mark.parametrize("first_request", [False, True])
async def test_endless_headers_are_dropped(receiver: Receiving, first_request: bool) -> None:
    async with Connection(receiver.url) as connection:
        if not first_request:
            await receiver.open_run("a")
            body = frame_to_bytes(event("a"))
            await connection.send(connection.head("POST", {"content-length": str(len(body))}) + body)
            assert (await connection.answer()).status == 200
        await connection.send(connection.head("POST", {})[:-2])
        sent = 0
        with contextlib.suppress(ConnectionError):
            while sent < 64 * MIB:
                await connection.send(b"x: " + b"y" * 65_000 + b"\r\n")
                sent += 65_000
        assert sent < 32 * MIB
    assert await still_works(receiver)


async def test_slow_headers_on_a_kept_connection_are_dropped() -> None:
    async with receiving(limits=IMPATIENT) as receiver, Connection(receiver.url) as connection:
        await receiver.open_run("a")
        body = frame_to_bytes(event("a"))
        await connection.send(connection.head("POST", {"content-length": str(len(body))}) + body)
        assert (await connection.answer()).status == 200
        await connection.send(b"POST /wove")
        await connection.ends()


async def test_a_kept_connection_may_be_idle_for_longer_than_headers_may_take() -> None:
    async with receiving(limits=IMPATIENT) as receiver, Connection(receiver.url) as connection:
        await receiver.open_run("a")
        body = frame_to_bytes(event("a"))
        for pause in (2 * IMPATIENT.head_seconds, 0):
            await connection.send(connection.head("POST", {"content-length": str(len(body))}) + body)
            assert (await connection.answer()).status == 200
            await asyncio.sleep(pause)


@pytest.mark.parametrize("fields", [{"content-length": "1000"}, {"transfer-encoding": "chunked"}])
async def test_a_body_that_comes_slowly_is_dropped(fields: dict[str, str]) -> None:
    async with receiving(limits=IMPATIENT) as receiver:
        async with Connection(receiver.url) as connection:
            await connection.send(connection.head("POST", fields))
            drip = asyncio.ensure_future(_drip(connection, b"1\r\nx\r\n"))
            assert (await connection.answer()).status == 408
            await connection.ends()
            drip.cancel()
        assert await still_works(receiver)


async def test_a_client_that_leaves_in_the_middle_harms_nobody(receiver: Receiving) -> None:
    for _ in range(20):
        async with Connection(receiver.url) as connection:
            await connection.send(connection.head("POST", {"content-length": "1000"}) + b"{")
    assert await still_works(receiver)


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


async def test_an_unsigned_event_after_a_signed_one_is_refused(receiver: Receiving) -> None:
    key = await receiver.open_run("a")
    assert (await receiver.post(event("a", "task_started"))).status == 200
    assert (await receiver.post(event("a"), key=key)).status == 200
    assert (await receiver.post(tripwire("a"))).status == 401
    assert unpickled == []


async def test_json_only_refuses_pickles_and_takes_plain_values() -> None:
    async with receiving(results="json") as receiver:
        await receiver.open_run("a")
        await receiver.open_run("b")
        plain = frame_to_bytes(event("a", "task_result", result={"rows": 3}), pickles=False)
        assert (await receiver.post(plain)).status == 200
        assert (await receiver.recv())["result"] == {"rows": 3}
        assert (await receiver.post(tripwire("b"))).status == 200
        refused = await receiver.recv()
        assert refused["type"] == "task_error"
        assert "results='json'" in refused["error"]["message"]
        assert unpickled == []


@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt, StopIteration, ValueError])
@pytest.mark.parametrize("padding", [0, MIB])
async def test_a_result_whose_pickle_raises_ends_its_run_with_the_reason(
    receiver: Receiving, error: type[BaseException], padding: int
) -> None:
    await receiver.open_run("a")
    broken = encode(dumps(_Raises(error), what="it"))
    body = json.dumps(event("a", "task_result", result_pickle=broken, padding="x" * padding)).encode()
    assert (await receiver.post(body)).status == 200
    frame = await receiver.recv()
    assert (frame["type"], frame["run_id"]) == ("task_error", "a")
    assert "from the pickle" in frame["error"]["message"]
    assert await still_works(receiver)


async def test_5000_heartbeats_are_served(receiver: Receiving) -> None:
    key = await receiver.open_run("a")
    body = frame_to_bytes(event("a"))

    async def beat(worker: str) -> None:
        async with Connection(receiver.url) as connection:
            for number in range(1, 501):
                headers = signature(str(key), "a", body, worker="w", sequence=int(f"{worker}{number:03}"))
                await connection.send(connection.head("POST", {**headers, "content-length": str(len(body))}) + body)
                assert (await connection.answer()).status == 200

    await asyncio.gather(*(beat(str(worker)) for worker in range(1, 11)))
    assert 0 < len(await receiver.received_so_far()) <= 5000


async def test_200_results_at_once_all_arrive(receiver: Receiving) -> None:
    keys = {f"run-{number}": await receiver.open_run(f"run-{number}") for number in range(200)}
    answers = await asyncio.gather(
        *(receiver.post(event(run, "task_result", result=run), key=key) for run, key in keys.items())
    )
    assert {answer.status for answer in answers} == {200}
    frames = await receiver.received_so_far()
    assert {frame["run_id"]: frame["result"] for frame in frames} == {run: run for run in keys}


async def test_a_result_of_64_megabytes_is_delivered_and_others_are_served_meanwhile(receiver: Receiving) -> None:
    key = await receiver.open_run("large")
    other = await receiver.open_run("other")
    value = b"\x00\xff" * (32 * MIB)
    body = await asyncio.to_thread(frame_to_bytes, event("large", "task_result", result=value))
    sending = asyncio.ensure_future(receiver.post(body, key=key))
    beats = 0
    while not sending.done():
        beats += 1
        assert (await receiver.post(event("other"), key=other, sequence=beats)).status == 200
    assert (await sending).status == 200
    frames = [frame for frame in await receiver.received_so_far() if frame["run_id"] == "large"]
    assert frames[0]["result"] == value
    assert beats > 2


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


async def test_a_signed_event_of_a_run_that_is_over_is_answered_before_the_body_is_read(signed: Receiving) -> None:
    key = await signed.open_run("a")
    large = frame_to_bytes(event("a", "task_result", result="x" * MIB))
    headers = signature(str(key), "a", large, sequence=7)
    assert (await signed.post(large, headers=headers)).status == 200
    length = str(len(large))
    assert await answered_without_body(signed.url, **headers, content_length=length) == 200
    other = signature(str(key), "a", large, sequence=8)
    assert await answered_without_body(signed.url, **other, content_length=length) == 410


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


async def test_an_event_signature_does_not_fetch(signed: Receiving) -> None:
    key = await signed.open_run("a", body=b"{}")
    async with Connection(f"{signed.url}/a") as connection:
        await connection.send(connection.head("GET", signature(str(key), "a", b"")))
        assert (await connection.answer()).status == 401


async def _drip(connection: Connection, piece: bytes) -> None:
    with contextlib.suppress(ConnectionError):
        while True:
            await connection.send(piece)
            await asyncio.sleep(0.05)


class _Raises:
    """Raises an exception when its pickle is loaded."""

    def __init__(self, error: type[BaseException]) -> None:
        self.error = error

    def __reduce__(self) -> tuple[Any, ...]:
        return _raise, (self.error,)


def _raise(error: type[BaseException]) -> None:
    raise error("from the pickle")


@contextlib.contextmanager
def allocations() -> Any:
    """Give a function that tells how many bytes more were allocated at the peak of the block than before it."""
    gc.collect()
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    result: list[int] = []
    try:
        yield lambda: result[0]
    finally:
        result.append(tracemalloc.get_traced_memory()[1] - before)
        tracemalloc.stop()
