"""The ``executor_config`` of the environment, checked. Nothing here imports RQ."""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from wove.backend.callback_settings import CALLBACK_KEYS
from wove.errors import ConfigurationError, did_you_mean

DEFAULT_QUEUE_NAME = "default"


@dataclass(frozen=True, slots=True)
class Settings:
    """How tasks are submitted.

    Attributes:
        queue: the project's own ``rq.Queue`` or its import path; None: one is made from what follows.
        redis_url: where Redis is.
        queue_name: the queue's name.
        serializer: RQ's; a worker must use the same one. None is RQ's own default, pickle.
        terminate: whether a cancelled task that runs is ended by RQ's stop command.
        options: arguments for ``Queue.enqueue``, under its own names, and ``enqueue_at`` or ``enqueue_in``.
    """

    queue: Any = None
    redis_url: str | None = field(default=None, repr=False)
    queue_name: str = DEFAULT_QUEUE_NAME
    serializer: Any = None
    terminate: bool = True
    options: Mapping[str, Any] = field(default_factory=dict)


class Wrong(Exception):
    """A value is not what its key takes; the message says what that is."""


Check = Callable[[Any], Any]


def _text(value: object) -> str:
    if not isinstance(value, str) or not value.strip():
        raise Wrong("a text that is not empty")
    return value


def _flag(value: object) -> bool:
    if not isinstance(value, bool):
        raise Wrong("True or False")
    return value


def _mapping(value: object) -> dict[str, Any]:
    if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
        raise Wrong("a dict with text keys")
    return dict(value)


def _url(value: object) -> str:
    if not isinstance(value, str) or value.partition("://")[0] not in ("redis", "rediss", "unix"):
        raise Wrong("a URL that begins with redis://, rediss:// or unix://")
    return value


def _seconds(value: object) -> int:
    """A whole number for RQ, which also knows texts such as ``"5m"``."""
    if isinstance(value, str) and value[:-1].isdigit() and value[-1] in "dhms":
        value = int(value[:-1]) * {"d": 86400, "h": 3600, "m": 60, "s": 1}[value[-1]]
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or value <= 0:
        raise Wrong("a positive number of seconds")
    return math.ceil(value)


def _timeout(value: object) -> int:
    return -1 if value == -1 else _seconds(value)


def _ttl(value: object) -> int:
    return 0 if value == 0 and not isinstance(value, bool) else _timeout(value)


def _delay(value: object) -> timedelta:
    return value if isinstance(value, timedelta) else timedelta(seconds=_seconds(value))


def _moment(value: object) -> datetime:
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value)
        except ValueError:
            raise Wrong("a datetime or an ISO 8601 text") from None
    if not isinstance(value, datetime):
        raise Wrong("a datetime or an ISO 8601 text")
    return value


def _serializer(value: object) -> object:
    if not (isinstance(value, str) and value.strip()) and not (hasattr(value, "dumps") and hasattr(value, "loads")):
        raise Wrong("a name, an import path or an object with dumps and loads")
    return value


def _retry(value: object) -> object:
    if isinstance(value, bool) or not (isinstance(value, int) or hasattr(value, "intervals")):
        raise Wrong("an rq.Retry or a number of times")
    return value


def _anything(value: object) -> object:
    return value


_URL_EXAMPLE = "'redis://localhost:6379/0'"
_QUEUE_EXAMPLE = "an rq.Queue, or its import path such as 'myproject.jobs:queue'"

