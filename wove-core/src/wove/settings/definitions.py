"""What a configuration may say: its keys, and the check of what one place says."""

from collections.abc import Collection, Mapping
from os import PathLike
from typing import Any

from wove.errors import OptionError, did_you_mean
from wove.options import TASK_OPTIONS, WEAVE_OPTIONS, Option, TaskOptions, WeaveOptions, check_options
from wove.settings.layers import LOCAL, Layer, copied, copied_definition

# `environment` is a word of one task or weave; for all of them it is `default_environment`.
GENERAL_OPTIONS: Mapping[str, Option] = {
    name: option for name, option in {**TASK_OPTIONS, **WEAVE_OPTIONS}.items() if name != "environment"
}
DEFINITION_KEYS = ("executor", "executor_config", *GENERAL_OPTIONS)
SETTING_KEYS = ("default_environment", "environments", *GENERAL_OPTIONS)

_EXECUTOR_METHODS = ("start", "send", "recv", "stop")
_NOT_A_SETTING = {
    "environment": "environment is an option of a task or a weave. Use default_environment to choose the one for all "
    "of them, and environments={...} to define some.",
    "config_file": "config_file cannot stand in a file: pass it to wove.config, or set WOVE_CONFIG_FILE.",
}
_NOT_IN_A_DEFINITION = {
    "environment": "environment has no meaning here: an environment cannot send its tasks on to another one.",
    "environments": "environments stand beside each other, not inside one another.",
    "default_environment": "default_environment stands beside the environments, not inside one.",
}


class Settings(TaskOptions, WeaveOptions, total=False):
    """The keywords of ``wove.config``: these three, and every option of a task or a weave as a global default."""

    default_environment: str | None
    environments: Mapping[str, Mapping[str, Any] | None] | None
    config_file: str | PathLike[str] | None


def read_layer(settings: Mapping[str, object], where: str) -> Layer:
    """Check what one place says.

    Args:
        settings: as the keywords of ``wove.config``, without ``config_file``.
        where: the place, for messages.

    Raises:
        OptionError: a key is unknown or misspelled, or a value has the wrong type.
    """
    _refuse_unknown(settings, SETTING_KEYS, where, _NOT_A_SETTING)
    default = settings.get("default_environment")
    if default is not None and not (isinstance(default, str) and default):
        raise OptionError(f"{where}: default_environment must be the name of an environment, or None, not {default!r}.")
    _check_options(settings, where)
    return Layer(
        where,
        {name: copied(value) for name, value in settings.items() if name != "environments"},
        _read_environments(settings["environments"], where) if "environments" in settings else {},
    )


def _read_environments(given: object, where: str) -> dict[str, dict[str, object] | None] | None:
    if given is None:
        return None
    if not isinstance(given, Mapping):
        raise OptionError(
            f"{where}: environments must be a dict of definitions by name, "
            f"like {{'reports': {{'executor': 'stdio'}}}}, not {type(given).__name__}."
        )
    definitions: dict[str, dict[str, object] | None] = {}
    for name, definition in given.items():
        if not (isinstance(name, str) and name):
            raise OptionError(f"{where}: the name of an environment must be a string that is not empty, not {name!r}.")
        place = f"{where}, environment {name!r}"
        definitions[name] = None if definition is None else _read_definition(definition, place)
    return definitions


def _read_definition(given: object, where: str) -> dict[str, object]:
    if not isinstance(given, Mapping):
        raise OptionError(
            f"{where}: the definition must be a dict like {{'executor': 'stdio', 'retries': 2}}, "
            f"or None, not {type(given).__name__}."
        )
    hint = " What the executor itself is told stands in executor_config."
    _refuse_unknown(given, DEFINITION_KEYS, where, _NOT_IN_A_DEFINITION, hint)
    _check_executor(given.get("executor"), where)
    _check_executor_config(given.get("executor_config"), where)
    if isinstance(given.get("executor"), str) and given["executor"] == LOCAL:
        _refuse_options_in(given.get("executor_config"), where)
    _check_options(given, where)
    return copied_definition(given)


def _check_executor(value: object, where: str) -> None:
    if value is None or (isinstance(value, str) and value.strip()):
        return
    has_methods = all(callable(getattr(value, method, None)) for method in _EXECUTOR_METHODS)
    if has_methods and not isinstance(value, type):
        return
    expected = "a name like 'local', 'stdio' or 'celery', or an object with start, send, recv and stop"
    if isinstance(value, type):
        found = f"the class {value.__name__}"
    else:
        found = "an empty string" if isinstance(value, str) else f"an object of type {type(value).__name__}"
    advice = ""
    if has_methods and isinstance(value, type):
        advice = f" Pass an instance: {value.__name__}(...)."
    elif callable(getattr(value, "submit", None)):
        advice = " Pass a backend adapter's class as BackendAdapterEnvironmentExecutor(name, adapter_class=...)."
    raise OptionError(f"{where}: executor must be {expected}, not {found}.{advice}")


def _check_executor_config(value: object, where: str) -> None:
    # No message shows a value or a key that is no string: any of it may be a password.
    if value is None:
        return
    if not isinstance(value, Mapping):
        raise OptionError(f"{where}: executor_config must be a dict, or None, not {type(value).__name__}.")
    if not all(isinstance(key, str) for key in value):
        raise OptionError(f"{where}: the keys of executor_config must be strings.")


def _refuse_options_in(executor_config: object, where: str) -> None:
    # Other keys are let pass: where only the executor changes from place to place, they are meant for the other one.
    for key in executor_config if isinstance(executor_config, Mapping) else ():
        if key in GENERAL_OPTIONS:
            raise OptionError(
                f"{where}: {key} has no meaning in the executor_config of the local executor. It is an option: let it "
                "stand beside executor."
            )


def _check_options(given: Mapping[str, object], where: str) -> None:
    options = {name: value for name, value in given.items() if name in GENERAL_OPTIONS and value is not None}
    check_options(options, where=where, known=GENERAL_OPTIONS)


def _refuse_unknown(
    given: Collection[object], known: Collection[str], where: str, explained: Mapping[str, str], hint: str = ""
) -> None:
    for key in given:
        if key in known:
            continue
        if isinstance(key, str) and key in explained:
            raise OptionError(f"{where}: {explained[key]}")
        nearest = did_you_mean(key, known) if isinstance(key, str) else ""
        raise OptionError(f"{where}: no setting named {key!r}.{nearest}{hint} Settings: {', '.join(sorted(known))}.")
