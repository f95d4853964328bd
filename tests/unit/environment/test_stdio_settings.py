"""The stdio executor's configuration, before anything is started."""

from pathlib import Path

import pytest

from wove.backend.task_threads import DEFAULT_THREADS
from wove.environment.stdio_settings import read_settings
from wove.errors import ConfigurationError


def test_nothing_is_needed() -> None:
    settings = read_settings("jobs", {})
    assert settings.command.argv is None
    assert (settings.processes, settings.threads) == (1, DEFAULT_THREADS)


def test_equal_settings_are_equal_however_they_are_written(tmp_path: Path) -> None:
    one = read_settings("a", {"command": "run 'the worker'", "env": {"B": "2", "A": "1"}, "cwd": str(tmp_path)})
    other = read_settings("b", {"command": ["run", "the worker"], "env": {"A": "1", "B": "2"}, "cwd": tmp_path})
    assert one == other
    assert hash(one) == hash(other)


def test_a_foreign_command_is_not_limited_unless_it_is_asked_for() -> None:
    assert read_settings("jobs", {"command": "worker"}).threads is None
    assert read_settings("jobs", {"command": "worker", "threads": 3}).threads == 3


def test_a_misspelled_key_names_the_right_one() -> None:
    with pytest.raises(ConfigurationError, match=r"Environment 'jobs'.*'comand'.*Did you mean 'command'\?"):
        read_settings("jobs", {"comand": "worker"})


@pytest.mark.parametrize("command", ["", [], [""], 3, ["a", 1], "a 'b", ["a\0b"], {"a": "b"}, b"worker"])
def test_a_command_must_be_a_program_with_arguments(command: object) -> None:
    with pytest.raises(ConfigurationError, match=r"Environment 'jobs'.*\['command'\]"):
        read_settings("jobs", {"command": command})


@pytest.mark.parametrize("key", ["processes", "threads"])
@pytest.mark.parametrize("count", [0, -1, 1.5, "2", True])
def test_numbers_must_be_whole_and_positive(key: str, count: object) -> None:
    with pytest.raises(ConfigurationError, match=rf"Environment 'jobs'.*\['{key}'\].*at least 1"):
        read_settings("jobs", {key: count})


@pytest.mark.parametrize("env", [["A=1"], {"A": 1}, {1: "a"}, {"": "a"}, {"A=B": "c"}, {"A": "\0"}])
def test_variables_must_be_strings(env: object) -> None:
    with pytest.raises(ConfigurationError, match=r"Environment 'jobs'.*\['env'\]"):
        read_settings("jobs", {"env": env})


def test_the_values_of_variables_appear_nowhere() -> None:
    settings = read_settings("jobs", {"env": {"TOKEN": "secret-value"}})
    assert "secret-value" not in repr(settings)
    with pytest.raises(ConfigurationError) as raised:
        read_settings("jobs", {"env": {"TOKEN": "secret\0value"}})
    assert "secret" not in str(raised.value)


@pytest.mark.parametrize("cwd", ["/no/such/directory", 3, __file__])
def test_the_directory_must_exist(cwd: object) -> None:
    with pytest.raises(ConfigurationError, match=r"Environment 'jobs'.*\['cwd'\]"):
        read_settings("jobs", {"cwd": cwd})
