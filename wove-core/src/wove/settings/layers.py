"""Layers of settings, and what several of them say together.

A layer is what one place says: one call of ``wove.config``, one file, one environment variable. Layers are merged from
the farthest to the closest. Everything here is pure, and takes settings for checked.
"""

from collections.abc import Mapping
from typing import NamedTuple

LOCAL = "local"


class Layer(NamedTuple):
    """What one place says: a copy of what the user gave there.

    Attributes:
        where: the place, for messages: ``"wove.config(...)"``, a file's path, ``"environment variable WOVE_TIMEOUT"``.
        values: ``default_environment`` and options by name; None removes what layers below say.
        environments: definitions by name; None in place of a definition, or of all of them, removes in the same way.
    """

    where: str
    values: Mapping[str, object]
    environments: Mapping[str, Mapping[str, object] | None] | None

    def __repr__(self) -> str:
        return f"<Layer of {self.where}>"


class Merged(NamedTuple):
    """What a sequence of layers says together.

    Attributes:
        values: ``default_environment`` and options that are set.
        environments: definitions by name.
        default_from: the place that set ``default_environment``.
    """

    values: Mapping[str, object]
    environments: Mapping[str, Mapping[str, object]]
    default_from: str = "built in"

    def __repr__(self) -> str:
        return f"<Merged layers, environments: {', '.join(sorted(self.environments))}>"


NOTHING = Merged({}, {})


def merge(below: Merged, layer: Layer) -> Merged:
    """Return what holds when a layer is put on top of others."""
    environments: dict[str, Mapping[str, object]] = {}
    if layer.environments is not None:
        environments.update(below.environments)
        for name, definition in layer.environments.items():
            if definition is None:
                environments.pop(name, None)
            else:
                environments[name] = _merge_definition(environments.get(name, {}), definition)
    return Merged(
        values=_overlay(below.values, layer.values),
        environments=environments,
        default_from=layer.where if "default_environment" in layer.values else below.default_from,
    )


def _merge_definition(below: Mapping[str, object], above: Mapping[str, object]) -> dict[str, object]:
    if "executor" in below and "executor" in above and not same(below["executor"], above["executor"]):
        # What one executor is told is wrong for another, or worse: half right.
        below = {name: value for name, value in below.items() if name != "executor_config"}
    merged = _overlay(below, above)
    if above.get("executor_config") is not None:
        merged["executor_config"] = _overlay(executor_config(below), executor_config(above))
    return merged


def _overlay(below: Mapping[str, object], above: Mapping[str, object]) -> dict[str, object]:
    return {name: value for name, value in {**below, **above}.items() if value is not None}


def executor_config(definition: Mapping[str, object]) -> Mapping[str, object]:
    """Return a definition's ``executor_config``; an empty mapping if it has none."""
    config = definition.get("executor_config")
    return config if isinstance(config, Mapping) else {}


def same(one: object, other: object) -> bool:
    """Whether two settings are equal; objects of other classes than the plain ones are so by identity only."""
    if one is other:
        return True
    if type(one) is not type(other):
        return False
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    # The `==` of a user's class may do anything: numpy's answers with an array.
    return isinstance(one, str | int | float | bytes) and one == other


def copied(value: object) -> object:
    """Return a value with its plain containers copied deeply; executors, clients and the like stay the same objects."""
    if type(value) is dict:
        return {key: copied(item) for key, item in value.items()}
    if type(value) is list:
        return [copied(item) for item in value]
    if type(value) is tuple:
        return tuple(copied(item) for item in value)
    return set(value) if type(value) is set else value


def copied_definition(definition: Mapping[str, object]) -> dict[str, object]:
    """Return a definition as plain dicts, with its containers copied."""
    return {name: copied(dict(value) if isinstance(value, Mapping) else value) for name, value in definition.items()}


def describe(definition: Mapping[str, object]) -> str:
    """Return a definition as text without secrets: of ``executor_config`` the keys alone, of an object its class."""
    return "{" + ", ".join(f"{name!r}: {_describe(name, value)}" for name, value in definition.items()) + "}"


def _describe(name: str, value: object) -> str:
    if name == "executor_config" and isinstance(value, Mapping):
        return "{" + ", ".join(f"{key!r}: ..." for key in value) + "}"
    return repr(value) if isinstance(value, str | int | float) else f"<{type(value).__name__}>"
