"""The ``executor_config`` of the environment, checked. Nothing here imports ARQ."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from wove.errors import ConfigurationError
from wove.integrations.settings import (
    Setting,
    check_mapping,
    check_moment,
    check_options,
    check_settings,
    check_text,
    is_number,
)

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


def _redis_settings(value: object) -> object:
    if isinstance(value, Mapping):
        return check_mapping(value)
    is_url = isinstance(value, str) and value.partition("://")[0] in SCHEMES
    if not is_url and not (hasattr(value, "conn_retries") and hasattr(value, "host")):
        raise ValueError(
            "a URL that begins with redis://, rediss:// or unix://, or arq's RedisSettings, or a dict of them"
        )
    return value


def _pool(value: object) -> object:
    if not (hasattr(value, "enqueue_job") and hasattr(value, "connection_pool")):
        raise ValueError("what arq's create_pool() returns")
    return value


def _serializer(value: object) -> object:
    if value != "json" and not callable(value):
        raise ValueError("'json', or a function that makes bytes of a dict")
    return value


def _seconds(value: object) -> float | timedelta:
    seconds = value.total_seconds() if isinstance(value, timedelta) else value
    if not is_number(seconds) or seconds <= 0:
        raise ValueError("a positive number of seconds, or a timedelta")
    return value if isinstance(value, timedelta) else seconds


def _tries(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError("a whole number of at least 1")
    return value


_URL_EXAMPLE = "'redis://localhost:6379/0'"
_POOL_EXAMPLE = "await arq.create_pool(RedisSettings())"

# Each key with its check and an example for the message.
_OWN: Mapping[str, Setting] = {
    "pool": Setting(_pool, _POOL_EXAMPLE),
    "redis_settings": Setting(_redis_settings, _URL_EXAMPLE),
    "function_name": Setting(check_text, repr(DEFAULT_FUNCTION_NAME)),
    "queue_name": Setting(check_text, "'arq:reports'"),
    "job_serializer": Setting(_serializer, "'json'"),
    "enqueue_options": Setting(check_mapping, "{'_defer_by': 10}"),
}
# What ARQ's users know from enqueue_job: https://arq-docs.helpmanual.io/
_ENQUEUING: Mapping[str, Setting] = {
    "_defer_by": Setting(_seconds, "10"),
    "_defer_until": Setting(check_moment, "datetime(2030, 1, 1, tzinfo=UTC)"),
    "_expires": Setting(_seconds, "3600"),
    "_job_try": Setting(_tries, "1"),
}
_ELSEWHERE: Mapping[str, str] = {
    "_queue_name": "give it as 'queue_name' beside 'enqueue_options'",
    "_job_id": "it is set by Wove for every task; leave it out",
}


def read_settings(config: Mapping[str, Any], *, name: str = "arq") -> Settings:
    """Check an ``executor_config``.

    Args:
        config: the keys; those that Wove's core reads are left to it.
        name: the executor's name, for messages.

    Raises:
        ConfigurationError: a key is missing, unknown or wrong; names it and shows an example.
    """
    where = f"executor_config of {name!r}"
    own = check_settings(config, _OWN, where=where, below={"enqueue_options": _ENQUEUING})
    _check_connection(where, own)
    return Settings(
        pool=own.get("pool"),
        redis_settings=own.get("redis_settings"),
        function_name=own.get("function_name", DEFAULT_FUNCTION_NAME),
        queue_name=own.get("queue_name"),
        serializer=own.get("job_serializer"),
        options=_options(where, own.get("enqueue_options", {})),
    )


def _check_connection(where: str, own: Mapping[str, Any]) -> None:
    if "pool" in own and "redis_settings" in own:
        raise ConfigurationError(f"{where}: pool and redis_settings exclude each other. Give one of them.")
    if "pool" not in own and "redis_settings" not in own:
        raise ConfigurationError(
            f"{where} needs 'redis_settings', for example {_URL_EXAMPLE}, or 'pool', for example {_POOL_EXAMPLE}."
        )


def _options(where: str, given: Mapping[str, Any]) -> dict[str, Any]:
    for key, advice in _ELSEWHERE.items():
        if key in given:
            raise ConfigurationError(f"{where}: enqueue_options[{key!r}]: {advice}.")
    options = check_options(given, _ENQUEUING, where=where, parent="enqueue_options")
    if "_defer_by" in options and "_defer_until" in options:
        raise ConfigurationError(f"{where}: _defer_by and _defer_until exclude each other. Give one of them.")
    return options
