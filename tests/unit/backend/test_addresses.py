"""What to listen on, and what to call it."""

import logging
import socket
from collections.abc import Iterator
from typing import Any

import pytest

from wove.backend.addresses import bind, is_loopback, is_wildcard, reachable_address, resolve, url_host
from wove.errors import ConfigurationError

V4, V6 = socket.AF_INET, socket.AF_INET6


def _has_ipv6() -> bool:
    try:
        with socket.socket(V6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


needs_ipv6 = pytest.mark.skipif(not _has_ipv6(), reason="this machine has no IPv6")


@pytest.fixture
def taken() -> Iterator[int]:
    """A port that somebody else listens on."""
    with socket.socket() as stranger:
        stranger.bind(("127.0.0.1", 0))
        stranger.listen()
        yield stranger.getsockname()[1]


def test_a_bound_socket_sends_answers_without_delay() -> None:
    with bind(V4, "127.0.0.1", 0) as bound:
        # asyncio turns Nagle's algorithm off for connections of sockets that name their protocol.
        assert bound.proto == socket.IPPROTO_TCP


def test_a_port_that_is_taken_is_named(taken: int) -> None:
    with pytest.raises(ConfigurationError, match=f"callback_port {taken} on 127.0.0.1 is in use"):
        bind(V4, "127.0.0.1", taken)
    with pytest.raises(ConfigurationError, match=str(taken)):
        bind(V4, "0.0.0.0", taken)


def test_an_address_of_another_machine_is_named() -> None:
    with pytest.raises(ConfigurationError, match=r"192\.0\.2\.1 is not an address of this machine"):
        bind(V4, "192.0.2.1", 0)


def test_a_host_name_that_nobody_knows_is_named() -> None:
    with pytest.raises(ConfigurationError, match=r"'no-such-host\.invalid' is not an address"):
        resolve("no-such-host.invalid", 0)


@pytest.mark.parametrize(
    ("host", "found"),
    [("127.0.0.1", (V4, "127.0.0.1")), ("0.0.0.0", (V4, "0.0.0.0")), ("localhost", (V4, "127.0.0.1"))],
)
def test_a_name_or_address_becomes_a_numeric_address(host: str, found: tuple[int, str]) -> None:
    assert resolve(host, 0) == found


@needs_ipv6
def test_all_addresses_of_ipv6_include_those_of_ipv4() -> None:
    with bind(V6, "::", 0) as bound, socket.socket() as client:
        client.settimeout(5)
        client.connect(("127.0.0.1", bound.getsockname()[1]))


@pytest.mark.parametrize(
    ("family", "routed"), [(V4, "10.1.2.3"), (V4, "203.0.113.7"), (V6, "fd00::7")], ids=["private", "public", "ipv6"]
)
def test_the_address_of_the_default_route_is_the_reachable_one(
    monkeypatch: pytest.MonkeyPatch, family: socket.AddressFamily, routed: str
) -> None:
    monkeypatch.setattr(socket, "socket", _routes({family: routed}))
    assert reachable_address(family) == routed


def test_all_addresses_of_ipv6_are_reached_over_ipv4_where_only_that_has_a_route(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(socket, "socket", _routes({V4: "10.1.2.3"}))
    monkeypatch.setattr(socket, "getaddrinfo", _names())
    assert reachable_address(V6) == "10.1.2.3"


def test_without_a_route_the_hosts_name_helps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "socket", _routes({}))
    monkeypatch.setattr(socket, "getaddrinfo", _names("127.0.1.1", "169.254.3.4", "10.9.9.9"))
    assert reachable_address(V4) == "10.9.9.9"


@pytest.mark.parametrize(("family", "loopback"), [(V4, "127.0.0.1"), (V6, "::1")])
def test_without_any_address_loopback_it_is_with_a_warning(
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    family: socket.AddressFamily,
    loopback: str,
) -> None:
    monkeypatch.setattr(socket, "socket", _routes({}))
    monkeypatch.setattr(socket, "getaddrinfo", _names("127.0.1.1", "::1", "fe80::1%eth0"))
    with caplog.at_level(logging.WARNING, "wove"):
        assert reachable_address(family) == loopback
    assert "Set callback_url" in caplog.text


@pytest.mark.parametrize(("address", "wildcard"), [("0.0.0.0", True), ("::", True), ("127.0.0.1", False)])
def test_a_wildcard_is_known(address: str, wildcard: bool) -> None:
    assert is_wildcard(address) is wildcard


@pytest.mark.parametrize(
    ("host", "loopback"), [("127.3.2.1", True), ("::1", True), ("localhost", True), ("10.0.0.1", False), ("web", False)]
)
def test_loopback_is_known(host: str, loopback: bool) -> None:
    assert is_loopback(host) is loopback


def test_an_ipv6_address_stands_in_brackets_in_a_url() -> None:
    assert (url_host("::1"), url_host("10.0.0.1"), url_host("web")) == ("[::1]", "10.0.0.1", "web")


def _routes(routes: dict[socket.AddressFamily, str]) -> Any:
    class Probe:
        def __init__(self, family: socket.AddressFamily, kind: int) -> None:
            self.family = family

        def __enter__(self) -> "Probe":
            return self

        def __exit__(self, *_: object) -> None:
            pass

        def connect(self, _: object) -> None:
            if self.family not in routes:
                raise OSError("Network is unreachable")

        def getsockname(self) -> tuple[str, int]:
            return routes[self.family], 40000

    return Probe


def _names(*addresses: str) -> Any:
    def getaddrinfo(host: str, port: object, family: int, kind: int) -> list[tuple[Any, ...]]:
        wanted = [address for address in addresses if (":" in address) == (family == V6)]
        if not wanted:
            raise socket.gaierror("unknown")
        return [(family, kind, 6, "", (address, 0)) for address in wanted]

    return getaddrinfo
