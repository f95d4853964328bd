"""Idempotency keys: turns the option ``delivery_idempotency_key`` and a task's arguments into the key of one run."""

import inspect
from collections.abc import Callable, Mapping
from string import Formatter
from typing import Any

from wove.errors import OptionError, did_you_mean

KeyOption = str | Callable[..., object] | None


def resolve_key(option: KeyOption, arguments: Mapping[str, Any], *, task: str) -> str | None:
    """Return the key of one run, or None where the option is not set.

    Args:
        option: a string, which may be a format string with fields for arguments (``"report-{account_id}"``); or a
            callable. A callable gets the arguments that its parameters name; one with a single parameter that names
            no argument gets the dict of all arguments.
        arguments: the task's arguments by name.
        task: the task's name, for the message.

    Raises:
        OptionError: the format string has a field that is no argument, the callable cannot be called or raises, or
            the result is no string or empty.
    """
    if option is None:
        return None
    key = _formatted(option, arguments, task) if isinstance(option, str) else _called(option, arguments, task)
    if not isinstance(key, str) or not key:
        raise OptionError(f"Task {task!r}: its delivery_idempotency_key must be a string with characters, not {key!r}.")
    return key


def _formatted(template: str, arguments: Mapping[str, Any], task: str) -> object:
    where = f"Task {task!r}: delivery_idempotency_key {template!r}"
    try:
        for _, field, _, _ in Formatter().parse(template):
            if field is not None:
                _check_field(field, arguments, where)
        return template.format_map(arguments)
    except OptionError:
        raise
    except Exception as error:  # Formatting calls the arguments' own methods.
        raise OptionError(f"{where} cannot be formatted: {type(error).__name__}: {error}.") from error


def _check_field(field: str, arguments: Mapping[str, Any], where: str) -> None:
    name = field.replace("[", ".").partition(".")[0]
    if name not in arguments:
        known = ", ".join(arguments) or "none"
        raise OptionError(
            f"{where} has a field {name!r} that is no argument of the task.{did_you_mean(name, arguments)} "
            f"Arguments: {known}. Write {{{{ and }}}} for braces."
        )


def _called(function: Callable[..., object], arguments: Mapping[str, Any], task: str) -> object:
    where = f"Task {task!r}: delivery_idempotency_key {getattr(function, '__name__', repr(function))!r}"
    positional, named = _matching(function, arguments, where)
    try:
        return function(*positional, **named)
    except Exception as error:
        raise OptionError(f"{where} raised {type(error).__name__}: {error}.") from error


def _matching(
    function: Callable[..., object], arguments: Mapping[str, Any], where: str
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return how to call a key function."""
    try:
        parameters = list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):  # Some builtins have no signature.
        return (dict(arguments),), {}
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
        return (), dict(arguments)
    required = [p for p in parameters if p.default is p.empty and p.kind is not p.VAR_POSITIONAL]
    unknown = [p for p in required if p.name not in arguments or p.kind is p.POSITIONAL_ONLY]
    if len(required) == 1 and unknown and required[0].kind is not inspect.Parameter.KEYWORD_ONLY:
        return (dict(arguments),), {}
    if unknown:
        known = ", ".join(arguments) or "none"
        raise OptionError(
            f"{where} has a parameter {unknown[0].name!r} that is no argument of the task."
            f"{did_you_mean(unknown[0].name, arguments)} Arguments: {known}."
        )
    return (), {parameter.name: arguments[parameter.name] for parameter in parameters if parameter.name in arguments}
