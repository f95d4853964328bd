"""`WOVE_*` environment variables: which are settings, how they are read, which are left alone."""

from pathlib import Path

import pytest

import wove
from wove.errors import ConfigurationError, OptionError
from wove.runtime import RuntimeConfig


@pytest.mark.parametrize(
    ("variable", "text", "expected"),
    [
        ("WOVE_TIMEOUT", "30", {"timeout": 30}),
        ("WOVE_TIMEOUT", " 1.5 ", {"timeout": 1.5}),
        ("WOVE_TIMEOUT", "1", {"timeout": 1}),
        ("WOVE_TIMEOUT", "", {}),
        ("WOVE_TIMEOUT", "none", {}),
        ("WOVE_RETRIES", "0", {"retries": 0}),
        ("WOVE_MAX_WORKERS", "4", {"max_workers": 4}),
        ("WOVE_DEBUG", "1", {"debug": True}),
        ("WOVE_DEBUG", "off", {"debug": False}),
        ("WOVE_DEBUG", "True", {"debug": True}),
        ("WOVE_ERROR_MODE", "return", {"error_mode": "return"}),
        ("WOVE_DELIVERY_IDEMPOTENCY_KEY", "1", {"delivery_idempotency_key": "1"}),
        ("WOVE_DELIVERY_CANCEL_MODE", "require_ack", {"delivery_cancel_mode": "require_ack"}),
        ("WOVE_DELIVERY_HEARTBEAT_SECONDS", "5", {"delivery_heartbeat_seconds": 5}),
    ],
)
def test_a_variable_is_read_as_what_its_option_takes(
    configuration: RuntimeConfig, monkeypatch: pytest.MonkeyPatch, variable: str, text: str, expected: dict[str, object]
) -> None:
    monkeypatch.setenv(variable, text)
    found = configuration.global_defaults
    assert found == expected
    assert {name: type(value) for name, value in found.items()} == {k: type(value) for k, value in expected.items()}


def test_a_variable_chooses_the_default_environment(
    configuration: RuntimeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WOVE_DEFAULT_ENVIRONMENT", "reports")
    wove.config(environments={"reports": {"executor": "stdio"}})
    assert configuration.resolve_environment_name(None) == "reports"


def test_variables_decide_before_files_and_after_calls(
    configuration: RuntimeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("wove_config.py").write_text("retries = 1\ntimeout = 1\nmax_workers = 1\nmax_pending = 1")
    monkeypatch.setenv("WOVE_RETRIES", "2")
    monkeypatch.setenv("WOVE_TIMEOUT", "2")
    monkeypatch.setenv("WOVE_MAX_PENDING", "none")
    wove.config(retries=3)
    assert configuration.global_defaults == {"retries": 3, "timeout": 2, "max_workers": 1}


def test_variables_are_read_again_by_config_without_arguments(
    configuration: RuntimeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WOVE_RETRIES", "1")
    assert configuration.global_defaults == {"retries": 1}
    monkeypatch.setenv("WOVE_RETRIES", "2")
    assert configuration.global_defaults == {"retries": 1}
    wove.config()
    assert configuration.global_defaults == {"retries": 2}


def test_a_variable_names_the_configuration_file(
    configuration: RuntimeConfig, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    Path("wove_config.py").write_text("retries = 1")
    Path("own.toml").write_text("retries = 2")
    Path("other.toml").write_text("retries = 3")
    monkeypatch.setenv("WOVE_CONFIG_FILE", "own.toml")
    assert configuration.global_defaults == {"retries": 2}
    wove.config(config_file="other.toml")
    assert configuration.global_defaults == {"retries": 3}
    monkeypatch.setenv("WOVE_CONFIG_FILE", "missing.toml")
    with pytest.raises(ConfigurationError) as caught:
        wove.config(config_file=None)
    assert str(caught.value) == f"environment variable WOVE_CONFIG_FILE: there is no file {tmp_path / 'missing.toml'}."


@pytest.mark.parametrize(
    ("variable", "text", "told"),
    [
        ("WOVE_TIMEOUT", "30s", "timeout must be a positive, finite number of seconds, or None, not '30s'."),
        ("WOVE_TIMEOUT", "nan", "timeout must be a positive, finite number of seconds, or None, not 'nan'."),
        ("WOVE_RETRIES", "1.5", "retries must be a whole number of at least 0, not '1.5'."),
        ("WOVE_DEBUG", "2", "debug must be True or False, not '2'."),
        ("WOVE_ON_DONE", "print", "on_done must be a callable of one argument, or None, not 'print'."),
        ("WOVE_TIMEOUTS", "3", "no setting of that name. Did you mean 'WOVE_TIMEOUT'?"),
        ("WOVE_MAX_WORKER", "3", "no setting of that name. Did you mean 'WOVE_MAX_WORKERS'?"),
        ("WOVE_DEFAULT_ENVIROMENT", "x", "no setting of that name. Did you mean 'WOVE_DEFAULT_ENVIRONMENT'?"),
        ("WOVE_CONFIGFILE", "x.py", "no setting of that name. Did you mean 'WOVE_CONFIG_FILE'?"),
    ],
)
def test_a_mistake_is_named_with_the_variable(
    configuration: RuntimeConfig, monkeypatch: pytest.MonkeyPatch, variable: str, text: str, told: str
) -> None:
    monkeypatch.setenv(variable, text)
    with pytest.raises(OptionError) as caught:
        configuration.current()
    assert str(caught.value).startswith(f"environment variable {variable}: {told}")


def test_the_origin_of_an_unknown_default_environment_is_told(
    configuration: RuntimeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WOVE_DEFAULT_ENVIRONMENT", "x")
    expected = r"^default_environment \(environment variable WOVE_DEFAULT_ENVIRONMENT\): no environment named 'x'"
    with pytest.raises(NameError, match=expected):
        configuration.resolve_environment_name(None)


@pytest.mark.parametrize(
    "variable",
    [
        "WOVE_BACKEND_PAYLOAD",
        "WOVE_WORKER_SECRET",
        "WOVE_SECRET",
        "WOVE_HOME",
        "WOVE_PORT",
        "WOVE_ENVIRONMENT",
        "XWOVE_TIMEOUTS",
    ],
)
def test_variables_that_are_no_setting_are_left_alone(
    configuration: RuntimeConfig, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    monkeypatch.setenv(variable, "something")
    assert configuration.global_defaults == {}


@pytest.mark.parametrize(
    "told",
    [
        {"security": "env:WOVE_WORKER"},
        {"security": {"type": "signed", "secret_env": "WOVE_WORKER"}},
        {"all": ["env:WOVE_WORKER"]},
    ],
)
def test_a_variable_that_an_environment_names_as_a_secret_is_no_misspelling(
    configuration: RuntimeConfig, monkeypatch: pytest.MonkeyPatch, told: dict[str, object]
) -> None:
    monkeypatch.setenv("WOVE_WORKER", "hunter2")
    wove.config(environments={"a": {"executor": "http", "executor_config": told}})
    assert configuration.global_defaults == {}
    wove.config(environments={"a": {"executor": None}})
    with pytest.raises(OptionError, match="Did you mean 'WOVE_WORKERS'") as caught:
        configuration.current()
    assert "hunter2" not in str(caught.value)
