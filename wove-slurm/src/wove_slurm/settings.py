"""The ``executor_config`` of the environment, checked."""

import os
import re
import shlex
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

from wove.errors import ConfigurationError
from wove.integrations.settings import Setting, check_seconds, check_settings, check_text, is_number
from wove_slurm.variables import Variables, check_export

WORKER = "-m wove.backend_worker"
DEFAULT_PREFIX = "wove-"
DEFAULT_POLL_SECONDS = 5.0
DEFAULT_UNSCHEDULABLE_SECONDS = 300.0
NEVER = "never"
# The longest prefix with which a name is still shown whole by most of Slurm's tools, and stays below any limit.
_LONGEST_PREFIX = 64
_PREFIX = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
# https://slurm.schedmd.com/sbatch.html#OPT_time
_TIME = re.compile(r"\d+(:\d{1,2}){0,2}|\d+-\d{1,2}(:\d{1,2}){0,2}|UNLIMITED|INFINITE", re.IGNORECASE)
_MEMORY = re.compile(r"\d+[KMGT]?B?", re.IGNORECASE)
_NODES = re.compile(r"\d+[kKmM]?(-\d+[kKmM]?)?")


@dataclass(frozen=True, slots=True)
class Settings:
    """How tasks are submitted.

    Attributes:
        submit: the project's own function or its import path, in place of ``sbatch``.
        command: how a job starts the worker, in the words of a shell.
        sbatch, squeue, scancel, scontrol, sacct: the programs.
        prefix: how the names of jobs begin.
        options: of ``sbatch``.
        variables: what jobs find in their environment.
        output: a directory for logs that are removed with their jobs, or a pattern of Slurm's; None: a directory of
            Wove's own.
        setup: lines of shell that a job runs before the worker.
        poll_interval: seconds between two questions to the controller.
        unschedulable_after: for how many seconds a job may wait for what it can never get; None: for ever.
    """

    command: str
    sbatch: str = "sbatch"
    squeue: str = "squeue"
    scancel: str = "scancel"
    scontrol: str = "scontrol"
    sacct: str = "sacct"
    submit: Any = None
    prefix: str = DEFAULT_PREFIX
    options: Mapping[str, str] = field(default_factory=dict)
    variables: Variables = field(default_factory=Variables)
    output: str | None = None
    setup: tuple[str, ...] = ()
    poll_interval: float = DEFAULT_POLL_SECONDS
    unschedulable_after: float | None = DEFAULT_UNSCHEDULABLE_SECONDS


def _word(value: object) -> str:
    text = check_text(value)
    # It becomes one word of a command line, and must not be taken for another option.
    if text.startswith("-") or any(letter.isspace() or not letter.isprintable() for letter in text):
        raise ValueError("a word without spaces that does not begin with a dash")
    return text


def _words(value: object) -> str:
    """A word, or a list of words that Slurm takes with commas between them."""
    if isinstance(value, list | tuple) and value:
        return ",".join(_word(each) for each in value)
    return _word(value)


def _count(value: object) -> str:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError("a whole number of at least 1")
    return str(value)


def _nodes(value: object) -> str:
    if isinstance(value, str) and _NODES.fullmatch(value):
        return value
    if isinstance(value, str):
        raise ValueError("a number of nodes or a range of them")
    return _count(value)


def _memory(value: object) -> str:
    if isinstance(value, str) and _MEMORY.fullmatch(value):
        return value
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise ValueError("a number of megabytes, or a text with a unit")
    return str(value)


def _time_limit(value: object) -> str:
    if isinstance(value, timedelta) and value > timedelta(0):
        minutes, rest = divmod(value.total_seconds(), 60)
        return f"{minutes:.0f}:{rest:02.0f}"
    if isinstance(value, str) and _TIME.fullmatch(value):
        return value
    if is_number(value) and value > 0 and isinstance(value, int):
        return str(value)
    raise ValueError("minutes, a timedelta, or a text as sbatch --time takes it")


def _prefix(value: object) -> str:
    text = check_text(value)
    if not _PREFIX.fullmatch(text) or len(text) > _LONGEST_PREFIX:
        raise ValueError(f"at most {_LONGEST_PREFIX} letters, digits, dots, dashes and underscores")
    return text


def _command(value: object) -> str:
    if isinstance(value, list | tuple) and value and all(isinstance(each, str) and each for each in value):
        value = shlex.join(value)
    text = check_text(value)
    if "\n" in text or "\0" in text:
        raise ValueError("one line, or a list of words")
    return text


def _setup(value: object) -> tuple[str, ...]:
    lines = value.splitlines() if isinstance(value, str) else value
    if not isinstance(lines, list | tuple) or not all(isinstance(each, str) and "\0" not in each for each in lines):
        raise ValueError("lines of shell: a text or a list of texts")
    # sbatch refuses scripts with the line ends of DOS.
    return tuple(line for each in lines for line in each.splitlines())


