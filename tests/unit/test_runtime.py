"""`wove.config` and what follows from it: look-ups, merging by calls, copies, threads."""

import json
import pickle
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pytest

import wove
from wove.errors import ConfigurationError, OptionError, UnknownEnvironmentError
from wove.options import TASK_DEFAULTS, WEAVE_DEFAULTS
from wove.runtime import RuntimeConfig, config, runtime
from wove.settings.configuration import Configuration

SECRET = "redis://:hunter2@host"


class Carrier:
    """Has what makes an executor, and nothing else."""

    async def start(self, **settings: object) -> None: ...
    async def send(self, frame: dict[str, object]) -> None: ...
    async def recv(self) -> dict[str, object]:
        return {}

    async def stop(self) -> None: ...


@dataclass
class Client:
    """Stands for what users put into an executor_config: an object that must stay the same object."""

    url: str


def test_wove_config_is_the_runtime_s(configuration: RuntimeConfig) -> None:
    wove.config(retries=2)
    assert config is wove.config
    assert runtime is configuration
    assert runtime.global_defaults == {"retries": 2}


def test_nothing_configured_means_one_local_environment(configuration: RuntimeConfig) -> None:
    assert configuration.default_environment == "default"
    assert configuration.environments == {"default": {"executor": "local", "executor_config": {}}}
    assert configuration.global_defaults == {}
    assert configuration.current().environment("default").is_local


def test_an_environment_can_be_looked_up_with_all_that_it_says(configuration: RuntimeConfig) -> None:
    config(
        environments={
            "reports": {"executor": "celery", "executor_config": {"queue": "r"}, "retries": 3, "max_workers": 4}
        },
        timeout=9.0,
        debug=True,
    )
    current = configuration.current()
    reports = current.environment("reports")
    assert (reports.name, reports.executor, reports.is_local) == ("reports", "celery", False)
    assert reports.definition == current.definitions["reports"]
    assert reports.definition["executor_config"] == {"queue": "r"}
    assert reports.task_options == {"retries": 3}
    assert reports.weave_options == {"max_workers": 4}
    assert current.task_options == {"timeout": 9.0}
    assert current.weave_options == {"debug": True}


def test_an_environment_without_an_executor_is_local(configuration: RuntimeConfig) -> None:
    config(environments={"small": {"max_workers": 2}})
    assert configuration.current().environment("small").is_local
    assert configuration.resolve_environment_settings("small")["executor"] == "local"


def test_an_object_with_the_four_methods_is_an_executor(configuration: RuntimeConfig) -> None:
    carrier = Carrier()
    config(environments={"own": {"executor": carrier}})
    own = configuration.current().environment("own")
    assert own.executor is carrier
    assert not own.is_local


def test_no_name_resolves_to_the_default_environment(configuration: RuntimeConfig) -> None:
    config(default_environment="reports", environments={"reports": {"executor": "stdio"}})
    assert configuration.resolve_environment_name(None) == "reports"
    assert configuration.resolve_environment_name("default") == "default"
    assert configuration.current().environment().name == "reports"


def test_settings_come_from_the_environment_then_the_defaults_then_wove(configuration: RuntimeConfig) -> None:
    config(environments={"reports": {"executor": "stdio", "retries": 3}}, retries=1, timeout=30.0)
    expected = {
        **TASK_DEFAULTS,
        **WEAVE_DEFAULTS,
        "executor": "stdio",
        "executor_config": {},
        "retries": 3,
        "timeout": 30.0,
    }
    # The environment of an environment has no meaning.
    del expected["environment"]
    assert configuration.resolve_environment_settings("reports") == expected


def test_later_calls_add_to_earlier_ones_key_by_key(configuration: RuntimeConfig) -> None:
    config(environments={"a": {"executor": "rq", "executor_config": {"x": 1, "y": 1}, "retries": 1}}, timeout=1.0)
    config(environments={"a": {"executor_config": {"y": 2, "z": 2}, "timeout": 5.0}, "b": {}}, debug=True)
    assert configuration.environments == {
        "default": {"executor": "local", "executor_config": {}},
        "a": {"executor": "rq", "executor_config": {"x": 1, "y": 2, "z": 2}, "retries": 1, "timeout": 5.0},
        "b": {"executor": "local", "executor_config": {}},
    }
    assert configuration.global_defaults == {"timeout": 1.0, "debug": True}


