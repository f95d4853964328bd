"""What holds: the immutable outcome of all layers, made for fast look-ups."""

from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from wove.errors import ConfigurationError, UnknownEnvironmentError
from wove.options import TASK_OPTIONS, WEAVE_OPTIONS
from wove.settings.layers import LOCAL, Merged, copied_definition, describe, executor_config

FALLBACK = "default"


class EnvironmentSettings(NamedTuple):
    """One environment as it is configured.

    Attributes:
        name: the environment's name.
        executor: the name of an executor, or an executor.
        definition: the whole definition, read-only; ``executor`` and ``executor_config`` are always in it.
        is_local: tasks run in this process.
        task_options: the task options that the definition sets.
        weave_options: the weave options that the definition sets.
    """

    name: str
    executor: Any
    definition: Mapping[str, Any]
    is_local: bool
    task_options: Mapping[str, Any]
    weave_options: Mapping[str, Any]

    def __repr__(self) -> str:
        return f"EnvironmentSettings({self.name!r}, {describe(self.definition)})"


class Configuration(NamedTuple):
    """Everything that is configured. Immutable, so that a weave can hold on to it while others configure.

    Attributes:
        default_environment: the environment of tasks and weaves that name none. It may be unknown: `environment` tells.
        default_from: the place that chose it.
        environments: all environments by name; ``default`` is always among them.
        definitions: the same as plain definitions, read-only.
        task_options: the task options that have a global default.
        weave_options: the weave options that have a global default.
    """

    default_environment: str
    default_from: str
    environments: Mapping[str, EnvironmentSettings]
    definitions: Mapping[str, Mapping[str, Any]]
    task_options: Mapping[str, Any]
    weave_options: Mapping[str, Any]

    def environment(self, name: str | None = None, *, where: str | None = None) -> EnvironmentSettings:
        """Return an environment.

        Args:
            name: its name; None is the default environment.
            where: who asks, for the error message: ``"Task 'report'"``.

        Raises:
            UnknownEnvironmentError: nothing defines it. The error lists the known ones.
        """
        name = self.default_environment if name is None else name
        found = self.environments.get(name)
        if found is None:
            if name == self.default_environment:
                place = f"default_environment ({self.default_from})"
                where = f"{where}, by {place}" if where else place
            raise UnknownEnvironmentError(name, self.environments, where=where)
        return found

    def __repr__(self) -> str:
        environments = ", ".join(f"{name!r}: {describe(value)}" for name, value in self.definitions.items())
        defaults = describe({**self.task_options, **self.weave_options})
        return (
            f"Configuration(default_environment={self.default_environment!r}, environments={{{environments}}}, "
            f"defaults={defaults})"
        )


def configuration_of(merged: Merged) -> Configuration:
    """Return what merged layers amount to.

    Raises:
        ConfigurationError: an environment has an ``executor_config`` and no executor.
    """
    given: Mapping[str, Mapping[str, object]] = {FALLBACK: {}, **merged.environments}
    environments = {name: _settings_of(name, definition) for name, definition in given.items()}
    default = merged.values.get("default_environment", FALLBACK)
    return Configuration(
        default_environment=str(default),
        default_from=merged.default_from,
        environments=MappingProxyType(environments),
        definitions=MappingProxyType({name: settings.definition for name, settings in environments.items()}),
        task_options=_only(TASK_OPTIONS, merged.values),
        weave_options=_only(WEAVE_OPTIONS, merged.values),
    )


def _settings_of(name: str, given: Mapping[str, object]) -> EnvironmentSettings:
    config = executor_config(given)
    if config and "executor" not in given:
        raise ConfigurationError(
            f"environment {name!r}: there is an executor_config, but no executor that it is for. "
            "Add one, like 'executor': 'stdio', or remove executor_config."
        )
    executor = given.get("executor", LOCAL)
    definition = {**given, "executor": executor, "executor_config": MappingProxyType(copied_definition(config))}
    return EnvironmentSettings(
        name=name,
        executor=executor,
        definition=MappingProxyType(definition),
        is_local=executor == LOCAL if isinstance(executor, str) else False,
        task_options=_only(TASK_OPTIONS, given),
        weave_options=_only(WEAVE_OPTIONS, given),
    )


def _only(names: Mapping[str, object], values: Mapping[str, object]) -> Mapping[str, object]:
    return MappingProxyType({name: values[name] for name in names if name in values})


def variables_named_in(value: object, *, is_name: bool = False) -> Iterator[str]:
    """Yield the variables that an ``executor_config`` names: ``"env:NAME"`` or ``{"secret_env": "NAME"}``."""
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from variables_named_in(item, is_name=isinstance(key, str) and key.endswith("_env"))
    elif isinstance(value, list | tuple):
        for item in value:
            yield from variables_named_in(item)
    elif isinstance(value, str):
        if value.startswith("env:"):
            yield value.removeprefix("env:")
        elif is_name:
            yield value
