"""The ``executor_config`` of the environment, checked. Nothing here imports Taskiq."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from wove.errors import ConfigurationError
from wove.integrations.settings import Setting, check_flag, check_mapping, check_settings, check_text

DEFAULT_TASK_NAME = "wove.run"
DEFAULT_QUEUE_NAME = "taskiq"
# Of messages that the adapter has not sent before.
FIRST_LABEL = "wove_first"
# Of messages that it sends once more, because a worker may have got them or not.
AGAIN_LABEL = "wove_again"
SCHEMES = ("redis", "rediss", "unix")


@dataclass(frozen=True, slots=True)
class Settings:
    """How tasks are submitted.

    Attributes:
        broker: the project's own, a function that makes it, or the import path of either; None where `task` or `url`
            is given.
        task: a task of the project, or its import path: gives the broker, the name and the labels.
        url: where Redis is.
        stream: whether the broker for the URL is a stream instead of a list.
        task_name: the name of the task that executes payloads; None: the task's own, or ``wove.run``.
        queue_name: None: the broker's own.
        labels: of every message.
    """

    broker: Any = None
    task: Any = None
    url: str | None = field(default=None, repr=False)
    stream: bool = False
    task_name: str | None = None
    queue_name: str | None = None
    labels: Mapping[str, Any] = field(default_factory=dict)


def is_url(value: object) -> bool:
    """Tell whether a value is the URL of a Redis server."""
    return isinstance(value, str) and value.partition("://")[0] in SCHEMES


def _broker(value: object) -> object:
    if not (is_url(value) or _is_path(value) or hasattr(value, "kick") or callable(value)):
        raise ValueError("a Redis URL, a Taskiq broker, or the import path of one")
    return value


def _task(value: object) -> object:
    if not (_is_path(value) or hasattr(value, "kicker")):
        raise ValueError("a Taskiq task, or the import path of one")
    return value


def _is_path(value: object) -> bool:
    if not isinstance(value, str) or "://" in value:
        return False
    module, _, attribute = value.partition(":")
    return bool(module and attribute)


def _labels(value: object) -> dict[str, Any]:
    labels = check_mapping(value)
    if not all(isinstance(each, str | int | float | bool | bytes) for each in labels.values()):
        raise ValueError("a dict of texts, numbers, booleans and bytes")
    return labels


_BROKER_EXAMPLE = "'redis://localhost:6379/0' or 'myproject.jobs:broker'"
_TASK_EXAMPLE = "'myproject.jobs:wove_task'"

# Each key with its check and an example for the message.
_OWN: Mapping[str, Setting] = {
    "broker": Setting(_broker, _BROKER_EXAMPLE),
    "task": Setting(_task, _TASK_EXAMPLE),
    "stream": Setting(check_flag, "True"),
    "task_name": Setting(check_text, repr(DEFAULT_TASK_NAME)),
    "queue_name": Setting(check_text, "'reports'"),
    "labels": Setting(_labels, "{'timeout': 600}"),
}


def read_settings(config: Mapping[str, Any], *, name: str = "taskiq") -> Settings:
    """Check an ``executor_config``.

    Args:
        config: the keys; those that Wove's core reads are left to it.
        name: the executor's name, for messages.

    Raises:
        ConfigurationError: a key is missing, unknown or wrong; names it and shows an example.
    """
    where = f"executor_config of {name!r}"
    own = check_settings(config, _OWN, where=where)
    _check_broker(where, own)
    broker = own.get("broker")
    labels = own.get("labels", {})
    if "queue_name" in labels:
        raise ConfigurationError(f"{where}: labels['queue_name'] is given as 'queue_name' beside 'labels'.")
    return Settings(
        broker=None if is_url(broker) else broker,
        task=own.get("task"),
        url=broker if is_url(broker) else None,
        stream=own.get("stream", False),
        task_name=own.get("task_name"),
        queue_name=own.get("queue_name"),
        labels=labels,
    )


def _check_broker(where: str, own: Mapping[str, Any]) -> None:
    if "broker" in own and "task" in own:
        raise ConfigurationError(
            f"{where}: broker and task exclude each other. A broker's task is given as 'task_name'."
        )
    if "broker" not in own and "task" not in own:
        raise ConfigurationError(
            f"{where} needs 'broker', for example {_BROKER_EXAMPLE}, or 'task', for example {_TASK_EXAMPLE}."
        )
    if "task" in own and "task_name" in own:
        raise ConfigurationError(f"{where}: task_name is for environments without 'task': the task has its own.")
    if "stream" in own and not is_url(own.get("broker")):
        raise ConfigurationError(
            f"{where}: stream is for a broker that is given as a URL; any other one is what it is."
        )
