"""The callback keys of an executor_config: what they mean, and what is said about wrong ones."""

from typing import Any

import pytest

from wove.backend.callback_settings import DEFAULT_MAX_BYTES, read_callback_settings
from wove.errors import ConfigurationError

SECRET = "a secret of at least 24 bytes"


def url_for(**config: Any) -> str | None:
    return read_callback_settings(config).public_url


def test_without_any_key_wove_listens_on_loopback_with_a_random_token() -> None:
    one, other = read_callback_settings({}), read_callback_settings({})
    assert (one.host, one.port, one.public_url, one.pinned) == ("127.0.0.1", 0, None, False)
    assert len(one.token) >= 43
    assert one.token != other.token
    assert one.max_bytes == DEFAULT_MAX_BYTES == 256 * 1024 * 1024
    assert (one.pickles, one.own_server, one.security, one.takes_unsigned) == (True, True, None, True)


def test_the_keys_of_the_backend_itself_do_not_matter() -> None:
    read_callback_settings({"url": "acme://queue", "queue": 3, "client": object()})


@pytest.mark.parametrize(
    ("given", "completed"),
    [
        ("http://web:9010", "http://web:9010/wove/events/tok"),
        ("http://web:9010/", "http://web:9010/wove/events/tok"),
        ("https://web/wove/events", "https://web/wove/events/tok"),
        ("https://web/wove/events/", "https://web/wove/events/tok"),
        ("https://web/wove/events/tok", "https://web/wove/events/tok"),
        ("https://web/wove/events/tok/", "https://web/wove/events/tok"),
        ("https://web/api/wove/events/tok", "https://web/api/wove/events/tok"),
        ("https://web/hooks/reports", "https://web/hooks/reports"),
        ("http://[fd00::1]:9010", "http://[fd00::1]:9010/wove/events/tok"),
    ],
)
def test_a_callback_url_is_completed_only_where_its_path_is_open(given: str, completed: str) -> None:
    assert url_for(callback_url=given, callback_token="tok") == completed


@pytest.mark.parametrize("url", ["http://web:9010/wove/events/tok", "https://web/api/wove/events/tok/"])
def test_the_token_is_taken_from_the_url(url: str) -> None:
    settings = read_callback_settings({"callback_url": url})
    assert (settings.token, settings.pinned) == ("tok", True)


def test_a_random_token_completes_the_url() -> None:
    settings = read_callback_settings({"callback_url": "http://web:9010"})
    assert settings.public_url == f"http://web:9010/wove/events/{settings.token}"


def test_a_url_and_a_token_that_disagree_are_refused_without_repeating_either() -> None:
    with pytest.raises(ConfigurationError, match="another token") as caught:
        read_callback_settings({"callback_url": "http://web/wove/events/one-secret", "callback_token": "other-secret"})
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    "url", ["web:9010", "ftp://web", "http://", "http://web/#part", "http://we b", "http://web:port", "http://[", ""]
)
def test_a_callback_url_that_no_worker_could_call_is_refused(url: str) -> None:
    with pytest.raises(ConfigurationError, match="callback_url"):
        read_callback_settings({"callback_url": url})


@pytest.mark.parametrize("host", ["0.0.0.0", "[::]"])
def test_a_wildcard_address_is_no_callback_url(host: str) -> None:
    with pytest.raises(ConfigurationError, match="no worker can call"):
        read_callback_settings({"callback_url": f"http://{host}:9010"})


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("callback_host", ""),
        ("callback_host", 7),
        ("callback_port", "9010"),
        ("callback_port", -1),
        ("callback_port", 65536),
        ("callback_port", True),
        ("callback_port", 9010.0),
        ("callback_token", "with/slash"),
        ("callback_token", "with space"),
        ("callback_token", ""),
        ("callback_token", "x" * 257),
        ("callback_token", 42),
        ("callback_max_bytes", 0),
        ("callback_max_bytes", "256 MiB"),
        ("callback_security", "sined"),
        ("callback_security", True),
        ("callback_server", "mine"),
        ("results", "yaml"),
    ],
)
def test_a_wrong_value_is_refused_by_the_name_of_its_key(key: str, value: Any) -> None:
    with pytest.raises(ConfigurationError, match=key):
        read_callback_settings({key: value})


def test_a_misspelled_key_suggests_the_right_one() -> None:
    with pytest.raises(ConfigurationError, match=r"'callback_prot'.*Did you mean 'callback_port'"):
        read_callback_settings({"callback_prot": 9010})


def test_a_short_token_is_accepted() -> None:
    assert read_callback_settings({"callback_token": "t"}).token == "t"


def test_brackets_around_an_ipv6_host_do_not_matter() -> None:
    assert read_callback_settings({"callback_host": "[::1]"}).host == "::1"


def test_the_applications_server_needs_a_callback_url() -> None:
    with pytest.raises(ConfigurationError, match="needs callback_url"):
        read_callback_settings({"callback_server": "application"})
    assert not read_callback_settings({"callback_server": "application", "callback_url": "http://web"}).own_server


@pytest.mark.parametrize("path", ["/hooks", "/hooks/", "/hooks/wove/events", "/hooks/wove/events/"])
def test_the_applications_callback_url_may_be_where_the_receiver_is_mounted(path: str) -> None:
    settings = read_callback_settings(
        {"callback_server": "application", "callback_url": f"https://app.internal{path}", "callback_token": "token"}
    )
    assert settings.public_url == "https://app.internal/hooks/wove/events/token"


def test_a_shared_secret_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WOVE_TEST_SECRET", SECRET)
    settings = read_callback_settings({"callback_security": "env:WOVE_TEST_SECRET"})
    assert settings.secret == SECRET.encode()
    assert not settings.takes_unsigned


@pytest.mark.parametrize("secret", [None, "short"])
def test_a_missing_or_short_shared_secret_is_refused(monkeypatch: pytest.MonkeyPatch, secret: str | None) -> None:
    monkeypatch.delenv("WOVE_TEST_SECRET", raising=False)
    if secret is not None:
        monkeypatch.setenv("WOVE_TEST_SECRET", secret)
    with pytest.raises(ConfigurationError, match="WOVE_TEST_SECRET"):
        read_callback_settings({"callback_security": "env:WOVE_TEST_SECRET"})


def test_nothing_secret_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WOVE_TEST_SECRET", SECRET)
    settings = read_callback_settings(
        {"callback_url": "http://web/wove/events/hidden-token", "callback_security": "env:WOVE_TEST_SECRET"}
    )
    assert "hidden-token" not in repr(settings)
    assert SECRET not in repr(settings)
