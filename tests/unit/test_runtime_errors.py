"""What `wove.config` says to wrong arguments: the place, the key, what would be right, and never a secret."""

from collections.abc import Mapping
from typing import Any

import pytest

import wove
from wove.errors import ConfigurationError, OptionError
from wove.options import TASK_OPTIONS, WEAVE_OPTIONS
from wove.runtime import RuntimeConfig


class Executor:
    def start(self) -> None: ...
    def send(self) -> None: ...
    def recv(self) -> None: ...
    def stop(self) -> None: ...


class Adapter:
    def start(self) -> None: ...
    def submit(self) -> None: ...


class HalfAnExecutor:
    send = recv = stop = None

    def start(self) -> None: ...


EXECUTOR = (
    "executor must be a name like 'local', 'stdio' or 'celery', or an object with start, send, recv and stop, not "
)
IN_CALL = "wove.config(...): "
IN_REPORTS = "wove.config(...), environment 'reports': "


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"retrys": 1}, IN_CALL + "no setting named 'retrys'. Did you mean 'retries'? Settings: "),
        ({"enviroments": {}}, IN_CALL + "no setting named 'enviroments'. Did you mean 'environments'? Settings: "),
        ({"zzz": 1}, IN_CALL + "no setting named 'zzz'. Settings: "),
        ({"environment": "x"}, IN_CALL + "environment is an option of a task or a weave. Use default_environment "),
        ({"executor": "stdio"}, IN_CALL + "no setting named 'executor'. "),
        (
            {"default_environment": 3},
            IN_CALL + "default_environment must be the name of an environment, or None, not 3.",
        ),
        (
            {"default_environment": ""},
            IN_CALL + "default_environment must be the name of an environment, or None, not ''.",
        ),
        ({"timeout": "3"}, IN_CALL + "timeout must be a positive, finite number of seconds, or None, not '3'."),
        ({"retries": True}, IN_CALL + "retries must be a whole number of at least 0, not True."),
        ({"error_mode": "rais"}, IN_CALL + "error_mode must be 'raise', 'return' or 'exit', not 'rais'."),
        ({"environments": ["reports"]}, IN_CALL + "environments must be a dict of definitions by name, like "),
        (
            {"environments": {"": {}}},
            IN_CALL + "the name of an environment must be a string that is not empty, not ''.",
        ),
        ({"environments": {7: {}}}, IN_CALL + "the name of an environment must be a string that is not empty, not 7."),
    ],
)
def test_a_wrong_argument_is_named(configuration: RuntimeConfig, settings: Mapping[str, Any], message: str) -> None:
    with pytest.raises(OptionError) as caught:
        wove.config(**settings)
    assert str(caught.value).startswith(message)
    assert configuration.global_defaults == {}


@pytest.mark.parametrize(
    ("definition", "message"),
    [
        ("celery", "the definition must be a dict like {'executor': 'stdio', 'retries': 2}, or None, not str."),
        ({"executer": "x"}, "no setting named 'executer'. Did you mean 'executor'? What the executor itself is told "),
        (
            {"broker_url": "x"},
            "no setting named 'broker_url'. What the executor itself is told stands in executor_config. ",
        ),
        (
            {"environment": "x"},
            "environment has no meaning here: an environment cannot send its tasks on to another one.",
        ),
        ({"environments": {}}, "environments stand beside each other, not inside one another."),
        ({"default_environment": "x"}, "default_environment stands beside the environments, not inside one."),
        ({"retries": -1}, "retries must be a whole number of at least 0, not -1."),
        ({"max_workers": 0}, "max_workers must be a whole number of at least 1, not 0."),
        ({"executor": ""}, EXECUTOR + "an empty string."),
        ({"executor": 5}, EXECUTOR + "an object of type int."),
        ({"executor": HalfAnExecutor()}, EXECUTOR + "an object of type HalfAnExecutor."),
        ({"executor": HalfAnExecutor}, EXECUTOR + "the class HalfAnExecutor."),
        ({"executor": Executor}, EXECUTOR + "the class Executor. Pass an instance: Executor(...)."),
        ({"executor": Adapter}, EXECUTOR + "the class Adapter. Pass a backend adapter's class as BackendAdapterEnv"),
        (
            {"executor": Adapter()},
            EXECUTOR + "an object of type Adapter. Pass a backend adapter's class as BackendAdapterEnv",
        ),
        ({"executor_config": "x"}, "executor_config must be a dict, or None, not str."),
        ({"executor_config": {1: 2}}, "the keys of executor_config must be strings."),
        (
            {"executor": "local", "executor_config": {"max_workers": 8}},
            "max_workers has no meaning in the executor_config of the local executor. It is an option: let it stand ",
        ),
    ],
)
def test_a_wrong_definition_is_named_with_its_environment(
    configuration: RuntimeConfig, definition: object, message: str
) -> None:
    with pytest.raises(OptionError) as caught:
        wove.config(environments={"fine": {}, "reports": definition})  # type: ignore[dict-item]
    assert str(caught.value).startswith(IN_REPORTS + message)
    assert list(configuration.environments) == ["default"]


def test_an_unknown_key_is_told_which_there_are(configuration: RuntimeConfig) -> None:
    with pytest.raises(OptionError) as caught:
        wove.config(zzz=1)  # type: ignore[call-arg]
    listed = set(str(caught.value).rpartition("Settings: ")[2].rstrip(".").split(", "))
    assert listed == {"default_environment", "environments", *TASK_OPTIONS, *WEAVE_OPTIONS} - {"environment"}


def test_a_wrong_setting_is_caught_as_value_error_and_as_type_error(configuration: RuntimeConfig) -> None:
    for kind in (ConfigurationError, ValueError, TypeError):
        with pytest.raises(kind):
            wove.config(retries=-1)


@pytest.mark.parametrize(
    "definition",
    [
        {"executor": "rq", "executor_config": "redis://:hunter2@host"},
        {"executor": "rq", "executor_config": ["redis://:hunter2@host"]},
        {"executor": "rq", "executor_config": {"url": "redis://:hunter2@host"}, "retries": -1},
        {"executor_config": {b"redis://:hunter2@host": 1}},
        {"executor": "rq", "url": "redis://:hunter2@host"},
        "redis://:hunter2@host",
        {"executor": type("Half", (), {"__repr__": lambda self: "hunter2"})()},
    ],
)
def test_no_error_shows_what_an_executor_is_told(configuration: RuntimeConfig, definition: Any) -> None:
    with pytest.raises(OptionError) as caught:
        wove.config(environments={"reports": definition})
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("name", sorted(({*TASK_OPTIONS} | {*WEAVE_OPTIONS}) - {"environment"}))
def test_every_option_has_a_global_default_and_one_per_environment(configuration: RuntimeConfig, name: str) -> None:
    option = {**TASK_OPTIONS, **WEAVE_OPTIONS}[name]
    fitting = next(value for value in (3, True, "raise", "fail", "require_ack", print) if option.accepts(value))
    settings: dict[str, Any] = {name: fitting}
    wove.config(**settings, environments={"reports": settings})
    current = configuration.current()
    assert {**current.task_options, **current.weave_options} == settings
    reports = current.environment("reports")
    assert {**reports.task_options, **reports.weave_options} == settings
