"""Payloads that a worker fetches from the receiver, and those that are signed with a shared secret."""

import time
from typing import Any

import pytest

from tests.support.event_server import OVER, EventServer, Move, final_event
from tests.support.payloads import SECRET, payload_for
from tests.support.worker_tasks import Counter
from tests.unit.integrations.conftest import Run
from wove.backend.payload import split_payload
from wove.backend.signing import CLAIM_REQUEST, derive_key, read_signature, sign_payload, verify_event
from wove.errors import SignatureError


def _claiming(server: EventServer, **args: Any) -> tuple[dict[str, Any], bytes]:
    whole = payload_for(server.url, lambda text: len(text), **args)
    small, body = split_payload(whole, 2000)
    assert body is not None
    return dict(small), body


def test_a_payload_that_waits_at_the_receiver_is_fetched(execute: Run, server: EventServer) -> None:
    payload, body = _claiming(server, text="x" * 1_000_000)
    server.rule = lambda request: Move(body=body) if request.method == "GET" else Move()
    execute(payload)
    assert server.kinds == ["task_started", "GET", "task_result"]
    assert final_event(server)["result"] == 1_000_000
    fetched = server.requests[1]
    signature = read_signature(fetched.headers)
    assert signature is not None
    assert fetched.path.endswith(f"/{payload['run_id']}")
    verify_event(signature, payload["callback_key"], length=0, now=time.time(), request=CLAIM_REQUEST)


def test_a_fetched_payload_that_is_not_the_submitted_one_is_an_error(execute: Run, server: EventServer) -> None:
    payload, body = _claiming(server, text="x" * 10_000)
    server.rule = lambda request: Move(body=body[:-1] + b" ") if request.method == "GET" else Move()
    execute(payload)
    assert "not what was submitted" in final_event(server)["error"]["message"]
    assert final_event(server)["error"]["source"] == "transport"


def test_a_payload_that_is_refused_is_an_error_and_one_that_is_over_is_nothing(
    execute: Run, server: EventServer
) -> None:
    payload, _ = _claiming(server, text="x" * 10_000)
    server.rule = lambda request: Move(405) if request.method == "GET" else Move()
    execute(payload)
    assert final_event(server)["error"]["kind"] == "EventRefusedError"
    server.requests.clear()
    payload, _ = _claiming(server, text="x" * 10_000)
    server.rule = lambda request: OVER if request.method == "GET" else Move()
    execute(payload)
    assert server.kinds == ["task_started", "GET"]


def test_a_payload_signed_with_a_shared_secret_is_executed(
    execute: Run, server: EventServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JOBS_SECRET", SECRET.decode())
    payload = payload_for(server.url, lambda: 1) | {"callback_security": "env:JOBS_SECRET"}
    del payload["callback_key"]
    payload["signature"] = sign_payload(payload, SECRET)
    execute(payload)
    signature = read_signature(server.requests[-1].headers)
    assert signature is not None
    key = derive_key(SECRET, payload["run_id"])
    verify_event(signature, key, length=len(server.requests[-1].body), now=time.time())


def test_a_payload_with_a_wrong_signature_is_neither_unpickled_nor_answered(
    execute: Run, server: EventServer, monkeypatch: pytest.MonkeyPatch, counter: Counter
) -> None:
    monkeypatch.setenv("JOBS_SECRET", SECRET.decode())
    payload = payload_for(server.url, counter) | {"callback_security": "env:JOBS_SECRET", "signature": "0" * 64}
    with pytest.raises(SignatureError):
        execute(payload)
    assert counter.count == 0
    assert server.requests == []
