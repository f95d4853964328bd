"""Reads the places outside of the program: project file, configuration file, environment variables."""

import os
from typing import NamedTuple

from wove.errors import ConfigurationError
from wove.settings.definitions import GENERAL_OPTIONS, SETTING_KEYS, read_layer
from wove.settings.discovery import find_project_table, find_python_file, read_toml_file, run_python_file
from wove.settings.layers import Layer
from wove.settings.variables import CONFIG_FILE, misspelled_variables, read_variables, variable


class Reading:
    """One reading of the places, by one thread.

    Attributes:
        file: the Python file that is being run.
        said: what calls of ``wove.config`` inside that file said.
    """

    __slots__ = ("file", "said")

    def __init__(self) -> None:
        self.file: str | None = None
        self.said: list[Layer] = []

    def read(self, config_file: str | None) -> "Sources":
        """Read the places anew.

        Args:
            config_file: the file that stands in for those that would be discovered.

        Raises:
            ConfigurationError: a file is missing, cannot be read or raised an exception.
            OptionError: a setting is unknown or misspelled, or has the wrong type.
        """
        if config_file:
            layers = self._read_file(config_file, "wove.config(config_file=...)")
        elif os.environ.get(CONFIG_FILE, "").strip():
            layers = self._read_file(absolute(os.environ[CONFIG_FILE].strip()), f"environment variable {CONFIG_FILE}")
        else:
            layers = self._discover()
        for name, value in read_variables(os.environ, GENERAL_OPTIONS):
            layers.append(read_layer({name: value}, f"environment variable {variable(name)}"))
        return Sources(tuple(layers), misspelled_variables(os.environ, GENERAL_OPTIONS))

    def _discover(self) -> list[Layer]:
        try:
            start = os.getcwd()
        except OSError:
            # The working directory was deleted: nothing is above it.
            return []
        layers = []
        found = find_project_table(start)
        if found:
            path, table = found
            layers.append(read_layer(table, f"{path} [tool.wove]"))
        python_file = find_python_file(start)
        return layers + (self._run(python_file) if python_file else [])

    def _read_file(self, path: str, named_by: str) -> list[Layer]:
        if not os.path.isfile(path):
            raise ConfigurationError(f"{named_by}: there is no file {path}.")
        kind = os.path.splitext(path)[1].lower()
        if kind == ".py":
            return self._run(path)
        if kind == ".toml":
            return [read_layer(read_toml_file(path), path)]
        raise ConfigurationError(f"{named_by}: a configuration file is a .py or a .toml file; {path} is neither.")

    def _run(self, path: str) -> list[Layer]:
        self.file = path
        settings = run_python_file(path, SETTING_KEYS)
        return [*self.said, read_layer(settings, path)]


class Sources(NamedTuple):
    """What the places say.

    Attributes:
        layers: the farthest first.
        misspelled: environment variables that look like misspelled settings, each with the one that was meant.
    """

    layers: tuple[Layer, ...]
    misspelled: dict[str, str]


def absolute(path: str | os.PathLike[str]) -> str:
    """Return the path that a user means: ``~`` is the home directory, the rest is relative to the working directory."""
    return os.path.abspath(os.path.expanduser(os.fspath(path)))
