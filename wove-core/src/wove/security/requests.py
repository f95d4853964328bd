"""`NetworkExecutorSecurity`: authenticates the requests of network executors."""

import hashlib
import hmac
import re
import secrets
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Literal, NoReturn, get_args

from wove.errors import ConfigurationError
from wove.security.keys import (
    KEY_NAME,
    check_secret,
    check_settings,
    check_token,
    is_positive,
    read_keys,
    secret_from_environment,
)
from wove.security.nonces import NonceMemory

SecurityType = Literal["signed", "bearer", "none"]
Transport = Literal["http", "grpc", "websocket"]
Headers = Mapping[str, str] | Iterable[tuple[str | bytes, str | bytes]]

DEFAULT_CLOCK_SKEW = 300.0

_NONCE = re.compile(r"[A-Za-z0-9._~+/=-]{8,128}\Z")
_TIMESTAMP = re.compile(r"[0-9]{1,12}\Z")
_SIGNATURE = re.compile(r"v1=[0-9a-f]{64}\Z")


class NetworkExecutorSecurity:
    """Signs the requests of a network executor, or adds a token, and verifies them in a worker service. Thread-safe.

    Make one with `from_config`. No secret ever appears in its ``repr`` or in an error message.

    Attributes:
        type: ``"signed"``, ``"bearer"`` or ``"none"``.
        key: the name of the key that signs, sent as ``X-Wove-Key``; None where nothing is sent.
        clock_skew_seconds: how far a timestamp may be off, either way.
        remember_nonces: whether a repeated request is refused.
    """

    def __init__(
        self,
        type: SecurityType = "none",
        *,
        keys: Mapping[str, bytes] | None = None,
        clock_skew_seconds: float = DEFAULT_CLOCK_SKEW,
        remember_nonces: bool = True,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Take secrets that are at hand; `from_config` reads them from a configuration.

        Args:
            type: the scheme.
            keys: secrets by key name; the first one is sent or signs, all are accepted. With ``"bearer"`` they are the
                tokens.
            clock_skew_seconds: how far a timestamp may be off, either way.
            remember_nonces: whether a repeated request is refused. Each process remembers for itself.
            clock: returns unix seconds.

        Raises:
            ConfigurationError: no secret, one of less than 16 bytes, or a clock skew that is no positive number.
        """
        if type not in get_args(SecurityType):
            raise ConfigurationError("security: type must be 'signed', 'bearer' or 'none'.")
        if not is_positive(clock_skew_seconds):
            raise ConfigurationError("security: clock_skew_seconds must be a positive, finite number of seconds.")
        self.type: SecurityType = type
        self._secrets = {} if type == "none" else dict(keys or {})
        if type != "none" and not self._secrets:
            raise ConfigurationError(f"security: type {type!r} needs a secret.")
        for name, secret in self._secrets.items():
            if not KEY_NAME.match(name):
                raise ConfigurationError(
                    f"security: key {name!r} must be 1 to 128 characters out of A-Z a-z 0-9 . _ ~ -"
                )
            check_secret(secret, f"security: the secret of key {name!r}" if type == "signed" else "security: the token")
            if type == "bearer":
                check_token(secret)
        self.key = next(iter(self._secrets), None)
        self.clock_skew_seconds = float(clock_skew_seconds)
        self.remember_nonces = remember_nonces
        self._clock = clock
        self._nonces = NonceMemory(self.clock_skew_seconds)

    @classmethod
    def from_config(cls, config: object) -> "NetworkExecutorSecurity":
        """Make one from the ``security`` setting of an executor or a worker service.

        Args:
            config: None or ``"none"``; ``"env:VAR"`` (signed with the secret in that environment variable); or a dict:
                ``{"type": "signed", "secret" | "secret_env", "key": "default", "clock_skew_seconds": 300,
                "remember_nonces": True}``, ``{"type": "bearer", "token" | "token_env"}`` or ``{"type": "none"}``.
                To replace a key without downtime, a dict may list more that are verified but never sent, as
                ``"accept": [{"key", "secret" | "secret_env"}]`` or ``[{"token" | "token_env"}]``.
                An instance is returned as it is.

        Raises:
            ConfigurationError: an unknown form or setting, an unset variable, an empty or short secret.
        """
        if isinstance(config, NetworkExecutorSecurity):
            return config
        if config is None or config == "none":
            return cls()
        if isinstance(config, str) and config.startswith("env:"):
            return cls("signed", keys={"default": secret_from_environment(config[4:], where="security")})
        if isinstance(config, Mapping):
            return cls._from_dict(config)
        # The value is not shown: it may be a secret that was put in the wrong place.
        raise ConfigurationError("security must be None, 'none', 'env:NAME_OF_A_VARIABLE' or a dict with a 'type'.")

    @classmethod
    def _from_dict(cls, config: Mapping[str, object]) -> "NetworkExecutorSecurity":
        kind = check_settings(config)
        if kind == "none":
            return cls()
        if kind == "bearer":
            return cls("bearer", keys=read_keys(config, "token"))
        remember = config.get("remember_nonces", True)
        if not isinstance(remember, bool):
            raise ConfigurationError("security: remember_nonces must be True or False.")
        skew = config.get("clock_skew_seconds", DEFAULT_CLOCK_SKEW)
        if not is_positive(skew):
            raise ConfigurationError("security: clock_skew_seconds must be a positive, finite number of seconds.")
        return cls("signed", keys=read_keys(config, "secret"), clock_skew_seconds=skew, remember_nonces=remember)

    @property
    def enabled(self) -> bool:
        """Whether requests are authenticated at all."""
        return self.type != "none"

    def headers_for(self, *, transport: Transport, target: str, body: bytes = b"") -> dict[str, str]:
        """Return the headers that authenticate one request; a signed request needs new ones each time it is sent.

        Args:
            transport: ``"http"``, ``"grpc"`` or ``"websocket"``.
            target: the path with its query; for gRPC the method.
            body: the bytes that are sent; empty for a WebSocket handshake.
        """
        _check_transport(transport)
        if self.key is None:
            return {}
        if self.type == "bearer":
            return {"Authorization": f"Bearer {self._secrets[self.key].decode()}"}
        timestamp, nonce = str(int(self._clock())), secrets.token_hex(16)
        return {
            "X-Wove-Key": self.key,
            "X-Wove-Timestamp": timestamp,
            "X-Wove-Nonce": nonce,
            "X-Wove-Signature": _sign(self._secrets[self.key], transport, target, timestamp, nonce, _digest(body)),
        }

    def metadata_for(self, *, transport: Transport, target: str, body: bytes = b"") -> tuple[tuple[str, str], ...]:
        """Return what `headers_for` returns as pairs with lower-case names, as gRPC takes them."""
        headers = self.headers_for(transport=transport, target=target, body=body)
        return tuple((name.lower(), value) for name, value in headers.items())

    def verify_headers(
        self, *, headers: Headers, transport: Transport, target: str, body: bytes = b"", digest: str | None = None
    ) -> None:
        """Return if a request is authentic, fresh and seen for the first time.

        Args:
            headers: a mapping or pairs, of text or (as in ASGI) of bytes; names in any case.
            transport: ``"http"``, ``"grpc"`` or ``"websocket"``.
            target: the path with its query; for gRPC the method.
            body: the bytes that were received.
            digest: the hex SHA-256 of the body, in place of a body that is too large to be held in memory.

        Raises:
            PermissionError: a header is missing, doubled or malformed, the key is unknown, the timestamp is off, the
                signature or token is wrong, or the request is a repetition.
        """
        _check_transport(transport)
        if self.type == "none":
            return
        given = _relevant(headers)
        if self.type == "bearer":
            self._verify_token(given.get("authorization", ""))
        else:
            self._verify_signature(given, transport, target, digest or _digest(body))

    def verify_metadata(self, *, metadata: Headers, transport: Transport, target: str, body: bytes = b"") -> None:
        """Do what `verify_headers` does, for gRPC metadata.

        Raises:
            PermissionError: as `verify_headers`.
        """
        self.verify_headers(headers=metadata, transport=transport, target=target, body=body)

    def _verify_token(self, authorization: str) -> None:
        scheme, _, token = authorization.partition(" ")
        # Every token is compared, so that the time taken tells nothing.
        matches = [
            hmac.compare_digest(token.strip().encode(errors="replace"), known) for known in self._secrets.values()
        ]
        if scheme.lower() != "bearer" or not any(matches):
            _refuse("the bearer token is missing or wrong")

    def _verify_signature(self, given: Mapping[str, str], transport: Transport, target: str, digest: str) -> None:
        key = _well_formed(given, "X-Wove-Key", KEY_NAME)
        timestamp = _well_formed(given, "X-Wove-Timestamp", _TIMESTAMP)
        nonce = _well_formed(given, "X-Wove-Nonce", _NONCE)
        signature = _well_formed(given, "X-Wove-Signature", _SIGNATURE)
        secret = self._secrets.get(key)
        if secret is None:
            _refuse("the key is unknown")
        now = self._clock()
        if abs(now - int(timestamp)) > self.clock_skew_seconds:
            _refuse("the timestamp is outside the allowed clock skew")
        expected = _sign(secret, transport, target, timestamp, nonce, digest)
        if not hmac.compare_digest(expected.encode(), signature.encode()):
            _refuse("the signature does not match")
        # Only after the signature: nobody without a key may fill the memory.
        if self.remember_nonces and not self._nonces.use(f"{key} {nonce}", int(timestamp), now=now):
            _refuse("the nonce was used before")

    def __repr__(self) -> str:
        named = f", keys={list(self._secrets)!r}" if self.type == "signed" else ""
        return f"NetworkExecutorSecurity({self.type!r}{named})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, NetworkExecutorSecurity) and self._identity() == other._identity()

    def __hash__(self) -> int:
        return hash(self._identity())

    def _identity(self) -> tuple[object, ...]:
        return self.type, tuple(self._secrets.items()), self.clock_skew_seconds, self.remember_nonces

    def __deepcopy__(self, memo: object) -> "NetworkExecutorSecurity":
        # It changes in nothing but its nonces, and a copied configuration must go on sharing those.
        return self

    def __reduce__(self) -> NoReturn:
        raise TypeError("NetworkExecutorSecurity holds secrets and does not travel. Send its configuration instead.")


def _digest(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()


def _sign(secret: bytes, transport: str, target: str, timestamp: str, nonce: str, digest: str) -> str:
    lines = ("wove-v1", transport, target, timestamp, nonce, digest)
    return "v1=" + hmac.new(secret, "\n".join(lines).encode(errors="surrogatepass"), hashlib.sha256).hexdigest()


def _check_transport(transport: str) -> None:
    if transport not in get_args(Transport):
        raise ValueError(f"transport must be 'http', 'grpc' or 'websocket', not {transport!r}.")


def _relevant(headers: Headers) -> dict[str, str]:
    given: dict[str, str] = {}
    for name, value in _pairs(headers):
        lowered = _text(name).lower()
        if lowered != "authorization" and not lowered.startswith("x-wove-"):
            continue
        if lowered in given:
            _refuse(f"the header {lowered} is doubled")
        given[lowered] = _text(value)
    return given


def _pairs(headers: Headers) -> list[tuple[object, object]]:
    try:
        return [(name, value) for name, value in (headers.items() if isinstance(headers, Mapping) else headers)]
    except (TypeError, ValueError):
        _refuse("the headers are no pairs")


def _text(value: object) -> str:
    if isinstance(value, bytes):
        return value.decode("latin-1")
    if not isinstance(value, str):
        _refuse("a header is not text")
    return value


def _well_formed(given: Mapping[str, str], name: str, form: re.Pattern[str]) -> str:
    value = given.get(name.lower())
    if value is None:
        _refuse(f"the header {name} is missing")
    if not form.match(value):
        _refuse(f"the header {name} is malformed")
    return value


def _refuse(reason: str) -> NoReturn:
    raise PermissionError(f"Request refused: {reason}.")
