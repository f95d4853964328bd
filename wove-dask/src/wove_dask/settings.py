"""The ``executor_config`` of the environment, checked. Nothing here imports Dask."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from wove.errors import ConfigurationError
from wove.integrations.settings import (
    Setting,
    check_flag,
    check_mapping,
    check_options,
    check_seconds,
    check_settings,
    is_number,
)


@dataclass(frozen=True, slots=True)
class Settings:
    """How tasks are submitted.

    Attributes:
        client: the project's own ``distributed.Client``; None: one is made from what follows.
        address: of the scheduler; None: Dask's own configuration has it.
        client_options: arguments for ``distributed.Client``, under its own names.
        submit_options: arguments for ``Client.submit``, under its own names, without `annotations`.
        annotations: for ``dask.annotate``.
    """

    client: Any = None
    address: str | None = None
    client_options: Mapping[str, Any] = field(default_factory=dict, repr=False)
    submit_options: Mapping[str, Any] = field(default_factory=dict)
    annotations: Mapping[str, Any] = field(default_factory=dict)


def _client(value: object) -> object:
    if not (hasattr(value, "submit") and hasattr(value, "scheduler_info")):
        raise ValueError("a distributed.Client")
    return value


def _address(value: object) -> str:
    # Dask's cluster objects have their scheduler's address.
    address = getattr(value, "scheduler_address", value)
    if not isinstance(address, str) or not address.strip():
        raise ValueError("the scheduler's address, or a cluster object of Dask's")
    return address


def _resources(value: object) -> dict[str, float]:
    resources = check_mapping(value)
    if not resources or not all(is_number(amount) and amount > 0 for amount in resources.values()):
        raise ValueError("a dict of names and positive amounts")
    return resources


def _workers(value: object) -> list[str]:
    named = [value] if isinstance(value, str) else value
    if not isinstance(named, Sequence | set | frozenset) or not named:
        raise ValueError("the name, address or host of a worker, or a list of them")
    if not all(isinstance(each, str) and each.strip() for each in named):
        raise ValueError("the name, address or host of a worker, or a list of them")
    return list(named)


def _integer(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise ValueError("a whole number")
    return value


def _count(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise ValueError("a whole number that is not negative")
    return value


def _interval(value: object) -> object:
    return value if isinstance(value, str) and value.strip() else check_seconds(value)


ADDRESS_EXAMPLE = "'tcp://scheduler:8786'"
_CLIENT_EXAMPLE = "distributed.Client('tcp://scheduler:8786', set_as_default=False)"

# Each key with its check and an example for the message.
_OWN: Mapping[str, Setting] = {
    "client": Setting(_client, _CLIENT_EXAMPLE),
    "address": Setting(_address, ADDRESS_EXAMPLE),
    "client_options": Setting(check_mapping, "{'timeout': 10}"),
    "submit_options": Setting(check_mapping, "{'resources': {'GPU': 1}}"),
}
# What Dask's users know from Client.submit and dask.annotate:
# https://distributed.dask.org/en/stable/api.html#distributed.Client.submit
_SUBMITTING: Mapping[str, Setting] = {
    "resources": Setting(_resources, "{'GPU': 1}"),
    "workers": Setting(_workers, "['worker-1']"),
    "allow_other_workers": Setting(check_flag, "True"),
    "priority": Setting(_integer, "10"),
    "retries": Setting(_count, "2"),
    "fifo_timeout": Setting(_interval, "'60s'"),
    "annotations": Setting(check_mapping, "{'executor': 'gpu'}"),
}
# Wove itself decides on these.
_WOVES = ("func", "args", "kwargs", "key", "pure", "actor", "actors", "batch_size")
# What Client takes is for Dask to judge, but for what is given elsewhere or cannot work here.
_NOT_FOR_CLIENTS = {
    "address": "It is given as 'address' beside 'client_options'",
    "loop": "The client belongs to Wove's own loop; leave it out, or give your own client as 'client'",
}
# A default client would take over what the project computes with Dask elsewhere.
_FIXED = {"asynchronous": True, "set_as_default": False}


def read_settings(config: Mapping[str, Any], *, name: str = "dask") -> Settings:
    """Check an ``executor_config``.

    Args:
        config: the keys; those that Wove's core reads are left to it.
        name: the executor's name, for messages.

    Raises:
        ConfigurationError: a key is unknown or wrong, or two contradict each other; names it and shows an example.
    """
    where = f"executor_config of {name!r}"
    own = check_settings(config, _OWN, where=where, below={"submit_options": _SUBMITTING})
    options = check_options(
        own.get("submit_options", {}), _SUBMITTING, where=where, parent="submit_options", reserved=_WOVES
    )
    if options.get("allow_other_workers") and "workers" not in options:
        raise ConfigurationError(
            f"{where}: submit_options['allow_other_workers'] is for tasks that prefer some workers. "
            "Name these, for example 'workers': ['worker-1']."
        )
    annotations = options.pop("annotations", {})
    return Settings(
        client=own.get("client"),
        address=own.get("address"),
        client_options=_client_options(where, own),
        submit_options=options,
        annotations=annotations,
    )


def _client_options(where: str, own: Mapping[str, Any]) -> dict[str, Any]:
    given: dict[str, Any] = own.get("client_options", {})
    if "client" in own:
        for key in ("address", "client_options"):
            if key in own:
                raise ConfigurationError(f"{where}: {key} is for environments without 'client': that has its own.")
    for key, advice in _NOT_FOR_CLIENTS.items():
        if key in given:
            raise ConfigurationError(f"{where}: client_options[{key!r}] is not taken. {advice}.")
    for key, fixed in _FIXED.items():
        if given.get(key, fixed) is not fixed:
            raise ConfigurationError(
                f"{where}: client_options[{key!r}] is always {fixed} for a client that Wove makes; leave it out, or "
                "give your own client as 'client'."
            )
    return {**given, **_FIXED}


def no_address(where: str) -> ConfigurationError:
    """Return the error for a configuration that leads to no scheduler."""
    return ConfigurationError(
        f"{where} needs 'address', for example {ADDRESS_EXAMPLE}, or 'client': {_CLIENT_EXAMPLE}. For a cluster on "
        "this machine: 'address': distributed.LocalCluster(), made once in your program."
    )
