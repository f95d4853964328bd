"""The ``executor_config`` of a network executor, checked before any task leaves: where the service is, and whether the
way there is safe enough.
"""

import re
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import SplitResult, quote, urlsplit

from wove.backend.addresses import url_host
from wove.errors import ConfigurationError, did_you_mean
from wove.security import NetworkExecutorSecurity
from wove.security.requests import Transport

T = TypeVar("T")

MIB = 1024 * 1024
MAX_RESPONSE_BYTES = 256 * MIB
OPEN_TIMEOUT = 10.0

_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+\Z")
_HEADER_VALUE = re.compile(r"[\x20-\x7e\t]*\Z")
_URL_CHARACTERS = "/%:@!$&'()*+,;=-._~"
# Wove itself sets these; a second value would break the framing or the negotiation of the answer.
_RESERVED = {"accept", "connection", "content-length", "content-type", "transfer-encoding", "upgrade"}


@dataclass(frozen=True, slots=True)
class NetworkSettings:
    """What one session needs to know to reach its service. Sessions with equal settings share their connections.

    Attributes:
        address: the service's address for messages, without query and credentials.
        host: to connect to; for gRPC the whole target.
        port: to connect to; for gRPC only told to users, and 0 where the target names none.
        target: what a signature covers: the path with its query, or the gRPC method.
        headers: extra headers or metadata.
        timeout: seconds that the answer to one command may take in all; None for no limit.
        watch_silence: whether a service that falls silent is given up; not where ``timeout`` was set to None.
        open_timeout: seconds that opening a connection may take.
        root_certificates: PEM bytes that TLS trusts instead of the system's.
        max_response_bytes: the largest message that is accepted.
        local: whether the service is on this machine.
    """

    transport: Transport
    address: str
    host: str
    port: int
    target: str = field(repr=False)
    tls: bool
    security: NetworkExecutorSecurity
    headers: tuple[tuple[str, str], ...] = field(repr=False)
    timeout: float | None
    watch_silence: bool
    open_timeout: float | None
    root_certificates: bytes | None
    max_response_bytes: int
    local: bool

    def tls_context(self) -> ssl.SSLContext | None:
        """Return what verifies the service's certificate, or None for a plain connection."""
        if not self.tls:
            return None
        if self.root_certificates is None:
            return ssl.create_default_context()
        return ssl.create_default_context(cadata=self.root_certificates.decode("ascii"))

    def signed_headers(self, body: bytes) -> list[tuple[str, str]]:
        """Return the extra headers and those that authenticate one request."""
        signed = self.security.headers_for(transport=self.transport, target=self.target, body=body)
        return [*self.headers, *signed.items()]