def test_nested_values_of_an_executor_config_are_replaced_as_a_whole(configuration: RuntimeConfig) -> None:
    config(environments={"a": {"executor": "rq", "executor_config": {"options": {"x": 1, "y": 1}}}})
    config(environments={"a": {"executor_config": {"options": {"x": 2}}}})
    assert configuration.environments["a"]["executor_config"] == {"options": {"x": 2}}


def test_none_removes_a_key_a_config_key_an_option_and_an_environment(configuration: RuntimeConfig) -> None:
    config(
        default_environment="b",
        environments={"a": {"executor": "rq", "executor_config": {"x": 1, "y": 1}, "retries": 1}, "b": {}},
        timeout=1.0,
    )
    config(environments={"a": {"executor_config": {"x": None}, "retries": None}, "b": None}, timeout=None)
    config(default_environment=None)
    assert configuration.environments == {
        "default": {"executor": "local", "executor_config": {}},
        "a": {"executor": "rq", "executor_config": {"y": 1}},
    }
    assert configuration.global_defaults == {}
    assert configuration.default_environment == "default"


def test_none_removes_all_environments_and_a_whole_executor_config(configuration: RuntimeConfig) -> None:
    config(environments={"a": {"executor": "rq", "executor_config": {"x": 1}}, "b": {}})
    config(environments={"a": {"executor_config": None}})
    assert configuration.environments["a"] == {"executor": "rq", "executor_config": {}}
    config(environments=None)
    assert list(configuration.environments) == ["default"]


def test_an_environment_that_was_removed_starts_afresh(configuration: RuntimeConfig) -> None:
    config(environments={"a": {"executor": "rq", "retries": 1}})
    config(environments={"a": None})
    config(environments={"a": {"timeout": 1.0}})
    assert configuration.environments["a"] == {"executor": "local", "executor_config": {}, "timeout": 1.0}


def test_removing_the_default_environment_brings_the_built_in_one_back(configuration: RuntimeConfig) -> None:
    config(environments={"default": {"executor": "stdio", "retries": 1}})
    config(environments={"default": None})
    assert configuration.environments["default"] == {"executor": "local", "executor_config": {}}


def test_another_executor_drops_the_executor_config_and_keeps_the_options(configuration: RuntimeConfig) -> None:
    config(environments={"a": {"executor": "celery", "executor_config": {"broker_url": "x"}, "retries": 1}})
    config(environments={"a": {"executor": "stdio", "executor_config": {"processes": 2}}})
    assert configuration.environments["a"] == {"executor": "stdio", "executor_config": {"processes": 2}, "retries": 1}
    config(environments={"a": {"executor": None}})
    assert configuration.environments["a"] == {"executor": "local", "executor_config": {}, "retries": 1}


def test_the_same_executor_named_again_keeps_its_config(configuration: RuntimeConfig) -> None:
    carrier = Carrier()
    config(environments={"a": {"executor": "rq", "executor_config": {"x": 1}}, "b": {"executor": carrier}})
    config(environments={"b": {"executor_config": {"x": 1}}})
    config(environments={"a": {"executor": "rq"}, "b": {"executor": carrier}})
    assert configuration.environments["a"]["executor_config"] == {"x": 1}
    assert configuration.environments["b"]["executor_config"] == {"x": 1}


def test_an_executor_may_be_named_after_its_config(configuration: RuntimeConfig) -> None:
    config(environments={"a": {"executor_config": {"x": 1}}})
    config(environments={"a": {"executor": "rq"}})
    assert configuration.environments["a"] == {"executor": "rq", "executor_config": {"x": 1}}


