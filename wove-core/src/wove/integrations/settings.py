"""Checks an ``executor_config`` for an adapter: which keys there are, and what each takes.

::

    _SETTINGS = {
        "url": Setting(check_text, "'myqueue://queue.internal'"),
        "enqueue_options": Setting(check_mapping, "{'priority': 5}"),
    }

    given = check_settings(config, _SETTINGS, where="executor_config of 'myqueue'")
"""

import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeGuard

from wove.backend.callback_settings import CALLBACK_KEYS
from wove.errors import ConfigurationError, did_you_mean

# What core reads of the configuration of every adapter.
CORE_KEYS = (*CALLBACK_KEYS, "results", "max_payload_bytes", "dead_job_grace")

Check = Callable[[Any], Any]


@dataclass(frozen=True, slots=True)
class Setting:
    """What one key takes.

    Attributes:
        check: returns the value to be used for the one that is given, or raises ``ValueError`` with what the key takes,
            as in ``"a positive number of seconds"``.
        example: a value as a user would write it, for the message.
    """

    check: Check
    example: str


def check_settings(
    config: Mapping[str, Any],
    settings: Mapping[str, Setting],
    *,
    where: str,
    below: Mapping[str, Mapping[str, Setting]] | None = None,
) -> dict[str, Any]:
    """Return the checked values of the keys that are given and not None, but for those that core reads.

    Args:
        config: the ``executor_config``.
        settings: the adapter's keys.
        where: how messages begin, e.g. ``"executor_config of 'rq'"``.
        below: for each key whose value is checked with `check_options`, its options: one that a user gives beside that
            key is told its place.

    Raises:
        ConfigurationError: a key is unknown, or its value is wrong; names it and shows an example.
    """
    given = {key: value for key, value in config.items() if value is not None and key not in CORE_KEYS}
    for key in given:
        for parent, options in (below or {}).items():
            if key in options:
                raise ConfigurationError(
                    f"{where}: {key} belongs below {parent!r}, for example "
                    f"{parent!r}: {{{key!r}: {options[key].example}}}."
                )
        if key not in settings:
            raise ConfigurationError(f"{where}: {_unknown(key, (*settings, *CORE_KEYS))}")
    return {key: _checked(value, settings[key], where=f"{where}: {key}") for key, value in given.items()}


def check_options(
    given: Mapping[str, Any],
    options: Mapping[str, Setting],
    *,
    where: str,
    parent: str,
    reserved: Collection[str] = (),
) -> dict[str, Any]:
    """Return the checked values of options that are passed on to the backend, without those that are None.

    Args:
        given: the value of the key `parent`.
        options: what the backend knows.
        where: how messages begin, e.g. ``"executor_config of 'rq'"``.
        parent: the key of the ``executor_config``, e.g. ``"enqueue_options"``.
        reserved: options that are not for users, because the adapter sets them.

    Raises:
        ConfigurationError: an option is reserved or unknown, or its value is wrong; names it and shows an example.
    """
    checked = {}
    for key, value in given.items():
        place = f"{where}: {parent}[{key!r}]"
        if key in reserved:
            raise ConfigurationError(f"{place} is set by Wove for every task; leave it out.")
        if key not in options:
            raise ConfigurationError(f"{where}: {parent}: {_unknown(key, options)}")
        if value is not None:
            checked[key] = _checked(value, options[key], where=place)
    return checked


def _checked(value: object, setting: Setting, *, where: str) -> object:
    try:
        return setting.check(value)
    except ValueError as wrong:
        # Texts and objects may hold a password.
        shown = repr(value) if isinstance(value, int | float) else f"a {type(value).__name__}"
        message = f"{where} must be {wrong}, for example {setting.example}; it is {shown}."
        raise ConfigurationError(message) from None


def _unknown(key: str, known: Collection[str]) -> str:
    return f"no key named {key!r}.{did_you_mean(key, known)} Keys: {', '.join(known)}."


# --- checks ---


def check_text(value: object) -> str:
    """Take a text that is not blank."""
    if not isinstance(value, str) or not value.strip():
        raise ValueError("a text that is not empty")
    return value


def check_flag(value: object) -> bool:
    """Take a boolean."""
    if not isinstance(value, bool):
        raise ValueError("True or False")
    return value


def check_mapping(value: object) -> dict[str, Any]:
    """Take a mapping with text keys, and return a copy."""
    if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
        raise ValueError("a dict with text keys")
    return dict(value)


def check_seconds(value: object) -> float:
    """Take a positive number."""
    if not is_number(value) or value <= 0:
        raise ValueError("a positive number of seconds")
    return value


def check_moment(value: object) -> datetime:
    """Take a datetime, or a text that is one by ISO 8601."""
    if isinstance(value, str):
        try:
            return datetime.fromisoformat(value)
        except ValueError:
            raise ValueError("a datetime or an ISO 8601 text") from None
    if not isinstance(value, datetime):
        raise ValueError("a datetime or an ISO 8601 text")
    return value


def accept_anything(value: object) -> object:
    """Take anything, for what only the backend can judge."""
    return value


def is_number(value: object) -> TypeGuard[int | float]:
    """Tell whether a value is a finite number, and no boolean."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
