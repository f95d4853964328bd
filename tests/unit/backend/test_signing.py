"""What a signature proves, and which forged, damaged or stale ones are refused."""

import hashlib
import hmac
import json
import re
from base64 import b64encode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wove.backend.signing import (
    CLAIM_REQUEST,
    EMPTY_DIGEST,
    EVENT_REQUEST,
    body_digest,
    derive_key,
    read_signature,
    shared_secret,
    sign_event,
    sign_payload,
    verify_event,
    verify_payload,
)
from wove.errors import ConfigurationError, SignatureError

SECRET = b"a secret of at least 24 bytes"
RUN = "report-0123456789abcdef"
NOW = 1_700_000_000
BODY = b'{"type": "heartbeat"}'
KEY = derive_key(SECRET, RUN)


def _headers(**changed: object) -> dict[str, str]:
    given: dict[str, object] = {
        "worker_id": "w1",
        "sequence": 3,
        "timestamp": NOW,
        "digest": body_digest(BODY),
        "length": len(BODY),
    }
    given.update(changed)
    return sign_event(KEY, RUN, **given)  # type: ignore[arg-type]


def _verify(
    headers: dict[str, str],
    *,
    key: str = KEY,
    now: float = NOW,
    length: int = len(BODY),
    request: str = EVENT_REQUEST,
) -> None:
    signature = read_signature(headers)
    assert signature is not None
    verify_event(signature, key, now=now, length=length, request=request)


def test_the_headers_are_what_the_protocol_documents() -> None:
    key = hmac.new(SECRET, b"wove-run:" + RUN.encode(), hashlib.sha256).hexdigest()
    digest = hashlib.sha256(BODY).hexdigest()
    signed = f"{RUN}.w1.3\n{NOW}\nPOST /wove/events\n{digest}\n{len(BODY)}".encode()
    assert _headers() == {
        "webhook-id": f"{RUN}.w1.3",
        "webhook-timestamp": str(NOW),
        "webhook-digest": f"sha-256={digest}",
        "webhook-signature": "w1," + b64encode(hmac.new(key.encode(), signed, hashlib.sha256).digest()).decode(),
    }


def test_a_signed_event_is_read_and_verified() -> None:
    signature = read_signature(_headers())
    assert signature is not None
    assert (signature.run_id, signature.worker_id, signature.sequence) == (RUN, "w1", 3)
    assert (signature.timestamp, signature.digest) == (NOW, body_digest(BODY))
    verify_event(signature, KEY, length=len(BODY), now=NOW + 299)


def test_the_request_for_a_claimed_body_signs_an_empty_body() -> None:
    headers = sign_event(KEY, RUN, worker_id="w1", sequence=1, timestamp=NOW, request=CLAIM_REQUEST)
    assert headers["webhook-digest"] == f"sha-256={EMPTY_DIGEST}"
    _verify(headers, length=0, request=CLAIM_REQUEST)


def test_a_signature_for_one_kind_of_request_is_refused_for_the_other() -> None:
    headers = sign_event(KEY, RUN, worker_id="w1", sequence=1, timestamp=NOW, request=CLAIM_REQUEST)
    with pytest.raises(SignatureError):
        _verify(headers, length=0, request=EVENT_REQUEST)


def test_another_run_s_key_is_refused() -> None:
    with pytest.raises(SignatureError, match="does not match"):
        _verify(_headers(), key=derive_key(SECRET, "other-run"))


@pytest.mark.parametrize(
    ("header", "value"),
    [
        ("webhook-id", f"{RUN}.w1.4"),
        ("webhook-id", f"{RUN}.w2.3"),
        ("webhook-id", "other-run.w1.3"),
        ("webhook-timestamp", str(NOW + 1)),
        ("webhook-digest", "sha-256=" + "0" * 64),
    ],
)
def test_no_signed_part_can_be_changed(header: str, value: str) -> None:
    with pytest.raises(SignatureError, match="does not match"):
        _verify({**_headers(), header: value})


def test_a_body_of_another_length_is_refused() -> None:
    with pytest.raises(SignatureError, match="does not match"):
        _verify(_headers(), length=len(BODY) + 1)


@pytest.mark.parametrize("seconds", [-301, 301])
def test_a_stale_or_future_signature_is_refused_with_the_distance_of_the_clocks(seconds: int) -> None:
    with pytest.raises(SignatureError, match=re.escape(f"{seconds:+d} s ago")):
        _verify(_headers(), now=NOW + seconds)