def test_changing_what_was_passed_or_returned_changes_no_configuration(configuration: RuntimeConfig) -> None:
    given = {"a": {"executor": "rq", "executor_config": {"hosts": ["one"]}}}
    config(environments=given)
    given["a"]["executor_config"]["hosts"].append("two")  # type: ignore[index]
    configuration.environments["a"]["executor_config"]["hosts"].append("three")
    configuration.resolve_environment_settings("a")["executor_config"]["hosts"].append("four")
    configuration.current().definitions["a"]["executor_config"]["hosts"].append("five")
    configuration.global_defaults["retries"] = 5
    config(environments={"b": {}})
    assert configuration.environments["a"]["executor_config"] == {"hosts": ["one"]}
    assert configuration.global_defaults == {}


def test_objects_in_an_executor_config_stay_the_same_objects(configuration: RuntimeConfig) -> None:
    client = Client(SECRET)
    config(environments={"a": {"executor": "rq", "executor_config": {"client": client, "all": (client,)}}})
    found = configuration.snapshot().environments["a"]["executor_config"]
    assert found["client"] is client
    assert found["all"][0] is client


def test_a_configuration_cannot_be_changed(configuration: RuntimeConfig) -> None:
    config(environments={"a": {"executor": "rq", "executor_config": {"x": 1}}})
    current = configuration.current()
    changes: list[Callable[[], None]] = [
        lambda: setattr(current, "default_environment", "a"),
        lambda: current.definitions.pop("a"),  # type: ignore[attr-defined]
        lambda: current.definitions["a"].pop("executor"),  # type: ignore[attr-defined]
        lambda: current.definitions["a"]["executor_config"].pop("x"),
        lambda: current.task_options.update(retries=1),  # type: ignore[attr-defined]
    ]
    for change in changes:
        with pytest.raises((AttributeError, TypeError)):
            change()


def test_a_configuration_is_made_once_and_made_anew_after_a_change(configuration: RuntimeConfig) -> None:
    before = configuration.current()
    assert configuration.current() is before
    config(retries=1)
    assert configuration.current() is not before
    assert before.task_options == {}


def test_a_call_that_says_what_the_last_one_said_changes_nothing(configuration: RuntimeConfig) -> None:
    client = Client("x")

    def call(number: object) -> Configuration:
        config(environments={"a": {"executor": "rq", "executor_config": {"client": client, "all": ["x", number]}}})
        return configuration.current()

    before = call(1)
    assert call(1) is before
    assert call(True) is not before


def test_a_look_up_is_fast(configuration: RuntimeConfig) -> None:
    configuration.current()
    best = min(_seconds_of_1000(configuration.current) for _ in range(50))
    assert best < 1e-3, f"{best * 1e6:.0f} ns per look-up"


