"""Configuration files with mistakes, and files of no use: what is said about each, and what is no mistake."""

from pathlib import Path

import pytest

import wove
from tests.unit.conftest import write
from wove.errors import ConfigurationError, OptionError
from wove.runtime import RuntimeConfig


@pytest.mark.parametrize("call", ["wove.config(config_file='x.toml')", "wove.runtime.runtime.reset()"])
def test_a_file_cannot_replace_the_configuration_that_it_is_part_of(configuration: RuntimeConfig, call: str) -> None:
    write("wove_config.py", f"import wove, wove.runtime\n{call}")
    with pytest.raises(ConfigurationError, match=r"wove_config.py, line 2, raised .*configuration file"):
        configuration.current()


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("a = 1\n1 / 0", ", line 2, raised ZeroDivisionError: division by zero"),
        ("a = (", ", line 1, raised SyntaxError"),
        ("def load():\n    raise KeyError('REDIS_URL')\nload()", ", line 2, raised KeyError: 'REDIS_URL'"),
        ("import sys\nsys.exit('no')", ", line 2, raised SystemExit: no"),
        ("import json\njson.loads('{')", ", line 2, raised JSONDecodeError"),
        ("import wove\nwove.config(retrys=1)", ", line 2, raised OptionError: wove.config(...) in "),
    ],
)
def test_a_file_that_raises_is_named_with_the_line(configuration: RuntimeConfig, text: str, told: str) -> None:
    path = write("wove_config.py", text)
    with pytest.raises(ConfigurationError) as caught:
        configuration.current()
    assert str(caught.value).startswith(f"{path.absolute()}{told}")
    assert caught.value.__cause__ is not None


def test_a_file_that_raised_is_read_again_by_the_next_look_up(configuration: RuntimeConfig) -> None:
    write("wove_config.py", "1 / 0")
    with pytest.raises(ConfigurationError):
        configuration.current()
    write("wove_config.py", "retries = 1")
    assert configuration.global_defaults == {"retries": 1}


def test_a_file_that_is_wrong_when_read_again_changes_nothing(configuration: RuntimeConfig) -> None:
    write("wove_config.py", "retries = 1")
    before = configuration.current()
    write("wove_config.py", "1 / 0")
    with pytest.raises(ConfigurationError):
        wove.config()
    with pytest.raises(ConfigurationError):
        wove.config(config_file="missing.toml", timeout=3.0)
    assert configuration.current() is before


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("enviroments = {}", "no setting named 'enviroments'. Did you mean 'environments'?"),
        ("environment = 'x'", "no setting named 'environment'. Did you mean 'environments'?"),
        ("WOVE_CONFG = {}", "no setting named 'WOVE_CONFG'. Did you mean 'WOVE_CONFIG'?"),
        ("WOVE_CONFIG = []", "WOVE_CONFIG must be a dict, not list."),
        ("WOVE_CONFIG = {'retrys': 1}", "no setting named 'retrys'. Did you mean 'retries'?"),
        ("WOVE_CONFIG = {1: 2}", "no setting named 1. Settings: "),
        ("WOVE_CONFIG = {'config_file': 'x'}", "config_file cannot stand in a file"),
        ("retries = '3'", "retries must be a whole number of at least 0, not '3'."),
        (
            "environments = {'a': {'timout': 1}}",
            ", environment 'a': no setting named 'timout'. Did you mean 'timeout'?",
        ),
    ],
)
def test_a_mistake_in_a_file_is_named_with_the_file(configuration: RuntimeConfig, text: str, told: str) -> None:
    path = write("wove_config.py", text)
    with pytest.raises(OptionError) as caught:
        configuration.current()
    assert str(caught.value).startswith(str(path.absolute()))
    assert told in str(caught.value)


def test_names_of_the_file_s_own_are_let_pass(configuration: RuntimeConfig) -> None:
    write(
        "wove_config.py",
        "_retries = 1\nTIMEOUT = 5\nhosts = []\nimport json as worker\ndef timeouts(): ...\nclass debugs: ...",
    )
    assert configuration.global_defaults == {}


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[tool.wove]\nretrys = 1", " [tool.wove]: no setting named 'retrys'. Did you mean 'retries'?"),
        ("[tool.wove]\nretries = '1'", " [tool.wove]: retries must be a whole number"),
        ("[tool.wove\n", " is not valid TOML: "),
        ("[tool]\nwove = 1", ": tool.wove must be a table, not int."),
        ("[tool.wove.environments.a]\nexecuter = 'x'", " [tool.wove], environment 'a': no setting named 'executer'. "),
    ],
)
def test_a_mistake_in_the_project_file_is_named_with_it(configuration: RuntimeConfig, text: str, told: str) -> None:
    path = write("pyproject.toml", text)
    with pytest.raises(ConfigurationError) as caught:
        configuration.current()
    assert str(caught.value).startswith(f"{path.absolute()}{told}")


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("missing.toml", "wove.config(config_file=...): there is no file {path}."),
        ("folder", "wove.config(config_file=...): there is no file {path}."),
        ("x.yaml", "wove.config(config_file=...): a configuration file is a .py or a .toml file; {path} is neither."),
        ("bad.toml", "{path} is not valid TOML: "),
        ("binary.toml", "{path} is not valid TOML: "),
        ("other/pyproject.toml", "{path} has no table [tool.wove]. Add it, or name another file."),
    ],
)
def test_a_named_file_that_is_of_no_use_is_an_error_at_once(
    configuration: RuntimeConfig, tmp_path: Path, name: str, told: str
) -> None:
    write("x.yaml", "")
    write("bad.toml", "=")
    Path("binary.toml").write_bytes(b"\xff\xfe")
    write("other/pyproject.toml", "[project]\nname = 'x'")
    Path("folder").mkdir()
    with pytest.raises(ConfigurationError) as caught:
        wove.config(config_file=name)
    assert str(caught.value).startswith(told.format(path=tmp_path / name))


@pytest.mark.parametrize("given", [3, "", b"x.toml"])
def test_a_config_file_that_is_no_path_is_an_error(configuration: RuntimeConfig, given: object) -> None:
    with pytest.raises(OptionError, match=r"config_file must be the path of a \.py or \.toml file, or None, not"):
        wove.config(config_file=given)  # type: ignore[arg-type]


def test_waiting_for_a_file_that_never_ends_is_an_error(
    configuration: RuntimeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("wove.runtime._PATIENCE_SECONDS", 0.05)
    write(
        "wove_config.py",
        """
import threading
from wove.runtime import runtime
seen = []
def ask():
    try:
        runtime.current()
    except Exception as error:
        seen.append(str(error))
thread = threading.Thread(target=ask)
thread.start()
thread.join()
assert len(seen) == 1, seen
assert "Another thread has been reading the configuration for more than 0.05 s" in seen[0], seen
retries = 6
""",
    )
    assert configuration.global_defaults == {"retries": 6}
