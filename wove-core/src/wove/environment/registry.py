"""Executors by name and by value."""

from collections.abc import Callable
from typing import Any, cast

from wove.environment.contract import EnvironmentExecutor
from wove.errors import ConfigurationError
from wove.integrations.base import BackendAdapter


def _local() -> EnvironmentExecutor:
    from wove.environment.local import LocalEnvironmentExecutor

    return LocalEnvironmentExecutor()


def _stdio() -> EnvironmentExecutor:
    from wove.environment.stdio import StdioEnvironmentExecutor

    return StdioEnvironmentExecutor()


def _http() -> EnvironmentExecutor:
    from wove.environment.http import HttpEnvironmentExecutor

    return HttpEnvironmentExecutor()


def _https() -> EnvironmentExecutor:
    from wove.environment.http import HttpEnvironmentExecutor

    return HttpEnvironmentExecutor(require_https=True)


def _grpc() -> EnvironmentExecutor:
    from wove.environment.grpc import GrpcEnvironmentExecutor

    return GrpcEnvironmentExecutor()


def _websocket() -> EnvironmentExecutor:
    from wove.environment.websocket import WebSocketEnvironmentExecutor

    return WebSocketEnvironmentExecutor()


# Each imports its module when it is called, so that an environment loads only what it uses.
_BUILT_IN: dict[str, Callable[[], EnvironmentExecutor]] = {
    "local": _local,
    "stdio": _stdio,
    "http": _http,
    "https": _https,
    "grpc": _grpc,
    "websocket": _websocket,
}


def build_executor_from_name(name: str) -> EnvironmentExecutor:
    """Return a new executor of a name: a built-in one, or that of an installed backend adapter.

    Raises:
        ConfigurationError: the name is no string.
        UnknownExecutorError: no executor has the name; says what to install, or the nearest name.
        AdapterError: an adapter offers the name, but cannot be used.
    """
    return named_executor(name)


def named_executor(name: str, *, environment: str | None = None) -> EnvironmentExecutor:
    """Do what `build_executor_from_name` does; errors name the environment."""
    if not isinstance(name, str):
        raise ConfigurationError(f"The name of an executor is a string like 'stdio', not {name!r}.")
    if name in _BUILT_IN:
        return _BUILT_IN[name]()
    from wove.environment.backend import BackendAdapterEnvironmentExecutor
    from wove.integrations.registry import get_backend_adapter_class

    return BackendAdapterEnvironmentExecutor(
        name, adapter_class=get_backend_adapter_class(name, environment=environment)
    )


def coerce_executor(executor_value: Any) -> EnvironmentExecutor:
    """Return the executor that a definition's ``executor`` means: the instance itself, or a new one of the name.

    Args:
        executor_value: a name, an `EnvironmentExecutor` or another object with its four methods, or None for
            ``"local"``.

    Raises:
        ConfigurationError: it is something else; says what to write instead.
        UnknownExecutorError: no executor has the name.
    """
    if executor_value is None:
        return _local()
    if isinstance(executor_value, str):
        return build_executor_from_name(executor_value)
    if isinstance(executor_value, EnvironmentExecutor) or _has_the_methods(executor_value):
        return cast("EnvironmentExecutor", executor_value)
    raise ConfigurationError(
        f"An executor is a name or an instance of wove.EnvironmentExecutor, not {executor_value!r}. "
        f"{_advice(executor_value)}"
    )


def _has_the_methods(value: object) -> bool:
    methods = ("start", "send", "recv", "stop")
    return not isinstance(value, type) and all(callable(getattr(value, method, None)) for method in methods)


def _advice(value: object) -> str:
    kind = value if isinstance(value, type) else type(value)
    if issubclass(kind, EnvironmentExecutor):
        return f"Give an instance: {kind.__name__}()."
    if issubclass(kind, BackendAdapter):
        return f'Wrap the class: BackendAdapterEnvironmentExecutor("name", adapter_class={kind.__name__}).'
    return f"Subclass wove.EnvironmentExecutor: {kind.__name__} does not."
