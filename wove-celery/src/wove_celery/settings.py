"""The ``executor_config`` of the environment, checked. Nothing here imports Celery."""

from collections.abc import Mapping
from dataclasses import dataclass, field
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
    is_number,
)

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


def _delay(value: object) -> float:
    if not is_number(value) or value < 0:
        raise ValueError("a number of seconds, at least 0")
    return value


def _priority(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= 255:
        raise ValueError("a whole number from 0 to 255")
    return value


def _moment(value: object) -> object:
    """Take a moment, and leave a text to Celery as it is."""
    check_moment(value)
    return value


def _expiry(value: object) -> object:
    return check_seconds(value) if is_number(value) else _moment(value)


def _broker_url(value: object) -> str | list[str]:
    urls = [str(url) for url in value] if isinstance(value, list | tuple) else [str(value)]
    if not urls or not all("://" in url for url in urls):
        raise ValueError("the URL of a broker, or a list of them")
    return value if isinstance(value, str) else urls


_URL_EXAMPLE = "'redis://localhost:6379/0' or 'amqp://user:password@localhost//'"

# Each key with its check and an example for the message.
_OWN: Mapping[str, Setting] = {
    "app": Setting(accept_anything, "a Celery app, or its import path such as 'myproject.celery:app'"),
    "broker_url": Setting(_broker_url, _URL_EXAMPLE),
    "result_backend": Setting(check_text, "'redis://localhost:6379/1'"),
    "app_name": Setting(check_text, "'reports'"),
    "task_name": Setting(check_text, "'myapp.wove_task'"),
    "send_task_options": Setting(check_mapping, "{'priority': 5}"),
    "terminate_on_cancel": Setting(check_flag, "False"),
    "terminate_signal": Setting(check_text, "'SIGKILL'"),
}
# What Celery's users know from apply_async and send_task:
# https://docs.celeryq.dev/en/stable/reference/celery.app.task.html#celery.app.task.Task.apply_async
_SENDING: Mapping[str, Setting] = {
    "queue": Setting(check_text, "'reports'"),
    "exchange": Setting(accept_anything, "'reports'"),
    "exchange_type": Setting(check_text, "'topic'"),
    "routing_key": Setting(check_text, "'reports.monthly'"),
    "priority": Setting(_priority, "5"),
    "countdown": Setting(_delay, "10"),
    "eta": Setting(_moment, "datetime(2030, 1, 1, tzinfo=UTC)"),
    "expires": Setting(_expiry, "3600"),
    "time_limit": Setting(check_seconds, "600"),
    "soft_time_limit": Setting(check_seconds, "540"),
    "headers": Setting(check_mapping, "{'tenant': 'acme'}"),
    "serializer": Setting(check_text, "'auth'"),
    "compression": Setting(check_text, "'zlib'"),
    "delivery_mode": Setting(accept_anything, "1"),
    "ignore_result": Setting(check_flag, "True"),
    "link": Setting(accept_anything, "notify.si()"),
    "link_error": Setting(accept_anything, "notify.si()"),
    "mandatory": Setting(check_flag, "True"),
    "declare": Setting(accept_anything, "[Queue('reports')]"),
    "retry": Setting(check_flag, "True"),
    "retry_policy": Setting(check_mapping, "{'max_retries': 3}"),
    "timeout": Setting(check_seconds, "5"),
    "confirm_timeout": Setting(check_seconds, "5"),
    "argsrepr": Setting(check_text, "'(...)'"),
    "kwargsrepr": Setting(check_text, "'{}'"),
    "shadow": Setting(check_text, "'report'"),
    "stamped_headers": Setting(accept_anything, "['tenant']"),
}
# Wove itself decides on these.
_WOVES = ("name", "args", "kwargs", "task_id", "producer", "publisher", "connection", "result_cls", "add_to_parent")


def read_settings(config: Mapping[str, Any], *, name: str = "celery") -> Settings:
    """Check an ``executor_config``.

    Args:
        config: the keys; those that Wove's core reads are left to it.
        name: the executor's name, for messages.

    Raises:
        ConfigurationError: a key is missing, unknown or wrong; names it and shows an example.
    """
    where = f"executor_config of {name!r}"
    given = check_settings(config, {**_OWN, **_SENDING}, where=where)
    own = {key: value for key, value in given.items() if key in _OWN}
    flat = {key: value for key, value in given.items() if key in _SENDING}
    options = _options(where, flat, own.get("send_task_options", {}))
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


def _options(where: str, flat: Mapping[str, Any], nested: Mapping[str, Any]) -> dict[str, Any]:
    stamps = dict.fromkeys(nested.get("stamped_headers") or (), Setting(accept_anything, "'acme'"))
    known = {**stamps, **_SENDING}
    options = check_options(nested, known, where=where, parent="send_task_options", reserved=_WOVES)
    for key, value in flat.items():
        if key in nested and nested[key] != value:
            raise ConfigurationError(
                f"{where}: {key} and send_task_options[{key!r}] contradict each other. Give it once."
            )
    options = {**flat, **options}
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
                f"{where} needs 'broker_url', for example {_URL_EXAMPLE}, or 'app': {_OWN['app'].example}."
            )
        return
    if not (hasattr(app, "send_task") or (isinstance(app, str) and app.strip())):
        raise ConfigurationError(f"{where}: app must be {_OWN['app'].example}, not a {type(app).__name__}.")
    for key in ("broker_url", "result_backend", "app_name"):
        if key in own:
            raise ConfigurationError(f"{where}: {key} is for environments without 'app': the app has its own.")
