"""Signing and verifying the requests of network executors."""

import copy
import hashlib
import hmac
import pickle
import threading
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wove import NetworkExecutorSecurity
from wove.errors import ConfigurationError
from wove.security import secret_from_environment
from wove.security.nonces import NonceMemory

SECRET = "a secret of more than sixteen bytes"
OTHER = "another secret of enough length"
REQUEST: dict[str, Any] = {"transport": "http", "target": "/wove/tasks?queue=a", "body": b'{"type": "run_task"}'}


class Clock:
    """Unix seconds that a test sets."""

    def __init__(self, now: float = 1_767_225_600.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


def signed(secret: str = SECRET, **more: Any) -> NetworkExecutorSecurity:
    return NetworkExecutorSecurity.from_config({"type": "signed", "secret": secret, **more})


def at(clock: Clock, **more: Any) -> NetworkExecutorSecurity:
    return NetworkExecutorSecurity("signed", keys={"default": SECRET.encode()}, clock=clock, **more)


def bearer(token: str = "a-token-of-enough-length", **more: Any) -> NetworkExecutorSecurity:
    return NetworkExecutorSecurity.from_config({"type": "bearer", "token": token, **more})


def test_a_signature_is_the_documented_hmac_of_the_documented_lines() -> None:
    headers = at(Clock(1_700_000_000.9)).headers_for(transport="http", target="/tasks?a=1", body=b"body")
    lines = [
        "wove-v1",
        "http",
        "/tasks?a=1",
        "1700000000",
        headers["X-Wove-Nonce"],
        hashlib.sha256(b"body").hexdigest(),
    ]
    expected = hmac.new(SECRET.encode(), "\n".join(lines).encode(), hashlib.sha256).hexdigest()
    assert headers["X-Wove-Signature"] == f"v1={expected}"
    assert headers["X-Wove-Timestamp"] == "1700000000"
    assert headers["X-Wove-Key"] == "default"
    assert list(headers) == ["X-Wove-Key", "X-Wove-Timestamp", "X-Wove-Nonce", "X-Wove-Signature"]


@pytest.mark.parametrize("transport", ["http", "grpc", "websocket"])
def test_the_other_side_accepts_what_was_signed(transport: Literal["http", "grpc", "websocket"]) -> None:
    headers = signed().headers_for(transport=transport, target="/t", body=b"x")
    signed().verify_headers(headers=headers, transport=transport, target="/t", body=b"x")


def test_metadata_has_lower_case_names_and_verifies() -> None:
    pairs = signed().metadata_for(transport="grpc", target="/Service/Send", body=b"x")
    assert all(name == name.lower() for name, _ in pairs)
    signed().verify_metadata(metadata=pairs, transport="grpc", target="/Service/Send", body=b"x")


def test_pairs_of_bytes_verify_as_asgi_servers_give_them() -> None:
    headers = [(name.encode(), value.encode()) for name, value in signed().headers_for(**REQUEST).items()]
    signed().verify_headers(headers=headers, **REQUEST)


def test_each_request_has_a_nonce_of_its_own() -> None:
    security = signed()
    assert len({security.headers_for(**REQUEST)["X-Wove-Nonce"] for _ in range(100)}) == 100


@pytest.mark.parametrize(
    "change",
    [
        {"transport": "websocket"},
        {"target": "/wove/tasks?queue=b"},
        {"target": "/wove/tasks"},
        {"body": b"{}"},
        {"body": b""},
    ],
)
def test_a_changed_request_is_refused(change: dict[str, Any]) -> None:
    headers = signed().headers_for(**REQUEST)
    with pytest.raises(PermissionError, match="signature does not match"):
        signed().verify_headers(headers=headers, **REQUEST | change)


def test_another_secret_is_refused() -> None:
    with pytest.raises(PermissionError, match="signature does not match"):
        signed(OTHER).verify_headers(headers=signed().headers_for(**REQUEST), **REQUEST)


def test_an_unknown_key_is_refused() -> None:
    with pytest.raises(PermissionError, match="key is unknown"):
        signed().verify_headers(headers=signed(key="new").headers_for(**REQUEST), **REQUEST)


def test_a_replaced_key_is_accepted_while_it_is_listed() -> None:
    service = signed(OTHER, key="new", accept=[{"key": "default", "secret": SECRET}])
    service.verify_headers(headers=signed().headers_for(**REQUEST), **REQUEST)
    service.verify_headers(headers=signed(OTHER, key="new").headers_for(**REQUEST), **REQUEST)
    assert service.headers_for(**REQUEST)["X-Wove-Key"] == "new"


@pytest.mark.parametrize("skew", [-301, 301])
def test_a_timestamp_outside_the_skew_is_refused(skew: float) -> None:
    clock = Clock()
    headers = at(clock).headers_for(**REQUEST)
    with pytest.raises(PermissionError, match="timestamp"):
        at(Clock(clock.now + skew)).verify_headers(headers=headers, **REQUEST)


@pytest.mark.parametrize("skew", [-299, 299])
def test_a_timestamp_within_the_skew_is_accepted(skew: float) -> None:
    clock = Clock()
    at(Clock(clock.now + skew)).verify_headers(headers=at(clock).headers_for(**REQUEST), **REQUEST)


def test_a_repeated_request_is_refused() -> None:
    service, headers = signed(), signed().headers_for(**REQUEST)
    service.verify_headers(headers=headers, **REQUEST)
    with pytest.raises(PermissionError, match="nonce"):
        service.verify_headers(headers=headers, **REQUEST)


def test_a_repeated_request_is_accepted_where_nonces_are_not_remembered() -> None:
    service, headers = signed(remember_nonces=False), signed().headers_for(**REQUEST)
    for _ in range(2):
        service.verify_headers(headers=headers, **REQUEST)


def test_a_refused_request_does_not_use_up_its_nonce() -> None:
    service, headers = signed(), signed().headers_for(**REQUEST)
    with pytest.raises(PermissionError, match="signature"):
        service.verify_headers(headers=headers, **REQUEST | {"body": b"forged"})
    service.verify_headers(headers=headers, **REQUEST)


def test_of_one_request_sent_from_many_threads_one_is_accepted() -> None:
    service, headers = signed(), signed().headers_for(**REQUEST)
    accepted: list[bool] = []
    ready = threading.Barrier(8)

    def verify() -> None:
        ready.wait()
        try:
            service.verify_headers(headers=headers, **REQUEST)
            accepted.append(True)
        except PermissionError:
            accepted.append(False)

    threads = [threading.Thread(target=verify) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(accepted) == [False] * 7 + [True]


def test_the_memory_of_nonces_is_bounded_and_still_refuses_every_replay() -> None:
    memory = NonceMemory(300, limit=1000)
    used = [(f"nonce-{index}", index // 50) for index in range(5000)]
    assert all(memory.use(nonce, second, now=second) for nonce, second in used)
    assert len(memory) <= 1000
    assert not any(memory.use(nonce, second, now=100) for nonce, second in used)


def test_nonces_are_forgotten_when_their_timestamps_have_expired() -> None:
    memory = NonceMemory(10, limit=1000)
    for second in range(500):
        assert memory.use("nonce", second, now=second)
    assert len(memory) <= 22


MALFORMED: dict[str, list[Any]] = {
    "X-Wove-Key": ["", " ", "a b", "x" * 129, "ключ", "default\n"],
    "X-Wove-Timestamp": ["", "now", "-1", "1.5", "NaN", "1e9", "٣", "9" * 13, "0x10"],
    "X-Wove-Nonce": ["", "short", "n" * 129, "with space and more", "\x00" * 16],
    "X-Wove-Signature": ["", "v1=", "v2=" + "0" * 64, "0" * 64, "v1=" + "g" * 64, "v1=" + "0" * 65, "v1=é" + "0" * 63],
}


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in MALFORMED.items() for value in values])
def test_a_malformed_header_is_refused(name: str, value: str) -> None:
    headers = signed().headers_for(**REQUEST) | {name: value}
    with pytest.raises(PermissionError, match=name):
        signed().verify_headers(headers=headers, **REQUEST)


@pytest.mark.parametrize("name", MALFORMED)
def test_a_missing_header_is_refused(name: str) -> None:
    headers = signed().headers_for(**REQUEST)
    del headers[name]
    with pytest.raises(PermissionError, match=f"{name} is missing"):
        signed().verify_headers(headers=headers, **REQUEST)


@pytest.mark.parametrize("name", MALFORMED)
def test_a_doubled_header_is_refused(name: str) -> None:
    headers = signed().headers_for(**REQUEST)
    pairs = [*headers.items(), (name.lower(), headers[name])]
    with pytest.raises(PermissionError, match="doubled"):
        signed().verify_headers(headers=pairs, **REQUEST)


@pytest.mark.parametrize("headers", [None, 5, ["x-wove-key"], [("a", "b", "c")], {"x-wove-key": 5}, {3: "x"}, {}])
def test_headers_of_another_shape_are_refused(headers: Any) -> None:
    with pytest.raises(PermissionError):
        signed().verify_headers(headers=headers, **REQUEST)


@given(st.dictionaries(st.sampled_from([*MALFORMED, "Authorization"]), st.text()))
def test_no_header_whatsoever_raises_anything_else(headers: dict[str, str]) -> None:
    for security in (signed(), bearer()):
        with pytest.raises(PermissionError):
            security.verify_headers(headers=headers, **REQUEST)


def test_a_bearer_token_travels_in_the_authorization_header() -> None:
    headers = bearer().headers_for(**REQUEST)
    assert headers == {"Authorization": "Bearer a-token-of-enough-length"}
    bearer().verify_headers(headers={"authorization": "bearer a-token-of-enough-length"}, **REQUEST)


@pytest.mark.parametrize(
    "value", ["", "Bearer", "Bearer another-token-of-length", "Basic a-token-of-enough-length", "Bearer é"]
)
def test_a_wrong_bearer_token_is_refused(value: str) -> None:
    with pytest.raises(PermissionError, match="bearer token"):
        bearer().verify_headers(headers={"Authorization": value}, **REQUEST)


def test_a_replaced_token_is_accepted_while_it_is_listed() -> None:
    service = bearer("the-new-token-of-enough-length", accept=[{"token": "a-token-of-enough-length"}])
    service.verify_headers(headers=bearer().headers_for(**REQUEST), **REQUEST)


@pytest.mark.parametrize("config", [None, "none", {"type": "none"}])
def test_no_security_sends_and_demands_nothing(config: Any) -> None:
    security = NetworkExecutorSecurity.from_config(config)
    assert not security.enabled
    assert security.headers_for(**REQUEST) == {}
    assert security.metadata_for(**REQUEST) == ()
    security.verify_headers(headers={}, **REQUEST)


@pytest.fixture
def variable(monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("WOVE_TEST_SECRET", SECRET)
    return "WOVE_TEST_SECRET"


@pytest.mark.parametrize("form", ["env:{}", {"type": "signed", "secret_env": "{}"}])
def test_a_secret_can_come_from_the_environment(variable: str, form: Any) -> None:
    config = form.format(variable) if isinstance(form, str) else form | {"secret_env": variable}
    NetworkExecutorSecurity.from_config(config).verify_headers(headers=signed().headers_for(**REQUEST), **REQUEST)


def test_a_token_can_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WOVE_TEST_TOKEN", "a-token-of-enough-length")
    security = NetworkExecutorSecurity.from_config({"type": "bearer", "token_env": "WOVE_TEST_TOKEN"})
    assert security.headers_for(**REQUEST) == bearer().headers_for(**REQUEST)


def test_an_unset_variable_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WOVE_UNSET", raising=False)
    with pytest.raises(ConfigurationError, match="'WOVE_UNSET' is not set"):
        NetworkExecutorSecurity.from_config("env:WOVE_UNSET")


@pytest.mark.parametrize("secret", ["", "   ", "short", "fifteen-bytes-.", " " * 32])
def test_an_empty_or_short_secret_is_refused_wherever_it_comes_from(
    secret: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WOVE_TEST_SECRET", secret)
    for config in (
        "env:WOVE_TEST_SECRET",
        {"type": "signed", "secret": secret},
        {"type": "signed", "secret_env": "WOVE_TEST_SECRET"},
        {"type": "bearer", "token": secret},
        {"type": "signed", "secret": SECRET, "accept": [{"key": "old", "secret": secret}]},
    ):
        with pytest.raises(ConfigurationError, match=r"is empty|has \d+ bytes"):
            NetworkExecutorSecurity.from_config(config)
    with pytest.raises(ConfigurationError, match="callback_security"):
        secret_from_environment("WOVE_TEST_SECRET", where="callback_security")


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ("hunter2-hunter2-hunter2", "env:NAME"),
        (5, "env:NAME"),
        ({}, "type must be"),
        ({"type": "sined", "secret": SECRET}, "type must be"),
        ({"type": ["signed"]}, "type must be"),
        ({"type": "signed"}, "either 'secret' or 'secret_env'"),
        ({"type": "signed", "secret": SECRET, "secret_env": "X"}, "either 'secret' or 'secret_env'"),
        ({"type": "bearer"}, "either 'token' or 'token_env'"),
        ({"type": "signed", "secret": SECRET, "clock_skew_second": 3}, "Did you mean 'clock_skew_seconds'"),
        ({"type": "bearer", "token": SECRET, "secret": SECRET}, "no setting named 'secret'"),
        ({"type": "none", "secret": SECRET}, "no setting named 'secret'"),
        ({"type": "signed", "secret": 12345678901234567890}, "secret must be text"),
        ({"type": "signed", "secret_env": 5}, "name of an environment variable"),
        ({"type": "signed", "secret": SECRET, "key": 5}, "key must be text"),
        ({"type": "signed", "secret": SECRET, "key": "a b"}, "A-Z"),
        ({"type": "signed", "secret": SECRET, "remember_nonces": 1}, "remember_nonces"),
        ({"type": "signed", "secret": SECRET, "accept": {"key": "x"}}, "list of dicts"),
        ({"type": "signed", "secret": SECRET, "accept": ["x"]}, r"accept\[0\] must be a dict"),
        ({"type": "signed", "secret": SECRET, "accept": [{"secret": OTHER}]}, "given twice"),
        ({"type": "bearer", "token": "a token that has spaces"}, "without spaces"),
    ],
)
def test_a_wrong_configuration_is_refused_without_showing_a_secret(config: Any, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message) as caught:
        NetworkExecutorSecurity.from_config(config)
    for secret in (SECRET, OTHER, "hunter2", "a token that"):
        assert secret not in str(caught.value)


@pytest.mark.parametrize("skew", [0, -1, float("nan"), float("inf"), "300", True, None])
def test_a_clock_skew_that_is_no_positive_number_is_refused(skew: Any) -> None:
    with pytest.raises(ConfigurationError, match="clock_skew_seconds"):
        signed(clock_skew_seconds=skew)


def test_an_unknown_transport_is_an_error_of_the_caller() -> None:
    with pytest.raises(ValueError, match="transport"):
        signed().headers_for(transport="smtp", target="/")  # type: ignore[arg-type]


def test_an_instance_is_a_configuration_too() -> None:
    security = signed()
    assert NetworkExecutorSecurity.from_config(security) is security


@pytest.mark.parametrize("security", [signed(), bearer(SECRET.replace(" ", "-"))])
def test_no_secret_is_shown(security: NetworkExecutorSecurity) -> None:
    assert SECRET not in repr(security)
    assert SECRET.replace(" ", "-") not in repr(security)


def test_a_copied_configuration_goes_on_remembering_the_same_nonces() -> None:
    config = {"security": signed()}
    headers = signed().headers_for(**REQUEST)
    config["security"].verify_headers(headers=headers, **REQUEST)
    with pytest.raises(PermissionError, match="nonce"):
        copy.deepcopy(config)["security"].verify_headers(headers=headers, **REQUEST)


def test_secrets_do_not_travel_in_pickles() -> None:
    with pytest.raises(TypeError, match="secrets"):
        pickle.dumps(signed())


def test_two_of_the_same_configuration_are_equal_so_that_they_can_share_a_connection() -> None:
    assert signed() == signed()
    assert hash(signed()) == hash(signed())
    assert signed() != signed(OTHER)
    assert signed() != bearer(SECRET.replace(" ", "-"))
