"""The process-wide configuration: `config`, and what it amounts to for each environment.

What counts, the closest first: calls of ``wove.config``, a later one before an earlier one; ``WOVE_*`` environment
variables; the nearest ``wove_config.py`` from the working directory upwards; ``[tool.wove]`` in the nearest
``pyproject.toml`` that has the table. ``config_file=`` takes the place of both files.
"""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import reduce
from os import PathLike, fspath
from threading import Lock, get_ident
from typing import Any, Unpack

from wove.errors import ConfigurationError, OptionError
from wove.settings.configuration import Configuration, configuration_of, variables_named_in
from wove.settings.definitions import GENERAL_OPTIONS, Settings, read_layer
from wove.settings.layers import NOTHING, Layer, Merged, copied_definition, executor_config, merge, same
from wove.settings.sources import Reading, Sources, absolute

# A reader that takes longer waits for a module whose import, in another thread, waits for the configuration.
_PATIENCE_SECONDS = 30.0


class RuntimeConfig:
    """What is configured: `runtime` for the process; a `snapshot`, or one of your own, beside it.

    Files and variables are read once, at the first look-up. Any thread may call any method at any time.
    """

    def __init__(self) -> None:
        # `_reading_lock` is held while files are read, which runs users' code; `_lock` for moments, inside the other.
        self._reading_lock = Lock()
        self._lock = Lock()
        # The thread that reads, and what it has read so far.
        self._reading: tuple[int, Reading] | None = None
        self._config_file: str | None = None
        self._sources: Sources | None = None
        self._calls: list[Layer] = []
        self._merged: Merged | None = None
        self._current: Configuration | None = None

    def configure(self, **settings: Unpack[Settings]) -> None:
        """Add settings on top of those that are there. See `config`."""
        given: dict[str, object] = dict(settings)
        reading = self._reading_here()
        if reading:
            _configure_inside_file(given, reading)
            return
        reads_again = not given or "config_file" in given
        config_file = _path(given.pop("config_file", self._config_file))
        layer = read_layer(given, "wove.config(...)") if given else None
        if reads_again:
            self._read_again(config_file, layer)
        else:
            with self._lock:
                self._add(layer)

    def _read_again(self, config_file: str | None, layer: Layer | None) -> None:
        with self._exclusively():
            sources = self._read(config_file)
            # Only now is it certain that the call succeeds; a failed one changes nothing.
            with self._lock:
                self._config_file, self._sources, self._merged, self._current = config_file, sources, None, None
                self._add(layer)

    def _add(self, layer: Layer | None) -> None:
        if layer is None or (self._calls and _says_the_same(self._calls[-1], layer)):
            # A program that configures before each weave does not collect layers for ever.
            return
        self._calls.append(layer)
        self._current = None
        if self._merged is not None:
            self._merged = merge(self._merged, layer)

    def current(self) -> Configuration:
        """Return what is configured now. Costs next to nothing after the first call.

        Raises:
            ConfigurationError: a configuration file, an environment variable or the sum of all settings is wrong.
        """
        return self._current or self._settle()

    def _settle(self) -> Configuration:
        reading = self._reading_here()
        if reading:
            # The file that is being read asks what it is to decide: it gets what it has said so far, and the calls.
            return configuration_of(_merge_all([*reading.said, *self._calls]))
        with self._exclusively():
            sources = self._sources or self._read(self._config_file)
            with self._lock:
                self._sources = sources
                if self._merged is None:
                    self._merged = _merge_all([*sources.layers, *self._calls])
                if self._current is None:
                    _refuse_misspelled(sources.misspelled, self._merged)
                    self._current = configuration_of(self._merged)
                return self._current

    def _read(self, config_file: str | None) -> Sources:
        reading = Reading()
        self._reading = get_ident(), reading
        try:
            return reading.read(config_file)
        finally:
            self._reading = None

    def _reading_here(self) -> Reading | None:
        """Return the reading that the calling thread is in the middle of: a configuration file made the call."""
        reading = self._reading
        return reading[1] if reading and reading[0] == get_ident() else None

    @contextmanager
    def _exclusively(self) -> Iterator[None]:
        if self._reading_here():
            raise ConfigurationError("A configuration file may call wove.config(...), but nothing that replaces it.")
        if not self._reading_lock.acquire(timeout=_PATIENCE_SECONDS):
            raise ConfigurationError(
                f"Another thread has been reading the configuration for more than {_PATIENCE_SECONDS:g} s. "
                "Does the configuration file import a module that needs the configuration while it is imported?"
            )
        try:
            yield
        finally:
            self._reading_lock.release()

    @property
    def default_environment(self) -> str:
        """The environment of tasks and weaves that name none."""
        return self.current().default_environment

    @property
    def environments(self) -> dict[str, dict[str, Any]]:
        """The definitions of all environments by name; a copy."""
        return {name: copied_definition(given) for name, given in self.current().definitions.items()}

    @property
    def global_defaults(self) -> dict[str, Any]:
        """The options that have a global default; a copy."""
        current = self.current()
        return copied_definition({**current.task_options, **current.weave_options})

    def resolve_environment_name(self, name: str | None = None) -> str:
        """Return the name of the environment that a task or weave with this ``environment=`` runs in.

        Raises:
            UnknownEnvironmentError: no configuration defines it.
        """
        return self.current().environment(name).name

    def resolve_environment_settings(self, name: str | None = None) -> dict[str, Any]:
        """Return all settings that hold in an environment: ``executor``, ``executor_config`` and every option.

        An option comes from the environment's definition, else from the global defaults, else it is the built-in one.

        Raises:
            UnknownEnvironmentError: no configuration defines the environment.
        """
        current = self.current()
        built_in = {name: option.default for name, option in GENERAL_OPTIONS.items()}
        definition = current.environment(name).definition
        return copied_definition({**built_in, **current.task_options, **current.weave_options, **definition})

    def snapshot(self) -> "RuntimeConfig":
        """Return a copy that later changes do not reach; `restore` brings it back.

        Executors, clients and the like in it stay the same objects. It can be pickled if they can.
        """
        self.current()
        return _rebuilt(*self._state())

    def restore(self, snapshot: "RuntimeConfig") -> None:
        """Take over everything from a snapshot, also what files and variables said when it was taken."""
        self._take(*snapshot._state())

    def reset(self) -> None:
        """Forget everything, as at the start of the process: files and variables are read again at the next look-up."""
        self._take(None, None, ())

    def _state(self) -> tuple[str | None, Sources | None, tuple[Layer, ...]]:
        with self._lock:
            return self._config_file, self._sources, tuple(self._calls)

    def _take(self, config_file: str | None, sources: Sources | None, calls: Iterable[Layer]) -> None:
        with self._exclusively(), self._lock:
            self._config_file, self._sources, self._calls = config_file, sources, list(calls)
            self._merged = self._current = None

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuilt, self._state()

    def __repr__(self) -> str:
        # Printing reads no files.
        return f"<RuntimeConfig: {self._current or 'not looked up since the last change'}>"


