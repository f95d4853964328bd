"""Which payloads a worker executes, and with which key it answers."""

from typing import Any

import pytest

from tests.support.payloads import payload_for
from wove.backend.admission import check_payload, delivery_policy, event_key
from wove.backend.signing import derive_key, sign_payload
from wove.errors import ConfigurationError, SignatureError

SECRET = "a secret that both sides hold"
URL = "http://web:9010/wove/events/t"


@pytest.fixture
def payload() -> dict[str, Any]:
    return payload_for(URL, print)


@pytest.fixture
def signed(payload: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    monkeypatch.setenv("JOBS_SECRET", SECRET)
    del payload["callback_key"]
    payload["callback_security"] = "env:JOBS_SECRET"
    payload["signature"] = sign_payload(payload, SECRET.encode())
    return payload


@pytest.mark.parametrize("missing", ["callback_url", "run_id"])
@pytest.mark.parametrize("value", [None, "", 5])
def test_a_payload_without_an_address_or_a_run_is_refused(payload: dict[str, Any], missing: str, value: object) -> None:
    payload[missing] = value
    with pytest.raises(ValueError, match=missing):
        check_payload(payload)


@pytest.mark.parametrize("payload", [None, "text", [1]])
def test_something_else_than_a_payload_is_refused(payload: object) -> None:
    with pytest.raises(ValueError, match="A payload is a dict"):
        check_payload(payload)


def test_a_payload_of_a_later_version_is_refused(payload: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="version 2"):
        check_payload(payload | {"version": 2})
    check_payload(payload)


def test_the_key_comes_with_the_payload(payload: dict[str, Any]) -> None:
    assert event_key(payload) == payload["callback_key"]


def test_a_plain_payload_has_no_key(payload: dict[str, Any]) -> None:
    del payload["callback_key"]
    assert event_key(payload) is None


def test_the_key_is_derived_from_the_secret_of_a_signed_payload(signed: dict[str, Any]) -> None:
    assert event_key(signed) == derive_key(SECRET.encode(), signed["run_id"])


def test_a_changed_payload_has_no_key(signed: dict[str, Any]) -> None:
    with pytest.raises(SignatureError, match="does not match"):
        event_key(signed | {"callable_pickle": "evil"})


def test_a_host_without_the_secret_says_so(signed: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("JOBS_SECRET")
    with pytest.raises(ConfigurationError, match="JOBS_SECRET is not set"):
        event_key(signed)


def test_a_worker_can_demand_signed_payloads(
    payload: dict[str, Any], signed: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WOVE_CALLBACK_SECURITY", "env:JOBS_SECRET")
    assert event_key(signed) is not None
    unsigned = payload_for(URL, print)
    with pytest.raises(SignatureError, match="demands"):
        event_key(unsigned)
    with pytest.raises(SignatureError, match="demands"):
        event_key(signed | {"callback_security": "env:PATH"})


def test_delivery_is_tried_for_ten_minutes_unless_told_otherwise(
    payload: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert delivery_policy(payload).limit == 600.0
    monkeypatch.setenv("WOVE_CALLBACK_RETRY_SECONDS", "90")
    assert delivery_policy(payload).limit == 90.0
    assert delivery_policy(payload | {"callback_retry_seconds": 5}).limit == 5


@pytest.mark.parametrize("value", ["soon", "-1", "nan", "inf", "0"])
def test_a_limit_that_is_no_number_of_seconds_is_refused(
    payload: dict[str, Any], monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    monkeypatch.setenv("WOVE_CALLBACK_RETRY_SECONDS", value)
    with pytest.raises(ConfigurationError, match="WOVE_CALLBACK_RETRY_SECONDS"):
        delivery_policy(payload)