class ConfigReader:
    """Reads one ``executor_config``; every error names the environment, the setting and the next step."""

    def __init__(self, environment: str, config: Mapping[str, Any], known: tuple[str, ...]) -> None:
        self._where = f"Environment {environment!r}: executor_config"
        self._config = config
        for name in config:
            if name not in known:
                hint = did_you_mean(str(name), known)
                raise ConfigurationError(f"{self._where} has no setting {name!r}.{hint} Settings: {', '.join(known)}.")

    def refuse(self, reason: str) -> ConfigurationError:
        """Return the error for a value that cannot be used."""
        return ConfigurationError(f"{self._where}: {reason}")

    def get(self, name: str, default: T, accepts: Callable[[object], bool], expected: str) -> T:
        """Return a setting, or its default where it is absent."""
        if name not in self._config:
            return default
        value = self._config[name]
        if not accepts(value):
            raise self.refuse(f"{name} must be {expected}, not {type(value).__name__} {_shown(value)}.")
        return value  # type: ignore[no-any-return]

    def has(self, name: str) -> bool:
        """Whether a setting is given."""
        return name in self._config

    def flag(self, name: str, default: bool) -> bool:
        """Return a True or False."""
        return self.get(name, default, lambda value: isinstance(value, bool), "True or False")

    def seconds(self, name: str, default: float | None) -> float | None:
        """Return a positive number of seconds, or None for no limit."""
        return self.get(name, default, _is_seconds, "a positive, finite number of seconds, or None")

    def text(self, name: str, example: str) -> str:
        """Return a text that must be given."""
        if not self._config.get(name):
            raise self.refuse(f"{name!r} is missing. Example: {name!r}: {example!r}.")
        return self.get(name, "", lambda value: isinstance(value, str), "text")

    def size(self) -> int:
        """Return ``max_response_bytes``."""
        return self.get("max_response_bytes", MAX_RESPONSE_BYTES, _is_count, "a positive whole number of bytes")

    def security(self) -> NetworkExecutorSecurity:
        """Return how requests are authenticated."""
        try:
            return NetworkExecutorSecurity.from_config(self._config.get("security"))
        except ConfigurationError as error:
            raise self.refuse(str(error)) from None

    def pairs(self, name: str) -> tuple[tuple[str, str], ...]:
        """Return headers or metadata: a dict, or pairs, of text."""
        given = self._config.get(name) or ()
        try:
            pairs = [(key, value) for key, value in (given.items() if isinstance(given, Mapping) else given)]
        except (TypeError, ValueError):
            raise self.refuse(f"{name} must be a dict of names and values.") from None
        for key, value in pairs:
            if not isinstance(key, str) or not _HEADER_NAME.match(key) or key.lower() in _RESERVED:
                raise self.refuse(f"{name}: {key!r} is no name that can be set.")
            if not isinstance(value, str) or not _HEADER_VALUE.match(value):
                raise self.refuse(f"{name}: the value of {key!r} must be visible ASCII text.")
        return tuple(pairs)

    def certificates(self) -> bytes | None:
        """Return ``root_certificates`` as PEM: given as such, or as the path of a file."""
        given = self._config.get("root_certificates")
        if given is None:
            return None
        if isinstance(given, str) and "-----BEGIN" not in given:
            given = Path(given)
        try:
            pem = given.read_bytes() if isinstance(given, Path) else given.encode() if isinstance(given, str) else given
            ssl.create_default_context(cadata=pem.decode("ascii"))
        except OSError as error:
            raise self.refuse(f"root_certificates cannot be read: {error}.") from None
        except (AttributeError, ValueError):
            raise self.refuse("root_certificates must be PEM text or bytes, or the path of a PEM file.") from None
        return pem

    def url(self, schemes: tuple[str, str], example: str) -> SplitResult:
        """Return ``url``, which must have one of two schemes, the plain one first."""
        given = self.text("url", example)
        try:
            url = urlsplit(given)
            known = url.hostname and url.port != 0
        except ValueError as error:
            raise self.refuse(f"url is malformed: {error}.") from None
        if url.scheme.lower() not in schemes:
            raise self.refuse(f"url must begin with {schemes[0]}:// or {schemes[1]}://, not {url.scheme + '://'!r}.")
        if not known:
            raise self.refuse(f"url names no host. Example: {example!r}.")
        if url.username is not None or url.password is not None:
            raise self.refuse("url must hold no user or password. Use 'security' or 'headers'.")
        return url

    def check_safety(self, settings: NetworkSettings, *, insecure: bool) -> None:
        """Refuse a service on another machine without TLS or authentication, unless ``insecure`` is set."""
        if settings.security.type == "bearer" and "authorization" in {name.lower() for name, _ in settings.headers}:
            raise self.refuse("'security' of type 'bearer' and an 'Authorization' header exclude each other.")
        if settings.local or insecure:
            return
        for given, missing in ((settings.tls, "TLS"), (settings.security.enabled, "a 'security' setting")):
            if not given:
                raise self.refuse(
                    f"{settings.address} is not on this machine and needs {missing}, because whoever can read or "
                    "answer these requests can run code. Set insecure=True for development only."
                )


def url_settings(
    environment: str,
    config: Mapping[str, Any],
    *,
    transport: Transport,
    schemes: tuple[str, str],
    known: tuple[str, ...],
) -> NetworkSettings:
    """Read the settings of a service that is named by a URL.

    Raises:
        ConfigurationError: a setting is unknown, missing or wrong, or the way to the service is not safe.
    """
    reader = ConfigReader(environment, config, known)
    url = reader.url(schemes, f"{schemes[1]}://workers.internal/wove/tasks")
    tls = url.scheme.lower() == schemes[1]
    host = url.hostname or ""
    if not _is_address(host):
        host = host.encode("idna").decode("ascii")
    port = url.port or (443 if tls else 80)
    path = quote(url.path, safe=_URL_CHARACTERS) or "/"
    query = quote(url.query, safe=_URL_CHARACTERS + "?")
    settings = NetworkSettings(
        transport=transport,
        address=f"{url.scheme}://{url_host(host)}:{port}{path}",
        host=host,
        port=port,
        target=f"{path}?{query}" if query else path,
        tls=tls,
        security=reader.security(),
        headers=reader.pairs("headers"),
        timeout=reader.seconds("timeout", None),
        watch_silence=not reader.has("timeout"),
        open_timeout=reader.seconds("open_timeout", OPEN_TIMEOUT),
        root_certificates=reader.certificates(),
        max_response_bytes=reader.size(),
        local=is_local(host),
    )
    reader.check_safety(settings, insecure=reader.flag("insecure", False))
    return settings


def is_local(host: str) -> bool:
    """Whether a name or address means this machine."""
    name = host.strip("[]").rstrip(".").lower()
    if name == "localhost" or name.endswith(".localhost"):
        return True
    return _is_address(name) and ip_address(name).is_loopback


def _is_address(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


def _is_seconds(value: object) -> bool:
    if value is None:
        return True
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < float("inf")


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _shown(value: object) -> str:
    return repr(value) if isinstance(value, int | float | bool) else "value"
