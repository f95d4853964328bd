"""The ``executor_config`` of the stdio executor, checked before any process is started."""

import os
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from wove.backend.task_threads import DEFAULT_THREADS
from wove.environment.worker_command import WorkerCommand
from wove.errors import ConfigurationError, did_you_mean

_KEYS = ("command", "processes", "threads", "env", "cwd")


@dataclass(frozen=True, slots=True)
class StdioSettings:
    """Everything that one pool of worker processes depends on. Environments with equal settings share a pool.

    Attributes:
        command: what is started.
        processes: the most worker processes.
        threads: how many synchronous tasks run side by side in one process; None: not limited from here.
    """

    command: WorkerCommand
    processes: int
    threads: int | None


def read_settings(environment: str, config: Mapping[str, Any]) -> StdioSettings:
    """Check an ``executor_config`` and return its settings.

    Raises:
        ConfigurationError: names the environment, the key and, for a misspelled one, the nearest right one.
    """
    where = f"Environment {environment!r}: executor_config"
    for key in config:
        if key not in _KEYS:
            raise ConfigurationError(
                f"{where} of the stdio executor has no key {key!r}.{did_you_mean(str(key), _KEYS)} "
                f"Keys: {', '.join(_KEYS)}."
            )
    argv = _argv(where, config.get("command"))
    threads = _count(where, "threads", config.get("threads"))
    return StdioSettings(
        command=WorkerCommand(argv, env=_env(where, config.get("env")), cwd=_cwd(where, config.get("cwd"))),
        processes=_count(where, "processes", config.get("processes")) or 1,
        # Of a foreign program nobody knows what it can do side by side.
        threads=threads if argv or threads else DEFAULT_THREADS,
    )


def _argv(where: str, value: object) -> tuple[str, ...] | None:
    if value is None:
        return None
    parts: tuple[Any, ...] | None = None
    if isinstance(value, str):
        try:
            parts = tuple(shlex.split(value))
        except ValueError as error:
            raise ConfigurationError(f"{where}['command'] cannot be split into words: {error}.") from None
    elif isinstance(value, list | tuple) and all(isinstance(part, str | os.PathLike) for part in value):
        parts = tuple(os.fspath(part) for part in value)
    if not parts or not parts[0] or not all(isinstance(part, str) and "\0" not in part for part in parts):
        raise ConfigurationError(
            f"{where}['command'] must be a program with its arguments, as a string or a list of strings, not {value!r}."
        )
    return parts


def _count(where: str, key: str, value: object) -> int | None:
    if value is None:
        return None
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ConfigurationError(f"{where}[{key!r}] must be a whole number of at least 1, not {value!r}.")
    return value


def _env(where: str, value: object) -> tuple[tuple[str, str], ...]:
    if value is None:
        return ()
    if not isinstance(value, Mapping):
        raise ConfigurationError(f"{where}['env'] must be a dict of strings, not {type(value).__name__}.")
    for name, content in value.items():
        if not isinstance(name, str) or not name or "=" in name or "\0" in name:
            raise ConfigurationError(f"{where}['env'] has a key that is no name of a variable: {name!r}.")
        # The content may be a secret and stays out of the message.
        if not isinstance(content, str) or "\0" in content:
            raise ConfigurationError(f"{where}['env'][{name!r}] must be a string, not {type(content).__name__}.")
    return tuple(sorted(value.items()))


def _cwd(where: str, value: object) -> str | None:
    if value is None:
        return None
    path = os.fspath(value) if isinstance(value, str | os.PathLike) else None
    if not isinstance(path, str) or not os.path.isdir(path):
        raise ConfigurationError(f"{where}['cwd'] must be an existing directory, not {value!r}.")
    return os.path.abspath(path)
