"""The ``executor_config`` of the environment, checked. Nothing here imports Celery."""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from wove.backend.callback_settings import CALLBACK_KEYS
from wove.errors import ConfigurationError, did_you_mean

DEFAULT_TASK_NAME = "wove.run"
DEFAULT_APP_NAME = "wove"
# Celery's own remote-control command, and an argument that only workers of ours read.
REVOKE_COMMAND, REVOKE_FLAG = "revoke", "wove"


@dataclass(frozen=True, slots=True)
class Settings:
    """How tasks are submitted.

    Attributes:
        app: the project's own Celery app or its import path; None: one is made from what follows.
        broker_url: one URL, or several of which the first that answers is used.
        result_backend: Celery's; Wove does not need one.
        app_name: the name of the app that is made.
        task_name: the Celery task that executes payloads.
        terminate: whether a cancelled task that runs in a prefork worker is ended with `signal`.
        signal: the name of that signal.
        options: arguments for ``Celery.send_task``, under its own names.
    """

    app: Any = None
    broker_url: str | list[str] | None = field(default=None, repr=False)
    result_backend: str | None = field(default=None, repr=False)
    app_name: str = DEFAULT_APP_NAME
    task_name: str = DEFAULT_TASK_NAME
    terminate: bool = True
    signal: str = "SIGTERM"
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


def _seconds(value: object) -> float:
    if not _is_number(value) or value <= 0:  # type: ignore[operator]
        raise Wrong("a positive number of seconds")
    return value  # type: ignore[return-value]


def _delay(value: object) -> float:
    if not _is_number(value) or value < 0:  # type: ignore[operator]
        raise Wrong("a number of seconds, at least 0")
    return value  # type: ignore[return-value]


