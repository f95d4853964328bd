"""The ``executor_config`` of the environment, checked. Nothing here imports ARQ."""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from wove.backend.callback_settings import CALLBACK_KEYS
from wove.errors import ConfigurationError, did_you_mean

DEFAULT_FUNCTION_NAME = "wove.run"
DEFAULT_QUEUE_NAME = "arq:queue"
SCHEMES = ("redis", "rediss", "unix")


@dataclass(frozen=True, slots=True)
class Settings:
    """How tasks are submitted.

    Attributes:
        pool: an ``ArqRedis`` of the project, of which the connection settings are taken; None: see the next.
        redis_settings: ``RedisSettings``, its fields as a dict, or a URL.
        function_name: the name under which workers have the function that executes payloads.
        queue_name: the queue; None is the pool's own default, or else ARQ's.
        serializer: ARQ's ``job_serializer``, or ``"json"``; None is the pool's own, or else pickle.
        options: arguments for ``enqueue_job``, under its own names.
    """

    pool: Any = None
    redis_settings: Any = field(default=None, repr=False)
    function_name: str = DEFAULT_FUNCTION_NAME
    queue_name: str | None = None
    serializer: Any = None
    options: Mapping[str, Any] = field(default_factory=dict)


class Wrong(Exception):
    """A value is not what its key takes; the message says what that is."""


Check = Callable[[Any], Any]


def _text(value: object) -> str:
    if not isinstance(value, str) or not value.strip():
        raise Wrong("a text that is not empty")
    return value


def _mapping(value: object) -> dict[str, Any]:
    if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
        raise Wrong("a dict with text keys")
    return dict(value)


def _redis_settings(value: object) -> object:
    if isinstance(value, Mapping):
        return _mapping(value)
    is_url = isinstance(value, str) and value.partition("://")[0] in SCHEMES
    if not is_url and not (hasattr(value, "conn_retries") and hasattr(value, "host")):
        raise Wrong("a URL that begins with redis://, rediss:// or unix://, or arq's RedisSettings, or a dict of them")
    return value


def _pool(value: object) -> object:
    if not (hasattr(value, "enqueue_job") and hasattr(value, "connection_pool")):
        raise Wrong("what arq's create_pool() returns")
    return value


def _serializer(value: object) -> object:
    if value != "json" and not callable(value):
        raise Wrong("'json', or a function that makes bytes of a dict")
    return value


def _seconds(value: object) -> float | timedelta:
    seconds = value.total_seconds() if isinstance(value, timedelta) else value
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not math.isfinite(seconds) or seconds <= 0:
        raise Wrong("a positive number of seconds, or a timedelta")
    return value if isinstance(value, timedelta) else seconds


def _moment(value: object) -> datetime:
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value)
        except ValueError:
            raise Wrong("a datetime or an ISO 8601 text") from None
    if not isinstance(value, datetime):
        raise Wrong("a datetime or an ISO 8601 text")
    return value


def _tries(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise Wrong("a whole number of at least 1")
    return value


_URL_EXAMPLE = "'redis://localhost:6379/0'"
_POOL_EXAMPLE = "await arq.create_pool(RedisSettings())"

# Each key with its check and an example for the message.
_OWN: Mapping[str, tuple[Check, str]] = {
    "pool": (_pool, _POOL_EXAMPLE),
    "redis_settings": (_redis_settings, _URL_EXAMPLE),
    "function_name": (_text, repr(DEFAULT_FUNCTION_NAME)),
    "queue_name": (_text, "'arq:reports'"),
    "job_serializer": (_serializer, "'json'"),
    "enqueue_options": (_mapping, "{'_defer_by': 10}"),
}
# What ARQ's users know from enqueue_job: https://arq-docs.helpmanual.io/
_ENQUEUING: Mapping[str, tuple[Check, str]] = {
    "_defer_by": (_seconds, "10"),
    "_defer_until": (_moment, "datetime(2030, 1, 1, tzinfo=UTC)"),
    "_expires": (_seconds, "3600"),
    "_job_try": (_tries, "1"),
}
_ELSEWHERE: Mapping[str, str] = {
    "_queue_name": "give it as 'queue_name' beside 'enqueue_options'",
    "_job_id": "it is set by Wove for every task; leave it out",
}
_CORES = (*CALLBACK_KEYS, "results", "max_payload_bytes", "dead_job_grace")


def read_settings(config: Mapping[str, Any], *, name: str = "arq") -> Settings:
    """Check an ``executor_config``.

    Args:
        config: the keys; those that Wove's core reads are left to it.
        name: the executor's name, for messages.

    Raises:
        ConfigurationError: a key is missing, unknown or wrong; names it and shows an example.
    """
    where = f"executor_config of {name!r}"
    given = {key: value for key, value in config.items() if value is not None and key not in _CORES}
    for key in given:
        if key in _ENQUEUING:
            example = _ENQUEUING[key][1]
            raise ConfigurationError(
                f"{where}: {key} belongs below 'enqueue_options', for example "
                f"'enqueue_options': {{{key!r}: {example}}}."
            )
        if key not in _OWN:
            raise ConfigurationError(f"{where}: {_unknown(key, (*_OWN, *_CORES))}")
    own = {key: _checked(where, key, value, _OWN[key]) for key, value in given.items()}
    _check_connection(where, own)
    return Settings(
        pool=own.get("pool"),
        redis_settings=own.get("redis_settings"),
        function_name=own.get("function_name", DEFAULT_FUNCTION_NAME),
        queue_name=own.get("queue_name"),
        serializer=own.get("job_serializer"),
        options=_options(where, own.get("enqueue_options", {})),
    )


def _checked(where: str, key: str, value: object, rule: tuple[Check, str]) -> Any:
    check, example = rule
    try:
        return check(value)
    except Wrong as wrong:
        shown = repr(value) if isinstance(value, int | float) else f"a {type(value).__name__}"
        raise ConfigurationError(f"{where}: {key} must be {wrong}, for example {example}; it is {shown}.") from None


def _check_connection(where: str, own: Mapping[str, Any]) -> None:
    if "pool" in own and "redis_settings" in own:
        raise ConfigurationError(f"{where}: pool and redis_settings exclude each other. Give one of them.")
    if "pool" not in own and "redis_settings" not in own:
        raise ConfigurationError(
            f"{where} needs 'redis_settings', for example {_URL_EXAMPLE}, or 'pool', for example {_POOL_EXAMPLE}."
        )


def _options(where: str, given: Mapping[str, Any]) -> dict[str, Any]:
    options: dict[str, Any] = {}
    for key, value in given.items():
        place = f"enqueue_options[{key!r}]"
        if key in _ELSEWHERE:
            raise ConfigurationError(f"{where}: {place}: {_ELSEWHERE[key]}.")
        if key not in _ENQUEUING:
            raise ConfigurationError(f"{where}: enqueue_options: {_unknown(key, _ENQUEUING)}")
        if value is not None:
            options[key] = _checked(where, place, value, _ENQUEUING[key])
    if "_defer_by" in options and "_defer_until" in options:
        raise ConfigurationError(f"{where}: _defer_by and _defer_until exclude each other. Give one of them.")
    return options


def _unknown(key: str, known: Iterable[str]) -> str:
    names = tuple(known)
    return f"no key named {key!r}.{did_you_mean(key, names)} Keys: {', '.join(names)}."
