"""The ``executor_config`` of the environment, checked. Nothing here imports Ray."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from wove.errors import ConfigurationError
from wove.integrations.settings import (
    Setting,
    accept_anything,
    check_flag,
    check_mapping,
    check_options,
    check_seconds,
    check_settings,
    check_text,
    is_number,
)

DEFAULT_ADDRESS = "auto"
CLIENT_SCHEME = "ray://"
DEFAULT_CANCEL_GRACE = 5.0


@dataclass(frozen=True, slots=True)
class Settings:
    """How tasks are submitted.

    Attributes:
        address: where the cluster is; None where no key says so, which is ``"auto"``.
        init: whether a session may be made where the process has none.
        init_options: more arguments of ``ray.init``.
        remote_options: arguments of ``ray.remote``.
        force_cancel: whether an unwanted task that runs is killed at once (True), never (False), or when it has not
            stopped after `cancel_grace` (None).
        cancel_grace: seconds.
        queue_timeout: seconds that a task may wait for its resources; None: any time, if some node has them.
    """

    address: str | None = None
    init: bool = True
    init_options: Mapping[str, Any] = field(default_factory=dict, repr=False)
    remote_options: Mapping[str, Any] = field(default_factory=dict, repr=False)
    force_cancel: bool | None = None
    cancel_grace: float = DEFAULT_CANCEL_GRACE
    queue_timeout: float | None = None

    @property
    def is_client(self) -> bool:
        """Whether the address is that of a Ray Client server."""
        return (self.address or "").startswith(CLIENT_SCHEME)


def _address(value: object) -> str:
    if not isinstance(value, str) or not (value in ("auto", "local") or _has_port(value.removeprefix(CLIENT_SCHEME))):
        raise ValueError("'auto', 'local', host:port or ray://host:port")
    return value


def _has_port(value: str) -> bool:
    host, _, port = value.partition("?")[0].rpartition(":")
    return bool(host) and "//" not in host and port.isdigit()


def _amount(value: object) -> float:
    if not is_number(value) or value < 0:
        raise ValueError("a number that is not negative")
    return value


def _resources(value: object) -> dict[str, float]:
    given = check_mapping(value)
    if {"CPU", "GPU", "memory"} & given.keys():
        raise ValueError("a dict without CPU, GPU and memory, which are given as num_cpus, num_gpus and memory")
    return {name: _amount(amount) for name, amount in given.items()}


def _labels(value: object) -> dict[str, str]:
    labels = check_mapping(value)
    if not all(isinstance(each, str) for each in labels.values()):
        raise ValueError("a dict of texts")
    return labels


def _runtime_env(value: object) -> object:
    # Ray's own class is a dict, too, and shall stay what it is.
    if not isinstance(value, Mapping):
        raise ValueError("a dict or a ray.runtime_env.RuntimeEnv")
    return value


def _calls(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise ValueError("a whole number that is not negative")
    return value


_ADDRESS_EXAMPLE = "'auto', 'head.internal:6379' or 'ray://head.internal:10001'"

# Each key with its check and an example for the message.
_OWN: Mapping[str, Setting] = {
    "address": Setting(_address, _ADDRESS_EXAMPLE),
    "init": Setting(check_flag, "False"),
    "init_options": Setting(check_mapping, "{'namespace': 'reports'}"),
    "remote_options": Setting(check_mapping, "{'num_cpus': 2}"),
    "force_cancel": Setting(check_flag, "True"),
    "cancel_grace": Setting(check_seconds, "5.0"),
    "queue_timeout": Setting(check_seconds, "600.0"),
}
# https://docs.ray.io/en/latest/ray-core/api/doc/ray.remote_function.RemoteFunction.options.html
_REMOTE: Mapping[str, Setting] = {
    "num_cpus": Setting(_amount, "2"),
    "num_gpus": Setting(_amount, "1"),
    "memory": Setting(_amount, "2 * 1024**3"),
    "resources": Setting(_resources, "{'licence': 1}"),
    "accelerator_type": Setting(check_text, "'A100'"),
    "label_selector": Setting(_labels, "{'ray.io/market-type': 'spot'}"),
    "fallback_strategy": Setting(accept_anything, "[{'label_selector': {'zone': 'b'}}]"),
    "scheduling_strategy": Setting(accept_anything, "'SPREAD'"),
    "runtime_env": Setting(_runtime_env, "{'working_dir': 'https://example.org/project.zip'}"),
    "max_calls": Setting(_calls, "100"),
    "name": Setting(check_text, "'reports'"),
    "enable_task_events": Setting(check_flag, "False"),
}
# Retries are Wove's, and a task returns nothing to Ray.
_WOVES = ("max_retries", "retry_exceptions", "num_returns")


def read_settings(config: Mapping[str, Any], *, name: str = "ray") -> Settings:
    """Check an ``executor_config``.

    Args:
        config: the keys; those that Wove's core reads are left to it.
        name: the executor's name, for messages.

    Raises:
        ConfigurationError: a key is unknown or wrong; names it and shows an example.
    """
    where = f"executor_config of {name!r}"
    own = check_settings(config, _OWN, where=where, below={"remote_options": _REMOTE})
    _check_session(where, own)
    remote = check_options(
        own.get("remote_options", {}), _REMOTE, where=where, parent="remote_options", reserved=_WOVES
    )
    return Settings(
        address=own.get("address"),
        init=own.get("init", True),
        init_options=own.get("init_options", {}),
        remote_options=remote,
        force_cancel=own.get("force_cancel"),
        cancel_grace=own.get("cancel_grace", DEFAULT_CANCEL_GRACE),
        queue_timeout=own.get("queue_timeout"),
    )


def _check_session(where: str, own: Mapping[str, Any]) -> None:
    if "address" in own.get("init_options", {}):
        raise ConfigurationError(f"{where}: init_options['address'] is given as 'address' beside 'init_options'.")
    if "init_options" in own and not own.get("init", True):
        raise ConfigurationError(f"{where}: init_options are for ray.init(), which is not called: init is False.")
    if "cancel_grace" in own and "force_cancel" in own:
        raise ConfigurationError(
            f"{where}: cancel_grace and force_cancel exclude each other: True kills at once, False never."
        )
