"""Reads secrets from a configuration or the environment, and refuses weak ones. No message ever shows a secret."""

import os
import re
from collections.abc import Mapping
from math import isfinite
from typing import Literal, TypeGuard

from wove.errors import ConfigurationError, did_you_mean

SHORTEST_SECRET = 16

KEY_NAME = re.compile(r"[A-Za-z0-9._~-]{1,128}\Z")
_TOKEN = re.compile(rb"[\x21-\x7e]+\Z")
_ADVICE = "Make one with: python -c 'import secrets; print(secrets.token_hex(32))'"
_SETTINGS = {
    "signed": ("type", "secret", "secret_env", "key", "clock_skew_seconds", "remember_nonces", "accept"),
    "bearer": ("type", "token", "token_env", "accept"),
    "none": ("type",),
}
_ACCEPTED = {"secret": ("key", "secret", "secret_env"), "token": ("token", "token_env")}


def secret_from_environment(variable: str, *, where: str) -> bytes:
    """Return the secret in an environment variable.

    Args:
        variable: its name.
        where: the setting that names it, for the message.

    Raises:
        ConfigurationError: it is not set, empty or shorter than 16 bytes.
    """
    value = os.environ.get(variable)
    if value is None:
        raise ConfigurationError(
            f"{where}: the environment variable {variable!r} is not set. "
            f"It must hold a secret of {SHORTEST_SECRET} bytes or more. {_ADVICE}"
        )
    secret = value.encode()
    check_secret(secret, f"{where}: the secret in the environment variable {variable!r}")
    return secret


def check_secret(secret: bytes, what: str) -> None:
    """Raise ConfigurationError for an empty or short secret; ``what`` names it in the message."""
    if not secret.strip():
        raise ConfigurationError(f"{what} is empty. {_ADVICE}")
    if len(secret) < SHORTEST_SECRET:
        raise ConfigurationError(f"{what} has {len(secret)} bytes; at least {SHORTEST_SECRET} are needed. {_ADVICE}")


def check_settings(config: Mapping[str, object]) -> Literal["signed", "bearer", "none"]:
    """Return the type that a ``security`` dict names. Raises ConfigurationError for an unknown type or setting."""
    kind = config.get("type")
    if kind not in ("signed", "bearer", "none"):
        raise ConfigurationError("security: type must be 'signed', 'bearer' or 'none'.")
    _check_names(config, _SETTINGS[kind], "security")
    return kind


def read_keys(config: Mapping[str, object], field: Literal["secret", "token"]) -> dict[str, bytes]:
    """Return secrets by key name, the sending one first, from a ``security`` dict and its ``accept`` list."""
    keys = {_key_name(config, field, 0): _read_secret(config, field, "security")}
    further = config.get("accept", [])
    if not isinstance(further, list | tuple):
        raise ConfigurationError("security: accept must be a list of dicts.")
    for index, entry in enumerate(further):
        where = f"security: accept[{index}]"
        if not isinstance(entry, Mapping):
            raise ConfigurationError(f"{where} must be a dict.")
        _check_names(entry, _ACCEPTED[field], where)
        name = _key_name(entry, field, index + 1)
        if name in keys:
            raise ConfigurationError(f"{where}: key {name!r} is given twice.")
        keys[name] = _read_secret(entry, field, where)
    return keys


def check_token(token: bytes) -> None:
    """Raise ConfigurationError for a bearer token that cannot be sent in a header."""
    if not _TOKEN.match(token):
        raise ConfigurationError("security: a token must consist of visible ASCII characters, without spaces.")


def is_positive(value: object) -> TypeGuard[float]:
    """Whether a value is a positive, finite number."""
    return isinstance(value, int | float) and not isinstance(value, bool) and isfinite(value) and value > 0


def _check_names(config: Mapping[str, object], known: tuple[str, ...], where: str) -> None:
    for name in config:
        if name not in known:
            hint = did_you_mean(str(name), known)
            raise ConfigurationError(f"{where}: no setting named {name!r}.{hint} Settings: {', '.join(known)}.")


def _key_name(config: Mapping[str, object], field: str, index: int) -> str:
    name = config.get("key", "default") if field == "secret" else f"token-{index}"
    if not isinstance(name, str):
        raise ConfigurationError("security: key must be text.")
    return name


def _read_secret(config: Mapping[str, object], field: str, where: str) -> bytes:
    given, variable = config.get(field), config.get(f"{field}_env")
    if (given is None) == (variable is None):
        raise ConfigurationError(f"{where}: give either {field!r} or '{field}_env'.")
    if variable is not None:
        if not isinstance(variable, str):
            raise ConfigurationError(f"{where}: {field}_env must be the name of an environment variable.")
        return secret_from_environment(variable, where=where)
    if isinstance(given, bytes):
        return given
    if not isinstance(given, str):
        raise ConfigurationError(f"{where}: {field} must be text.")
    return given.encode()
