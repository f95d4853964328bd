"""The ``executor_config`` of the environment, checked. Nothing here imports RQ."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from wove.errors import ConfigurationError
from wove.integrations.settings import (
    Setting,
    accept_anything,
    check_flag,
    check_mapping,
    check_moment,
    check_options,
    check_seconds,
    check_settings,
    check_text,
)

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


def _url(value: object) -> str:
    if not isinstance(value, str) or value.partition("://")[0] not in ("redis", "rediss", "unix"):
        raise ValueError("a URL that begins with redis://, rediss:// or unix://")
    return value


def _seconds(value: object) -> int:
    """A whole number for RQ, which also knows texts such as ``"5m"``."""
    if isinstance(value, str) and value[:-1].isdigit() and value[-1] in "dhms":
        value = int(value[:-1]) * {"d": 86400, "h": 3600, "m": 60, "s": 1}[value[-1]]
    return math.ceil(check_seconds(value))


def _timeout(value: object) -> int:
    return -1 if value == -1 else _seconds(value)


def _ttl(value: object) -> int:
    return 0 if value == 0 and not isinstance(value, bool) else _timeout(value)


def _delay(value: object) -> timedelta:
    return value if isinstance(value, timedelta) else timedelta(seconds=_seconds(value))


def _serializer(value: object) -> object:
    if not (isinstance(value, str) and value.strip()) and not (hasattr(value, "dumps") and hasattr(value, "loads")):
        raise ValueError("a name, an import path or an object with dumps and loads")
    return value


def _retry(value: object) -> object:
    if isinstance(value, bool) or not (isinstance(value, int) or hasattr(value, "intervals")):
        raise ValueError("an rq.Retry or a number of times")
    return value


_URL_EXAMPLE = "'redis://localhost:6379/0'"
_QUEUE_EXAMPLE = "an rq.Queue, or its import path such as 'myproject.jobs:queue'"

# Each key with its check and an example for the message.
_OWN: Mapping[str, Setting] = {
    "queue": Setting(accept_anything, _QUEUE_EXAMPLE),
    "redis_url": Setting(_url, _URL_EXAMPLE),
    "queue_name": Setting(check_text, "'reports'"),
    "serializer": Setting(_serializer, "'json'"),
    "enqueue_options": Setting(check_mapping, "{'at_front': True}"),
    "terminate_on_cancel": Setting(check_flag, "False"),
}
# What RQ's users know from Queue.enqueue, enqueue_at and enqueue_in: https://python-rq.org/docs/
_ENQUEUING: Mapping[str, Setting] = {
    "at_front": Setting(check_flag, "True"),
    "job_timeout": Setting(_timeout, "600"),
    "ttl": Setting(_seconds, "3600"),
    "result_ttl": Setting(_ttl, "0"),
    "failure_ttl": Setting(_ttl, "3600"),
    "retry": Setting(_retry, "Retry(max=3)"),
    "description": Setting(check_text, "'monthly report'"),
    "meta": Setting(check_mapping, "{'tenant': 'acme'}"),
    "depends_on": Setting(accept_anything, "'another-job'"),
    "on_success": Setting(accept_anything, "Callback(notify)"),
    "on_failure": Setting(accept_anything, "Callback(notify)"),
    "on_stopped": Setting(accept_anything, "Callback(notify)"),
    "webhooks": Setting(accept_anything, "[Webhook('https://example.org/failed', 'failed')]"),
    "rate_limit": Setting(accept_anything, "RateLimit('reports', 2)"),
    "enqueue_at": Setting(check_moment, "datetime(2030, 1, 1, tzinfo=UTC)"),
    "enqueue_in": Setting(_delay, "10"),
}
# Wove itself decides on these.
_WOVES = ("f", "func", "args", "kwargs", "job_id", "unique", "pipeline", "group_id")


def read_settings(config: Mapping[str, Any], *, name: str = "rq") -> Settings:
    """Check an ``executor_config``.

    Args:
        config: the keys; those that Wove's core reads are left to it.
        name: the executor's name, for messages.

    Raises:
        ConfigurationError: a key is missing, unknown or wrong; names it and shows an example.
    """
    where = f"executor_config of {name!r}"
    own = check_settings(config, _OWN, where=where, below={"enqueue_options": _ENQUEUING})
    _check_queue(where, own)
    return Settings(
        queue=own.get("queue"),
        redis_url=own.get("redis_url"),
        queue_name=own.get("queue_name", DEFAULT_QUEUE_NAME),
        serializer=own.get("serializer"),
        terminate=own.get("terminate_on_cancel", True),
        options=_options(where, own.get("enqueue_options", {})),
    )


def _options(where: str, given: Mapping[str, Any]) -> dict[str, Any]:
    options = check_options(given, _ENQUEUING, where=where, parent="enqueue_options", reserved=_WOVES)
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