def _output(value: object) -> str:
    text = os.path.expanduser(check_text(value))
    if not text.isprintable() or text.startswith("-"):
        raise ValueError("a directory that ends with a slash, or a file name as sbatch --output takes it")
    return text


def _patience(value: object) -> float | str:
    if value == NEVER:
        return NEVER
    try:
        return check_seconds(value)
    except ValueError:
        raise ValueError(f"a positive number of seconds, or {NEVER!r}") from None


def _submit(value: object) -> object:
    if not callable(value) and not (isinstance(value, str) and ":" in value):
        raise ValueError("a function that takes (payload, frame) and returns a job's id, or its import path")
    return value


# Each key with its check and an example for the message.
_OWN: Mapping[str, Setting] = {
    "submit": Setting(_submit, "'myproject.cluster:submit'"),
    "command": Setting(_command, "'python3.12 -m wove.backend_worker'"),
    "sbatch": Setting(_word, "'/opt/slurm/bin/sbatch'"),
    "scancel": Setting(_word, "'/opt/slurm/bin/scancel'"),
    "job_name_prefix": Setting(_prefix, "'reports-'"),
    "export": Setting(check_export, "['HF_HOME', 'OMP_NUM_THREADS']"),
    "output": Setting(_output, "'/shared/logs/'"),
    "setup": Setting(_setup, "['module load python/3.12', '. /shared/venv/bin/activate']"),
    "poll_interval": Setting(check_seconds, "5.0"),
    "unschedulable_after": Setting(_patience, "600.0"),
}
# What sbatch's users know as its long options: https://slurm.schedmd.com/sbatch.html
_SBATCH: Mapping[str, Setting] = {
    "partition": Setting(_words, "'gpu'"),
    "account": Setting(_word, "'project-17'"),
    "qos": Setting(_word, "'high'"),
    "time_limit": Setting(_time_limit, "'01:30:00'"),
    "nodes": Setting(_nodes, "1"),
    "cpus_per_task": Setting(_count, "4"),
    "mem": Setting(_memory, "'8G'"),
    "gres": Setting(_words, "'gpu:1'"),
    "constraint": Setting(_word, "'rack1&gpu'"),
}
_OPTION_NAMES = {"time_limit": "time", "cpus_per_task": "cpus-per-task"}
_FOR_SBATCH_ALONE = ("command", "job_name_prefix", "export", "setup")


def read_settings(config: Mapping[str, Any], *, name: str = "slurm") -> Settings:
    """Check an ``executor_config``.

    Args:
        config: the keys; those that Wove's core reads are left to it.
        name: the executor's name, for messages.

    Raises:
        ConfigurationError: a key is unknown or wrong; names it and shows an example.
    """
    where = f"executor_config of {name!r}"
    given = check_settings(config, {**_OWN, **_SBATCH}, where=where)
    _check_submit(given, where)
    patience = given.get("unschedulable_after", DEFAULT_UNSCHEDULABLE_SECONDS)
    setup = given.get("setup", ())
    sibling = _siblings_of(given.get("sbatch", "sbatch"))
    return Settings(
        submit=given.get("submit"),
        command=given.get("command") or _default_command(setup),
        sbatch=given.get("sbatch", "sbatch"),
        squeue=sibling("squeue"),
        scancel=given.get("scancel") or sibling("scancel"),
        scontrol=sibling("scontrol"),
        sacct=sibling("sacct"),
        prefix=given.get("job_name_prefix", DEFAULT_PREFIX),
        options={_OPTION_NAMES.get(key, key): given[key] for key in _SBATCH if key in given},
        variables=given.get("export", Variables()),
        output=given.get("output"),
        setup=setup,
        poll_interval=given.get("poll_interval", DEFAULT_POLL_SECONDS),
        unschedulable_after=None if patience == NEVER else patience,
    )


def _check_submit(given: Mapping[str, Any], where: str) -> None:
    if "submit" not in given:
        return
    for key in given:
        if key in _SBATCH or key in _FOR_SBATCH_ALONE:
            raise ConfigurationError(
                f"{where}: {key} is for jobs that Wove hands to sbatch; with 'submit', the project's own function "
                f"decides on it. Leave one of them out."
            )


def _default_command(setup: tuple[str, ...]) -> str:
    # Setup lines choose the interpreter, as a virtual environment does. Without them, the one that runs here is as
    # good as any on a cluster that shares its directories.
    python = "python" if setup else shlex.quote(sys.executable)
    return f"{python} {WORKER}"


def _siblings_of(sbatch: str) -> Callable[[str], str]:
    """Return a function that finds another of Slurm's programs beside sbatch, where that has been given with a path."""
    folder = Path(sbatch).parent if os.sep in sbatch else None
    return lambda program: program if folder is None else str(folder / program)
