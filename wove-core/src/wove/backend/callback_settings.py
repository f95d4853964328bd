"""Where workers post their events: the ``callback_*`` keys of an environment's ``executor_config``, checked."""

import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import Any
from urllib.parse import SplitResult, urlsplit

from wove.backend.signing import shared_secret
from wove.errors import ConfigurationError, did_you_mean

EVENTS_PATH = "/wove/events"
DEFAULT_MAX_BYTES = 256 * 1024 * 1024

CALLBACK_KEYS = (
    "callback_host",
    "callback_port",
    "callback_url",
    "callback_token",
    "callback_security",
    "callback_max_bytes",
    "callback_server",
)

# The unreserved characters of RFC 3986, section 2.3: the same inside a URL and outside of it.
_TOKEN = re.compile(r"[A-Za-z0-9._~-]{1,256}")
_EVENTS_PATH = re.compile(rf"(?P<base>.*{EVENTS_PATH})(?:/(?P<token>[^/]*))?/?")


@dataclass(frozen=True, slots=True)
class CallbackSettings:
    """The checked callback keys of one environment.

    Attributes:
        host: the address or host name to listen on.
        port: the port to listen on; 0 for any free one.
        token: the last part of the URL's path; it tells workers from strangers.
        pinned: whether the configuration gave the token.
        public_url: the complete URL for workers where the configuration gives one.
        security: None, ``"signed"`` or ``"env:VAR"``.
        secret: what the keys of the runs are derived from.
        pickles: False refuses every pickle from workers (``results: "json"``).
        max_bytes: the largest event.
        own_server: False where the application mounts `callback_app` in a server of its own.
    """

    host: str
    port: int
    token: str = field(repr=False)
    pinned: bool
    public_url: str | None = field(repr=False)
    security: str | None
    secret: bytes = field(repr=False)
    pickles: bool
    max_bytes: int
    own_server: bool

    @property
    def takes_unsigned(self) -> bool:
        """Whether a worker may post events with the token alone."""
        return self.security is None


def read_callback_settings(config: Mapping[str, Any]) -> CallbackSettings:
    """Check the callback keys of an ``executor_config`` and fill in what they leave open.

    Keys:
        ``callback_host`` (``"127.0.0.1"``) and ``callback_port`` (0, any free one): where Wove listens.
        ``callback_url``: what workers call, where that differs. An empty path, ``/`` or ``/wove/events`` is completed
        to ``/wove/events/<token>``; any other path is left alone, for a proxy that rewrites it. With
        ``callback_server: "application"`` any other path is where `callback_app` is mounted, and is completed as well.
        ``callback_token``: the token; taken from ``callback_url`` or random if omitted.
        ``callback_security``: absent, ``"signed"`` or ``"env:VAR"``.
        ``callback_max_bytes`` (256 MiB): the largest event, in bytes.
        ``callback_server``: ``"own"``, or ``"application"`` where the project mounts `callback_app` in its own server.
        ``results``: ``"pickle"``, or ``"json"`` to refuse every pickle from workers.

    Raises:
        ConfigurationError: names the key and what it takes.
    """
    _refuse_unknown_keys(config)
    own_server = _choice(config, "callback_server", "own", "application") == "own"
    url = _url(config)
    if url is None and not own_server:
        raise ConfigurationError(
            "callback_server 'application' needs callback_url: the URL under which the application mounts "
            "wove.backend.callback_app, e.g. 'https://app.internal/hooks'."
        )
    pinned = _token(config, url)
    token = pinned or secrets.token_urlsafe(32)
    security = _text(config, "callback_security")
    return CallbackSettings(
        host=(_text(config, "callback_host") or "127.0.0.1").strip("[]"),
        port=_whole_number(config, "callback_port", default=0, least=0, most=65535),
        token=token,
        pinned=pinned is not None,
        public_url=None if url is None else _completed(url, token, mounted=not own_server),
        security=security,
        secret=secrets.token_bytes(32) if security in (None, "signed") else shared_secret(security or ""),
        pickles=_choice(config, "results", "pickle", "json") == "pickle",
        max_bytes=_whole_number(config, "callback_max_bytes", default=DEFAULT_MAX_BYTES, least=1),
        own_server=own_server,
    )


def _refuse_unknown_keys(config: Mapping[str, Any]) -> None:
    for key in config:
        if key.startswith("callback_") and key not in CALLBACK_KEYS:
            known = ", ".join(CALLBACK_KEYS)
            raise ConfigurationError(f"No key named {key!r}.{did_you_mean(key, CALLBACK_KEYS)} Callback keys: {known}.")


def _text(config: Mapping[str, Any], key: str) -> str | None:
    value = config.get(key)
    if value is None:
        return None
    if not isinstance(value, str) or not value.strip():
        raise ConfigurationError(f"{key} must be a string that is not empty, not {_shown(value)}.")
    return value


def _choice(config: Mapping[str, Any], key: str, default: str, other: str) -> str:
    value = config.get(key)
    if value is None:
        return default
    if value not in (default, other):
        raise ConfigurationError(f"{key} must be {default!r} or {other!r}, not {_shown(value)}.")
    return str(value)


def _whole_number(config: Mapping[str, Any], key: str, *, default: int, least: int, most: int | None = None) -> int:
    value = config.get(key)
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, int) or value < least or (most is not None and value > most):
        bounds = f"of at least {least}" if most is None else f"from {least} to {most}"
        raise ConfigurationError(f"{key} must be a whole number {bounds}, not {_shown(value)}.")
    return value


def _url(config: Mapping[str, Any]) -> SplitResult | None:
    text = _text(config, "callback_url")
    if text is None:
        return None
    try:
        url = urlsplit(text)
        host, _ = url.hostname, url.port
    except ValueError:
        host, url = None, urlsplit("")
    clean = text.isascii() and text.isprintable() and " " not in text and "#" not in text
    # The message does not repeat the URL: it may hold the token.
    if url.scheme not in ("http", "https") or not host or not clean:
        raise ConfigurationError(
            "callback_url must be an http or https URL without fragment, e.g. 'http://web:9010/wove/events/<token>'."
        )
    if _is_wildcard(host):
        raise ConfigurationError(
            f"callback_url names {host}, which no worker can call. Name this host as workers see it, or leave "
            "callback_url out and Wove finds the address."
        )
    return url


def _token(config: Mapping[str, Any], url: SplitResult | None) -> str | None:
    given = _text(config, "callback_token")
    found = _EVENTS_PATH.fullmatch(url.path) if url is not None else None
    in_url = found["token"] if found is not None else None
    if given and in_url and given != in_url:
        raise ConfigurationError("callback_url ends with another token than callback_token. Give the token once.")
    token = given or in_url or None
    if token is not None and not _TOKEN.fullmatch(token):
        raise ConfigurationError(
            "callback_token must consist of at most 256 letters, digits and the characters . _ ~ -, "
            "because it is a part of the callback URL."
        )
    return token


def _completed(url: SplitResult, token: str, *, mounted: bool) -> str:
    path = url.path
    found = _EVENTS_PATH.fullmatch(path)
    if found is not None:
        path = f"{found['base']}/{token}"
    elif mounted or path in ("", "/"):
        path = f"{path.rstrip('/')}{EVENTS_PATH}/{token}"
    return url._replace(path=path).geturl()


def _is_wildcard(host: str) -> bool:
    try:
        return ip_address(host).is_unspecified
    except ValueError:
        return False


def _shown(value: object) -> str:
    return repr(value) if isinstance(value, int | float | str) else type(value).__name__