def _rebuilt(config_file: str | None, sources: Sources | None, calls: Iterable[Layer]) -> RuntimeConfig:
    copy = RuntimeConfig()
    copy._take(config_file, sources, calls)
    return copy


def _configure_inside_file(given: dict[str, object], reading: Reading) -> None:
    if "config_file" in given:
        raise OptionError(f"wove.config(config_file=...) cannot be called by a configuration file ({reading.file}).")
    if given:
        reading.said.append(read_layer(given, f"wove.config(...) in {reading.file}"))


def _path(given: object) -> str | None:
    if given is None:
        return None
    if not isinstance(given, str | PathLike) or not fspath(given):
        raise OptionError(
            f"wove.config(...): config_file must be the path of a .py or .toml file, or None, not {given!r}."
        )
    return absolute(given)


def _merge_all(layers: Iterable[Layer]) -> Merged:
    return reduce(merge, layers, NOTHING)


def _says_the_same(one: Layer, other: Layer) -> bool:
    return same(one.values, other.values) and same(one.environments, other.environments)


def _refuse_misspelled(variables: Mapping[str, str], merged: Merged) -> None:
    if not variables:
        return
    named = {name for given in merged.environments.values() for name in variables_named_in(executor_config(given))}
    for variable, meant in variables.items():
        if variable not in named:
            raise OptionError(
                f"environment variable {variable}: no setting of that name. Did you mean {meant!r}? "
                "If the variable is your own, give it another name."
            )


runtime = RuntimeConfig()


def config(**settings: Unpack[Settings]) -> None:
    """Configure Wove for this process. Calls add up: a later one decides where it says something.

    A value of None removes what earlier calls, variables and files say of it: an option, a key of an environment or of
    its ``executor_config``, a whole environment, or all ``environments``. Naming another ``executor`` for an
    environment drops the ``executor_config`` that was meant for the old one.

    Without arguments it reads the configuration files and environment variables again.

    Args:
        default_environment: the environment of tasks and weaves that name none.
        environments: definitions by name: ``executor`` (a name, or an object with start, send, recv and stop),
            ``executor_config`` (a dict for the executor), and any option of a task or weave.
        config_file: the path of a ``.py`` or ``.toml`` file to read instead of discovering ``wove_config.py`` and
            ``pyproject.toml``; None goes back to discovering them.
        **settings: any option of a task or weave, as a global default: see `wove.options`.

    Raises:
        OptionError: a key is unknown or misspelled, or a value has the wrong type; nothing is changed.
        ConfigurationError: ``config_file``, or a file that is read again, is missing or wrong; nothing is changed.
    """
    runtime.configure(**settings)