def _priority(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= 255:
        raise Wrong("a whole number from 0 to 255")
    return value


def _moment(value: object) -> object:
    if isinstance(value, str):
        try:
            datetime.fromisoformat(value)
        except ValueError:
            raise Wrong("a datetime or an ISO 8601 text") from None
    elif not isinstance(value, datetime):
        raise Wrong("a datetime or an ISO 8601 text")
    return value


def _expiry(value: object) -> object:
    return _seconds(value) if _is_number(value) else _moment(value)


def _broker_url(value: object) -> str | list[str]:
    urls = [str(url) for url in value] if isinstance(value, list | tuple) else [str(value)]
    if not urls or not all("://" in url for url in urls):
        raise Wrong("the URL of a broker, or a list of them")
    return value if isinstance(value, str) else urls


def _anything(value: object) -> object:
    return value


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


_URL_EXAMPLE = "'redis://localhost:6379/0' or 'amqp://user:password@localhost//'"

# Each key with its check and an example for the message.
_OWN: Mapping[str, tuple[Check, str]] = {
    "app": (_anything, "a Celery app, or its import path such as 'myproject.celery:app'"),
    "broker_url": (_broker_url, _URL_EXAMPLE),
    "result_backend": (_text, "'redis://localhost:6379/1'"),
    "app_name": (_text, "'reports'"),
    "task_name": (_text, "'myapp.wove_task'"),
    "send_task_options": (_mapping, "{'priority': 5}"),
    "terminate_on_cancel": (_flag, "False"),
    "terminate_signal": (_text, "'SIGKILL'"),
}
# What Celery's users know from apply_async and send_task:
# https://docs.celeryq.dev/en/stable/reference/celery.app.task.html#celery.app.task.Task.apply_async
_SENDING: Mapping[str, tuple[Check, str]] = {
    "queue": (_text, "'reports'"),
    "exchange": (_anything, "'reports'"),
    "exchange_type": (_text, "'topic'"),
    "routing_key": (_text, "'reports.monthly'"),
    "priority": (_priority, "5"),
    "countdown": (_delay, "10"),
    "eta": (_moment, "datetime(2030, 1, 1, tzinfo=UTC)"),
    "expires": (_expiry, "3600"),
    "time_limit": (_seconds, "600"),
    "soft_time_limit": (_seconds, "540"),
    "headers": (_mapping, "{'tenant': 'acme'}"),
    "serializer": (_text, "'auth'"),
    "compression": (_text, "'zlib'"),
    "delivery_mode": (_anything, "1"),
    "ignore_result": (_flag, "True"),
    "link": (_anything, "notify.si()"),
    "link_error": (_anything, "notify.si()"),
    "mandatory": (_flag, "True"),
    "declare": (_anything, "[Queue('reports')]"),
    "retry": (_flag, "True"),
    "retry_policy": (_mapping, "{'max_retries': 3}"),
    "timeout": (_seconds, "5"),
    "confirm_timeout": (_seconds, "5"),
    "argsrepr": (_text, "'(...)'"),
    "kwargsrepr": (_text, "'{}'"),
    "shadow": (_text, "'report'"),
    "stamped_headers": (_anything, "['tenant']"),
}
# Wove itself decides on these.
_WOVES = ("name", "args", "kwargs", "task_id", "producer", "publisher", "connection", "result_cls", "add_to_parent")
_CORES = (*CALLBACK_KEYS, "results", "max_payload_bytes", "dead_job_grace")


def read_settings(config: Mapping[str, Any], *, name: str = "celery") -> Settings:
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
        if key not in _OWN and key not in _SENDING:
            raise ConfigurationError(f"{where}: {_unknown(key, (*_OWN, *_SENDING, *_CORES))}")
    own = {key: _checked(where, key, given[key], _OWN[key]) for key in given if key in _OWN}
    options = _options(where, given, own.get("send_task_options", {}))
    _check_broker(where, own)
    return Settings(
        app=own.get("app"),
        broker_url=own.get("broker_url"),
        result_backend=own.get("result_backend"),
        app_name=own.get("app_name", DEFAULT_APP_NAME),
        task_name=own.get("task_name", DEFAULT_TASK_NAME),
        terminate=own.get("terminate_on_cancel", True),
        signal=own.get("terminate_signal", "SIGTERM"),
        options=options,
    )


def _checked(where: str, key: str, value: object, rule: tuple[Check, str]) -> Any:
    check, example = rule
    try:
        return check(value)
    except Wrong as wrong:
        shown = repr(value) if isinstance(value, int | float) else f"a {type(value).__name__}"
        raise ConfigurationError(f"{where}: {key} must be {wrong}, for example {example}; it is {shown}.") from None


def _options(where: str, given: Mapping[str, Any], nested: Mapping[str, Any]) -> dict[str, Any]:
    options = {key: _checked(where, key, value, _SENDING[key]) for key, value in given.items() if key in _SENDING}
    stamps = nested.get("stamped_headers") or ()
    for key, value in nested.items():
        place = f"send_task_options[{key!r}]"
        if key in _WOVES:
            raise ConfigurationError(f"{where}: {place} is set by Wove for every task; leave it out.")
        if key not in _SENDING and key not in stamps:
            raise ConfigurationError(f"{where}: send_task_options: {_unknown(key, _SENDING)}")
        if key in options and options[key] != value:
            raise ConfigurationError(f"{where}: {key} and {place} contradict each other. Give it once.")
        if value is not None:
            options[key] = _checked(where, place, value, _SENDING.get(key, (_anything, "")))
    _check_times(where, options)
    return options


def _check_times(where: str, options: Mapping[str, Any]) -> None:
    if "eta" in options and "countdown" in options:
        raise ConfigurationError(f"{where}: eta and countdown exclude each other. Give one of them.")
    soft, hard = options.get("soft_time_limit"), options.get("time_limit")
    if soft is not None and hard is not None and soft > hard:
        raise ConfigurationError(f"{where}: soft_time_limit ({soft}) must not be longer than time_limit ({hard}).")


def _check_broker(where: str, own: Mapping[str, Any]) -> None:
    app = own.get("app")
    if app is None:
        if "broker_url" not in own:
            raise ConfigurationError(
                f"{where} needs 'broker_url', for example {_URL_EXAMPLE}, or 'app': {_OWN['app'][1]}."
            )
        return
    if not (hasattr(app, "send_task") or (isinstance(app, str) and app.strip())):
        raise ConfigurationError(f"{where}: app must be {_OWN['app'][1]}, not a {type(app).__name__}.")
    for key in ("broker_url", "result_backend", "app_name"):
        if key in own:
            raise ConfigurationError(f"{where}: {key} is for environments without 'app': the app has its own.")


def _unknown(key: str, known: Iterable[str]) -> str:
    names = tuple(known)
    return f"no key named {key!r}.{did_you_mean(key, names)} Keys: {', '.join(names)}."
