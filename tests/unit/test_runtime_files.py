"""Configuration files: which one is found, what it may hold, and when it is read."""

import logging
import os
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import wove
from tests.unit.conftest import write
from wove.runtime import RuntimeConfig


def enter(monkeypatch: pytest.MonkeyPatch, directory: str) -> None:
    Path(directory).mkdir(parents=True, exist_ok=True)
    monkeypatch.chdir(directory)


def test_a_file_defines_settings_by_their_names(configuration: RuntimeConfig) -> None:
    write(
        "wove_config.py",
        """
import os
default_environment = "reports"
environments = {"reports": {"executor": "stdio", "executor_config": {"processes": 2}}}
retries = 2
def on_done(result): ...
anything_else = 5
""",
    )
    assert configuration.resolve_environment_name(None) == "reports"
    assert configuration.environments["reports"]["executor_config"] == {"processes": 2}
    assert configuration.global_defaults["retries"] == 2
    assert callable(configuration.global_defaults["on_done"])


def test_a_file_defines_settings_by_the_dict_wove_config_alone(configuration: RuntimeConfig) -> None:
    write("wove_config.py", "timeout = 7\nWOVE_CONFIG = {'environments': {'a': {'timeout': timeout}}, 'retries': 1}")
    assert configuration.global_defaults == {"retries": 1}
    assert configuration.environments["a"]["timeout"] == 7


