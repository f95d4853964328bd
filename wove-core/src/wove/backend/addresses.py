"""Network addresses: what to listen on, and what to call it so that workers on other hosts find it."""

import errno
import logging
import os
import socket
from ipaddress import IPv4Address, IPv6Address, ip_address

from wove.errors import ConfigurationError

# Documentation addresses (RFC 5737, RFC 3849): connecting a UDP socket to one sends nothing, it only picks a route.
_ROUTED = {socket.AF_INET: ("192.0.2.1", 9), socket.AF_INET6: ("2001:db8::1", 9)}

logger = logging.getLogger("wove")


def resolve(host: str, port: int) -> tuple[socket.AddressFamily, str]:
    """Return the family and the numeric address to listen on for a host name or address; IPv4 where it has both.

    Blocks while a name is looked up.

    Raises:
        ConfigurationError: the name is unknown.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError) as error:
        raise ConfigurationError(f"callback_host {host!r} is not an address of this machine ({error}).") from error
    family, *_, address = min(found, key=lambda entry: entry[0] != socket.AF_INET)
    return family, str(address[0])


def bind(family: socket.AddressFamily, address: str, port: int) -> socket.socket:
    """Return a socket bound to an address.

    Raises:
        ConfigurationError: the port is taken or may not be used, or the address is not one of this machine.
    """
    # Without the explicit protocol asyncio leaves Nagle's algorithm on, which delays every answer by 40 ms.
    bound = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        if os.name == "posix":
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0 if is_wildcard(address) else 1)
        bound.bind((address, port))
        # Linux lets two sockets bind the same port and refuses the second one's listen().
        bound.listen(1)
    except OSError as error:
        bound.close()
        raise ConfigurationError(_why_not_bound(error, address, port)) from error
    bound.setblocking(False)
    return bound


def is_wildcard(address: str) -> bool:
    """Whether a numeric address stands for every address of the machine."""
    return _ip(address).is_unspecified


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches a host, as far as its name or address tells."""
    try:
        return _ip(host).is_loopback
    except ValueError:
        return host == "localhost"


def reachable_address(family: socket.AddressFamily) -> str:
    """Return the address under which other hosts most likely reach this one. Blocks while names are looked up.

    That is the address of the interface with the default route; else one that belongs to the host's name; else, with a
    warning, the loopback address.
    """
    families = [family, socket.AF_INET] if family == socket.AF_INET6 else [family]
    for candidate in families:
        for find in (_routed_address, _named_address):
            address = find(candidate)
            if address is not None:
                return address
    loopback = "127.0.0.1" if family == socket.AF_INET else "::1"
    logger.warning(
        "This machine has no address but loopback, so only workers on it can report back to %s. "
        "Set callback_url in the environment's executor_config to the URL that workers can call.",
        loopback,
    )
    return loopback


def url_host(host: str) -> str:
    """Return a host as it stands in a URL: IPv6 addresses in brackets."""
    return f"[{host}]" if ":" in host else host


def _routed_address(family: socket.AddressFamily) -> str | None:
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect(_ROUTED[family])
            return _usable(probe.getsockname()[0])
    except OSError:
        return None


def _named_address(family: socket.AddressFamily) -> str | None:
    try:
        found = socket.getaddrinfo(socket.gethostname(), None, family, socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return None
    return next((str(entry[4][0]) for entry in found if _usable(str(entry[4][0]))), None)


def _usable(address: str) -> str | None:
    ip = _ip(address)
    return None if ip.is_loopback or ip.is_unspecified or ip.is_link_local else address


def _ip(address: str) -> IPv4Address | IPv6Address:
    return ip_address(address.partition("%")[0])


def _why_not_bound(error: OSError, address: str, port: int) -> str:
    if error.errno == errno.EADDRINUSE:
        return (
            f"callback_port {port} on {address} is in use by another process or server. "
            "Choose another callback_port, or 0 for any free one."
        )
    if error.errno == errno.EACCES:
        return f"callback_port {port} may not be used by this user. Choose one above 1023, or 0 for any free one."
    if error.errno == errno.EADDRNOTAVAIL:
        return f"callback_host {address} is not an address of this machine. Bind to '0.0.0.0' to listen on all of them."
    return f"Cannot listen on callback_host {address}, callback_port {port}: {error}."