def _seconds_of_1000(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    for _ in range(1000):
        call()
    return time.perf_counter() - start


def test_an_unknown_environment_is_a_name_error_that_lists_the_known(configuration: RuntimeConfig) -> None:
    config(environments={"reports": {"executor": "stdio"}})
    with pytest.raises(NameError, match=r"no environment named 'report'. Did you mean 'reports'\?") as caught:
        configuration.resolve_environment_name("report")
    assert isinstance(caught.value, UnknownEnvironmentError)
    assert caught.value.known == ("default", "reports")
    with pytest.raises(UnknownEnvironmentError):
        configuration.resolve_environment_settings("report")


def test_an_unknown_environment_names_who_asked_for_it(configuration: RuntimeConfig) -> None:
    with pytest.raises(UnknownEnvironmentError, match=r"^Task 'count': no environment named 'x'"):
        configuration.current().environment("x", where="Task 'count'")


def test_an_unknown_default_environment_shows_when_it_is_needed_and_who_chose_it(configuration: RuntimeConfig) -> None:
    config(default_environment="reprots", environments={"reports": {"executor": "stdio"}})
    assert configuration.resolve_environment_name("reports") == "reports"
    expected = r"default_environment \(wove.config\(...\)\): no environment named 'reprots'. Did you mean 'reports'\?"
    with pytest.raises(UnknownEnvironmentError, match=f"^{expected}"):
        configuration.resolve_environment_name(None)
    with pytest.raises(UnknownEnvironmentError, match=rf"^weave\(\), by {expected}"):
        configuration.current().environment("reprots", where="weave()")


def test_an_executor_config_without_an_executor_is_an_error(configuration: RuntimeConfig) -> None:
    config(environments={"reports": {"executor_config": {"url": SECRET}}})
    with pytest.raises(
        ConfigurationError, match=r"environment 'reports': there is an executor_config, but no"
    ) as caught:
        configuration.current()
    assert "hunter2" not in str(caught.value)


def test_a_call_that_fails_changes_nothing(configuration: RuntimeConfig) -> None:
    config(retries=1)
    with pytest.raises(OptionError):
        config(timeout=5.0, retries=-1)
    assert configuration.global_defaults == {"retries": 1}


def test_no_representation_shows_what_an_executor_is_told(configuration: RuntimeConfig) -> None:
    config(environments={"a": {"executor": "rq", "executor_config": {"url": SECRET, "client": Client(SECRET)}}})
    current = configuration.current()
    for thing in (configuration, current, current.environment("a"), configuration.snapshot()):
        assert "hunter2" not in repr(thing)
    for thing in (configuration, current, current.environment("a")):
        assert "'url': ..." in repr(thing)


def test_printing_the_runtime_reads_no_files(configuration: RuntimeConfig) -> None:
    with open("wove_config.py", "w") as file:
        file.write("1 / 0")
    assert "RuntimeConfig" in repr(configuration)


def test_a_snapshot_is_left_alone_by_later_changes(configuration: RuntimeConfig) -> None:
    config(environments={"a": {"executor": "rq"}}, retries=1)
    snapshot = configuration.snapshot()
    config(environments={"a": None}, retries=2)
    assert (snapshot.global_defaults, list(snapshot.environments)) == ({"retries": 1}, ["default", "a"])
    snapshot.configure(retries=3)
    assert configuration.global_defaults == {"retries": 2}


def test_a_snapshot_can_be_restored(configuration: RuntimeConfig) -> None:
    config(retries=1)
    snapshot = configuration.snapshot()
    config(retries=2, debug=True)
    configuration.restore(snapshot)
    assert configuration.global_defaults == {"retries": 1}


def test_a_snapshot_survives_pickling_with_what_files_said(configuration: RuntimeConfig) -> None:
    with open("wove_config.py", "w") as file:
        file.write("retries = 4")
    config(environments={"a": {"executor": "rq", "executor_config": {"x": [1]}}})
    copy = pickle.loads(pickle.dumps(configuration.snapshot()))
    with open("wove_config.py", "w") as file:
        file.write("retries = 5")
    assert copy.global_defaults == {"retries": 4}
    assert copy.environments == configuration.environments


def test_what_is_returned_is_plain(configuration: RuntimeConfig) -> None:
    config(environments={"a": {"executor": "rq", "executor_config": {"x": {"y": (1,)}}}})
    assert json.loads(json.dumps(configuration.environments["a"])) == {
        "executor": "rq",
        "executor_config": {"x": {"y": [1]}},
    }


def test_reset_forgets_everything(configuration: RuntimeConfig) -> None:
    config(environments={"a": {}}, retries=1)
    configuration.reset()
    assert configuration.global_defaults == {}
    assert list(configuration.environments) == ["default"]


def test_threads_may_configure_while_others_look_up(configuration: RuntimeConfig) -> None:
    rounds = 200
    start = threading.Barrier(4)

    def configure(name: str) -> None:
        start.wait()
        for count in range(rounds):
            config(environments={name: {"executor": "stdio", "executor_config": {"count": count}, "retries": count}})

    def look_up() -> None:
        start.wait()
        for _ in range(rounds):
            for settings in configuration.current().environments.values():
                # Both keys come from one call: a half-merged definition would show.
                assert settings.definition["executor_config"].get("count") == settings.definition.get("retries")

    with ThreadPoolExecutor(4) as pool:
        jobs = [pool.submit(configure, "a"), pool.submit(configure, "b"), pool.submit(look_up), pool.submit(look_up)]
    for job in jobs:
        job.result()
    assert {name: given.get("retries") for name, given in configuration.environments.items()} == {
        "default": None,
        "a": rounds - 1,
        "b": rounds - 1,
    }
