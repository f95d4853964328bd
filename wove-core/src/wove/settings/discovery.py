"""Configuration files: where they are found, and what they say.

Imported at the first lookup of a configuration. It only reads: what the settings may be is `definitions`' concern.
"""

import os
import sys
from collections.abc import Collection, Iterator, Mapping
from types import FunctionType, ModuleType

from wove.errors import ConfigurationError, OptionError

PYTHON_FILE = "wove_config.py"
PROJECT_FILE = "pyproject.toml"
CONFIG_NAME = "WOVE_CONFIG"


def near_miss(name: str, known: Collection[str]) -> str | None:
    """Return the known name that a name is almost certainly a misspelling of, or None.

    Stricter than the suggestion in an error message: where users have names of their own, those are to pass.
    """
    from difflib import get_close_matches

    nearest = get_close_matches(name, known, n=1, cutoff=0.88)
    return nearest[0] if nearest else None


def find_python_file(start: str) -> str | None:
    """Return the path of the nearest ``wove_config.py``, in a directory or above it."""
    return next(_upwards(start, PYTHON_FILE), None)


def find_project_table(start: str) -> tuple[str, dict[str, object]] | None:
    """Return path and table of the nearest ``pyproject.toml``, in a directory or above it, that has ``[tool.wove]``.

    Raises:
        ConfigurationError: a file on the way that mentions Wove is not valid TOML, or its ``tool.wove`` is no table.
    """
    for path in _upwards(start, PROJECT_FILE):
        content = _read(path)
        # Most project files say nothing to Wove: those need no parser, and their mistakes are not ours to report.
        if b"wove" in content:
            table = _project_table(_parse_toml(content, path), path)
            if table is not None:
                return path, table
    return None


def _upwards(start: str, name: str) -> Iterator[str]:
    directory, above = start, os.path.dirname(start)
    while True:
        path = os.path.join(directory, name)
        if os.access(path, os.R_OK) and os.path.isfile(path) and not _may_be_planted(path, directory):
            yield path
        if above == directory:
            return
        directory, above = above, os.path.dirname(above)


def _may_be_planted(path: str, directory: str) -> bool:
    """Whether a file is another user's, and lies where anybody may put one, like ``/tmp``. What is found runs code."""
    if not hasattr(os, "geteuid"):
        return False
    owner, mode = os.stat(path).st_uid, os.stat(directory).st_mode
    if not mode & 0o002 or owner in (os.geteuid(), 0):
        return False
    from logging import getLogger

    getLogger("wove").warning(
        "%s is ignored: it belongs to another user and lies in a directory that anybody may write to. "
        "If you trust it, name it with wove.config(config_file=...) or WOVE_CONFIG_FILE.",
        path,
    )
    return True


def read_toml_file(path: str) -> dict[str, object]:
    """Return the settings of a TOML file that was named: its table ``[tool.wove]`` if it has one, else the whole file.

    Raises:
        ConfigurationError: the file cannot be read, is not valid TOML, or is a ``pyproject.toml`` without the table.
    """
    document = _parse_toml(_read(path), path)
    table = _project_table(document, path)
    if table is None and os.path.basename(path) == PROJECT_FILE:
        raise ConfigurationError(f"{path} has no table [tool.wove]. Add it, or name another file.")
    return document if table is None else table


def _read(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be read: {error.strerror}.") from error


def _parse_toml(content: bytes, path: str) -> dict[str, object]:
    import tomllib

    try:
        return tomllib.loads(content.decode())
    except ValueError as error:
        raise ConfigurationError(f"{path} is not valid TOML: {error}.") from error


def _project_table(document: Mapping[str, object], path: str) -> dict[str, object] | None:
    tool = document.get("tool")
    if not isinstance(tool, dict) or "wove" not in tool:
        return None
    table = tool["wove"]
    if not isinstance(table, dict):
        raise ConfigurationError(f"{path}: tool.wove must be a table, not {type(table).__name__}.")
    return table


def run_python_file(path: str, keys: Collection[str]) -> dict[str, object]:
    """Run a Python file and return the settings that it defines: the dict ``WOVE_CONFIG``, else the names among `keys`.

    The file is run anew each time and does not stay in ``sys.modules``, so that a function from it is pickled by value.

    Raises:
        ConfigurationError: the file cannot be read or raised an exception, which is the cause.
        OptionError: ``WOVE_CONFIG`` is no dict, or a name is a misspelled setting.
    """
    content = _read(path)
    name = os.path.splitext(os.path.basename(path))[0]
    module = ModuleType(name)
    module.__file__ = path
    shadowed = sys.modules.get(name)
    # Dataclasses and the like look their module up while it runs.
    sys.modules[name] = module
    try:
        exec(compile(content, path, "exec", dont_inherit=True), vars(module))
    except (Exception, SystemExit) as error:
        raise ConfigurationError(f"{path}{_line_of(error, path)} raised {type(error).__name__}: {error}") from error
    finally:
        if shadowed is None:
            sys.modules.pop(name, None)
        else:
            sys.modules[name] = shadowed
    return _settings_of(vars(module), path, keys)


def _line_of(error: BaseException, path: str) -> str:
    line = error.lineno if isinstance(error, SyntaxError) and error.filename == path else None
    step = error.__traceback__
    while step is not None:
        if step.tb_frame.f_code.co_filename == path:
            line = step.tb_lineno
        step = step.tb_next
    return f", line {line}," if line else ""


def _settings_of(namespace: Mapping[str, object], path: str, keys: Collection[str]) -> dict[str, object]:
    if CONFIG_NAME in namespace:
        config = namespace[CONFIG_NAME]
        if not isinstance(config, Mapping):
            raise OptionError(f"{path}: {CONFIG_NAME} must be a dict, not {type(config).__name__}.")
        return dict(config)
    for name, value in namespace.items():
        own = name.startswith("_") or name in keys or isinstance(value, ModuleType | FunctionType | type)
        nearest = None if own else near_miss(name, (*keys, CONFIG_NAME))
        if nearest:
            raise OptionError(
                f"{path}: no setting named {name!r}. Did you mean {nearest!r}? "
                f"If the name is your own, begin it with an underscore."
            )
    return {key: namespace[key] for key in keys if key in namespace}