# Each key with its check and an example for the message.
_OWN: Mapping[str, tuple[Check, str]] = {
    "queue": (_anything, _QUEUE_EXAMPLE),
    "redis_url": (_url, _URL_EXAMPLE),
    "queue_name": (_text, "'reports'"),
    "serializer": (_serializer, "'json'"),
    "enqueue_options": (_mapping, "{'at_front': True}"),
    "terminate_on_cancel": (_flag, "False"),
}
# What RQ's users know from Queue.enqueue, enqueue_at and enqueue_in: https://python-rq.org/docs/
_ENQUEUING: Mapping[str, tuple[Check, str]] = {
    "at_front": (_flag, "True"),
    "job_timeout": (_timeout, "600"),
    "ttl": (_seconds, "3600"),
    "result_ttl": (_ttl, "0"),
    "failure_ttl": (_ttl, "3600"),
    "retry": (_retry, "Retry(max=3)"),
    "description": (_text, "'monthly report'"),
    "meta": (_mapping, "{'tenant': 'acme'}"),
    "depends_on": (_anything, "'another-job'"),
    "on_success": (_anything, "Callback(notify)"),
    "on_failure": (_anything, "Callback(notify)"),
    "on_stopped": (_anything, "Callback(notify)"),
    "webhooks": (_anything, "[Webhook('https://example.org/failed', 'failed')]"),
    "rate_limit": (_anything, "RateLimit('reports', 2)"),
    "enqueue_at": (_moment, "datetime(2030, 1, 1, tzinfo=UTC)"),
    "enqueue_in": (_delay, "10"),
}
# Wove itself decides on these.
_WOVES = ("f", "func", "args", "kwargs", "job_id", "unique", "pipeline", "group_id")
_CORES = (*CALLBACK_KEYS, "results", "max_payload_bytes", "dead_job_grace")


def read_settings(config: Mapping[str, Any], *, name: str = "rq") -> Settings:
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
    _check_queue(where, own)
    return Settings(
        queue=own.get("queue"),
        redis_url=own.get("redis_url"),
        queue_name=own.get("queue_name", DEFAULT_QUEUE_NAME),
        serializer=own.get("serializer"),
        terminate=own.get("terminate_on_cancel", True),
        options=_options(where, own.get("enqueue_options", {})),
    )


def _checked(where: str, key: str, value: object, rule: tuple[Check, str]) -> Any:
    check, example = rule
    try:
        return check(value)
    except Wrong as wrong:
        shown = repr(value) if isinstance(value, int | float) else f"a {type(value).__name__}"
        raise ConfigurationError(f"{where}: {key} must be {wrong}, for example {example}; it is {shown}.") from None


def _options(where: str, given: Mapping[str, Any]) -> dict[str, Any]:
    options: dict[str, Any] = {}
    for key, value in given.items():
        place = f"enqueue_options[{key!r}]"
        if key in _WOVES:
            raise ConfigurationError(f"{where}: {place} is set by Wove for every task; leave it out.")
        if key not in _ENQUEUING:
            raise ConfigurationError(f"{where}: enqueue_options: {_unknown(key, _ENQUEUING)}")
        if value is not None:
            options[key] = _checked(where, place, value, _ENQUEUING[key])
    if "enqueue_at" in options and "enqueue_in" in options:
        raise ConfigurationError(f"{where}: enqueue_at and enqueue_in exclude each other. Give one of them.")
    return options


def _check_queue(where: str, own: Mapping[str, Any]) -> None:
    queue = own.get("queue")
    if queue is None:
        if "redis_url" not in own:
            raise ConfigurationError(
                f"{where} needs 'redis_url', for example {_URL_EXAMPLE}, or 'queue': {_QUEUE_EXAMPLE}."
            )
        return
    if not (hasattr(queue, "enqueue_many") or (isinstance(queue, str) and ":" in queue)):
        hint = f" A queue's name is given as 'queue_name': {queue!r}." if isinstance(queue, str) else ""
        raise ConfigurationError(f"{where}: queue must be {_QUEUE_EXAMPLE}, not a {type(queue).__name__}.{hint}")
    for key in ("redis_url", "queue_name", "serializer"):
        if key in own:
            raise ConfigurationError(f"{where}: {key} is for environments without 'queue': the queue has its own.")


def _unknown(key: str, known: Iterable[str]) -> str:
    names = tuple(known)
    return f"no key named {key!r}.{did_you_mean(key, names)} Keys: {', '.join(names)}."