def test_a_file_is_found_upwards_from_the_working_directory(
    configuration: RuntimeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    write("wove_config.py", "retries = 1")
    enter(monkeypatch, "a/b/c")
    assert configuration.global_defaults == {"retries": 1}


def test_the_nearest_file_counts_alone(configuration: RuntimeConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    write("wove_config.py", "retries = 1\ndebug = True")
    write("a/wove_config.py", "retries = 2")
    enter(monkeypatch, "a/b")
    assert configuration.global_defaults == {"retries": 2}


def test_a_directory_of_the_file_s_name_is_passed_by(
    configuration: RuntimeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    write("wove_config.py", "retries = 1")
    enter(monkeypatch, "a/wove_config.py")
    assert configuration.global_defaults == {"retries": 1}


def test_the_project_file_s_table_counts(configuration: RuntimeConfig) -> None:
    write(
        "pyproject.toml",
        """
[tool.wove]
default_environment = "reports"
timeout = 30
[tool.wove.environments.reports]
executor = "stdio"
executor_config = {processes = 2}
error_mode = "return"
""",
    )
    assert configuration.default_environment == "reports"
    assert configuration.global_defaults == {"timeout": 30}
    assert configuration.environments["reports"] == {
        "executor": "stdio",
        "executor_config": {"processes": 2},
        "error_mode": "return",
    }


def test_project_files_without_the_table_are_passed_by(
    configuration: RuntimeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    write("pyproject.toml", "[tool.wove]\nretries = 1")
    write("a/pyproject.toml", "[project]\ndependencies = ['wove']")
    write("a/b/pyproject.toml", "this is [not] TOML, and none of Wo-ve's business")
    enter(monkeypatch, "a/b")
    assert configuration.global_defaults == {"retries": 1}


def test_the_python_file_decides_before_the_project_file_and_calls_before_both(
    configuration: RuntimeConfig,
) -> None:
    write(
        "pyproject.toml", "[tool.wove]\nretries = 1\ntimeout = 1\ndebug = true\n[tool.wove.environments.a]\nretries = 1"
    )
    write("wove_config.py", "retries = 2\ntimeout = 2\nenvironments = {'a': {'timeout': 2}}")
    wove.config(retries=3, environments={"a": {"debug": False}})
    assert configuration.global_defaults == {"retries": 3, "timeout": 2, "debug": True}
    assert configuration.environments["a"] == {
        "executor": "local",
        "executor_config": {},
        "retries": 1,
        "timeout": 2,
        "debug": False,
    }


def test_none_removes_what_a_file_says(configuration: RuntimeConfig) -> None:
    write("pyproject.toml", "[tool.wove]\nretries = 1\n[tool.wove.environments.a]\nexecutor = 'stdio'")
    write("wove_config.py", "retries = None\nenvironments = {'a': None}")
    assert configuration.global_defaults == {}
    assert list(configuration.environments) == ["default"]


def test_files_are_read_once_at_the_first_look_up(
    configuration: RuntimeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    write("wove_config.py", "retries = 1")
    wove.config(debug=True)
    write("wove_config.py", "retries = 2")
    assert configuration.global_defaults == {"retries": 2, "debug": True}
    write("wove_config.py", "retries = 3")
    enter(monkeypatch, "elsewhere")
    wove.config(debug=False)
    assert configuration.global_defaults == {"retries": 2, "debug": False}


def test_config_without_arguments_reads_files_again_and_keeps_calls(configuration: RuntimeConfig) -> None:
    write("wove_config.py", "retries = 1")
    wove.config(debug=True)
    assert configuration.global_defaults == {"retries": 1, "debug": True}
    write("wove_config.py", "retries = 2")
    wove.config()
    assert configuration.global_defaults == {"retries": 2, "debug": True}


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("settings/prod.py", "retries = 9"),
        ("settings/prod.toml", "retries = 9"),
        ("settings/tool.toml", "[tool.wove]\nretries = 9"),
        ("settings/pyproject.toml", "[project]\nname = 'x'\n[tool.wove]\nretries = 9"),
    ],
)
def test_a_named_file_takes_the_place_of_discovered_ones(configuration: RuntimeConfig, name: str, text: str) -> None:
    write("wove_config.py", "timeout = 1")
    write("pyproject.toml", "[tool.wove]\ndebug = true")
    write(name, text)
    wove.config(config_file=name)
    assert configuration.global_defaults == {"retries": 9}
    wove.config(config_file=Path(name))
    assert configuration.global_defaults == {"retries": 9}
    wove.config(config_file=None)
    assert configuration.global_defaults == {"timeout": 1, "debug": True}


def test_a_named_file_is_the_one_that_is_read_again(
    configuration: RuntimeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    write("own.toml", "retries = 1")
    wove.config(config_file="own.toml", timeout=2.0)
    write("own.toml", "retries = 2\ntimeout = 1")
    enter(monkeypatch, "elsewhere")
    wove.config()
    assert configuration.global_defaults == {"retries": 2, "timeout": 2.0}


def test_a_named_file_may_lie_in_the_home_directory(
    configuration: RuntimeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    write("home/own.toml", "retries = 1")
    wove.config(config_file="~/own.toml")
    assert configuration.global_defaults == {"retries": 1}


def test_a_file_may_call_wove_config_itself(configuration: RuntimeConfig) -> None:
    write("pyproject.toml", "[tool.wove]\nretries = 1")
    write(
        "wove_config.py",
        """
import wove
wove.config()
wove.config(retries=2, timeout=2, environments={"a": {"executor": "stdio"}})
wove.config(environments={"a": {"retries": 5}})
timeout = 3
""",
    )
    wove.config(environments={"a": {"debug": True}})
    assert configuration.global_defaults == {"retries": 2, "timeout": 3}
    assert configuration.environments["a"] == {"executor": "stdio", "executor_config": {}, "retries": 5, "debug": True}


def test_what_a_file_said_by_calls_is_forgotten_when_it_is_read_again(configuration: RuntimeConfig) -> None:
    write("wove_config.py", "import wove\nwove.config(retries=2)")
    assert configuration.global_defaults == {"retries": 2}
    write("wove_config.py", "import wove\nwove.config(timeout=2)")
    wove.config()
    assert configuration.global_defaults == {"timeout": 2}


def test_a_file_that_asks_gets_what_counts_so_far(configuration: RuntimeConfig) -> None:
    write(
        "wove_config.py",
        """
import wove
from wove.runtime import runtime
wove.config(retries=2)
timeout = runtime.global_defaults["retries"] * 10
debug = runtime.resolve_environment_settings("called")["debug"]
""",
    )
    wove.config(environments={"called": {"debug": True}})
    assert configuration.global_defaults == {"retries": 2, "timeout": 20, "debug": True}


def test_a_file_may_define_dataclasses_and_leaves_no_module_behind(configuration: RuntimeConfig) -> None:
    write("wove_config.py", "import dataclasses\n@dataclasses.dataclass\nclass Own:\n    x: 'int'\nretries = Own(3).x")
    assert configuration.global_defaults == {"retries": 3}
    assert "wove_config" not in sys.modules


def test_a_module_of_the_file_s_name_is_left_alone(
    configuration: RuntimeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = type(sys)("wove_config")
    monkeypatch.setitem(sys.modules, "wove_config", other)
    write("wove_config.py", "retries = 3")
    assert configuration.global_defaults == {"retries": 3}
    assert sys.modules["wove_config"] is other


def test_functions_of_a_file_work_after_it_has_been_read(configuration: RuntimeConfig) -> None:
    write("wove_config.py", "prefix = 'job-'\ndef delivery_idempotency_key(name):\n    return prefix + name")
    assert configuration.global_defaults["delivery_idempotency_key"]("x") == "job-x"


def test_a_working_directory_that_is_gone_has_no_files(
    configuration: RuntimeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    write("wove_config.py", "retries = 1")
    enter(monkeypatch, "gone")
    Path.cwd().rmdir()
    assert configuration.global_defaults == {}


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root can give a file away")
@pytest.mark.parametrize(("mode", "owner", "read"), [(0o1777, 65534, False), (0o755, 65534, True), (0o1777, 0, True)])
def test_another_user_s_file_in_a_directory_for_everybody_is_ignored(
    configuration: RuntimeConfig,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    mode: int,
    owner: int,
    read: bool,
) -> None:
    path = write("shared/wove_config.py", "retries = 1")
    path.parent.chmod(mode)
    os.chown(path, owner, owner)
    enter(monkeypatch, "shared/mine")
    with caplog.at_level(logging.WARNING, "wove"):
        assert configuration.global_defaults == ({"retries": 1} if read else {})
    assert ("belongs to another user" in caplog.text) is not read


def test_threads_that_need_the_configuration_first_read_the_file_once(configuration: RuntimeConfig) -> None:
    write(
        "wove_config.py",
        "with open('count', 'a') as file:\n    file.write('x')\nretries = 1",
    )
    start = threading.Barrier(8)

    def look_up(_: int) -> object:
        start.wait()
        return configuration.current()

    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(look_up, range(8)))
    assert all(one is found[0] for one in found)
    assert Path("count").read_text() == "x"


def test_a_call_does_not_wait_for_a_file_that_another_thread_reads(configuration: RuntimeConfig) -> None:
    events = {"started": threading.Event(), "go": threading.Event()}
    sys.modules["wove_test_events"] = type(sys)("wove_test_events")
    vars(sys.modules["wove_test_events"]).update(events)
    write(
        "wove_config.py",
        "import wove_test_events as events\nevents.started.set()\nassert events.go.wait(30)\nretries = 1",
    )
    try:
        with ThreadPoolExecutor(1) as pool:
            reading = pool.submit(configuration.current)
            assert events["started"].wait(30)
            wove.config(timeout=2.0)
            events["go"].set()
            assert reading.result().task_options == {"retries": 1, "timeout": 2.0}
    finally:
        del sys.modules["wove_test_events"]