def test_an_unsigned_request_is_told_from_a_malformed_one() -> None:
    assert read_signature({"content-length": "3"}) is None


@pytest.mark.parametrize("missing", ["webhook-id", "webhook-timestamp", "webhook-digest", "webhook-signature"])
def test_a_missing_header_is_named(missing: str) -> None:
    headers = _headers()
    del headers[missing]
    with pytest.raises(SignatureError, match=missing):
        read_signature(headers)


@pytest.mark.parametrize(
    ("header", "value"),
    [
        ("webhook-id", "no-parts"),
        ("webhook-id", "run..3"),
        ("webhook-id", ".w1.3"),
        ("webhook-id", f"{RUN}.w1.-3"),
        ("webhook-id", f"{RUN}.w1." + "9" * 500),
        ("webhook-timestamp", "1e9"),
        ("webhook-timestamp", "-5"),
        ("webhook-timestamp", "9" * 16),
        ("webhook-digest", "md5=abc"),
        ("webhook-digest", "sha-256=" + "g" * 64),
        ("webhook-signature", "v1,aGFsbG8="),
        ("webhook-signature", "w1,***"),
        ("webhook-signature", "w1,ü"),
        ("webhook-signature", "w1," + "A" * 2000),
        ("webhook-signature", ""),
    ],
)
def test_malformed_headers_are_a_permission_error(header: str, value: str) -> None:
    with pytest.raises(PermissionError, match=header):
        read_signature({**_headers(), header: value})


@given(st.dictionaries(st.sampled_from(sorted(_headers())), st.text(max_size=40), max_size=4))
def test_no_header_text_gets_past_the_parser_with_another_error(headers: dict[str, str]) -> None:
    try:
        signature = read_signature(headers)
    except SignatureError:
        return
    assert signature is None or (signature.sequence >= 0 and signature.signatures)


def test_one_matching_signature_of_a_list_suffices() -> None:
    headers = _headers()
    headers["webhook-signature"] = f"v1a,xyz w1,{b64encode(b'another').decode()} {headers['webhook-signature']}"
    _verify(headers)


def test_a_run_id_may_hold_dots() -> None:
    signature = read_signature(sign_event("key", "a.b.c", worker_id="w", sequence=1, timestamp=NOW))
    assert signature is not None
    assert signature.run_id == "a.b.c"


def test_a_payload_s_signature_outlives_another_order_of_keys() -> None:
    payload = {"run_id": RUN, "delivery": {"b": 1, "a": 30.0}, "task_name": "größe"}
    payload["signature"] = sign_payload(payload, SECRET)
    verify_payload(json.loads(json.dumps(dict(reversed(payload.items())), ensure_ascii=False)), SECRET)


@pytest.mark.parametrize("change", [{"callable_pickle": "evil"}, {"more": 1}, {"signature": "0" * 64}])
def test_a_changed_payload_is_refused(change: dict[str, object]) -> None:
    payload: dict[str, object] = {"run_id": RUN, "callable_pickle": "good"}
    payload["signature"] = sign_payload(payload, SECRET)
    with pytest.raises(SignatureError, match=RUN):
        verify_payload({**payload, **change}, SECRET)


@pytest.mark.parametrize("signature", [None, 5, "ü"])
def test_an_unsigned_payload_is_refused(signature: object) -> None:
    with pytest.raises(SignatureError, match="not signed"):
        verify_payload({"run_id": RUN, "signature": signature}, SECRET)


def test_the_secret_is_read_from_the_variable_that_the_configuration_names() -> None:
    assert shared_secret("env:WOVE_SECRET", {"WOVE_SECRET": SECRET.decode()}) == SECRET


def test_a_missing_secret_names_its_variable() -> None:
    with pytest.raises(ConfigurationError, match="WOVE_SECRET is not set"):
        shared_secret("env:WOVE_SECRET", {})


def test_a_short_secret_is_refused_without_being_shown() -> None:
    with pytest.raises(ConfigurationError, match="only 6 bytes") as raised:
        shared_secret("env:WOVE_SECRET", {"WOVE_SECRET": "tiny-s"})
    assert "tiny-s" not in str(raised.value)


@pytest.mark.parametrize("security", ["env:", "WOVE_SECRET", ""])
def test_a_malformed_setting_says_what_is_accepted(security: str) -> None:
    with pytest.raises(ConfigurationError, match="env:NAME_OF_A_VARIABLE"):
        shared_secret(security, {})
