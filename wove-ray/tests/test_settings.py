"""What an ``executor_config`` may hold, and what its errors say."""

from typing import Any

import pytest

from wove.errors import ConfigurationError
from wove_ray.remote import RemoteRun
from wove_ray.settings import Settings, read_settings


def test_nothing_is_needed() -> None:
    settings = read_settings({})
    assert settings == Settings()
    assert (settings.address, settings.init, settings.force_cancel, settings.cancel_grace) == (None, True, None, 5.0)


def test_keys_of_the_core_are_left_to_it() -> None:
    config = {"callback_port": 9010, "results": "json", "max_payload_bytes": 1000, "dead_job_grace": 1.0}
    assert read_settings(config) == Settings()


@pytest.mark.parametrize("address", ["auto", "local", "head.internal:6379", "ray://head.internal:10001", "[::1]:6379"])
def test_an_address_is_what_ray_takes(address: str) -> None:
    settings = read_settings({"address": address})
    assert settings.address == address
    assert settings.is_client == address.startswith("ray://")


def test_the_options_of_tasks_keep_their_names_and_values() -> None:
    strategy = object()
    options = {
        "num_cpus": 0.5,
        "num_gpus": 1,
        "memory": 1024**3,
        "resources": {"licence": 1},
        "label_selector": {"ray.io/market-type": "!spot"},
        "scheduling_strategy": strategy,
        "runtime_env": {"env_vars": {"A": "b"}},
        "max_calls": 10,
    }
    assert read_settings({"remote_options": options}).remote_options == options


def test_the_settings_show_no_options() -> None:
    options = {"init_options": {"_redis_password": "secret"}, "remote_options": {"name": "secret"}}
    assert "secret" not in repr(read_settings(options))


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"address": "head"}, "address must be 'auto', 'local', host:port or ray://host:port, for example"),
        ({"address": "http://head:8265"}, "address must be 'auto'"),
        ({"adress": "auto"}, "no key named 'adress'. Did you mean 'address'?"),
        ({"init": 1}, "init must be True or False, for example False; it is 1."),
        ({"init": False, "init_options": {"namespace": "a"}}, "init_options are for ray.init(), which is not called"),
        ({"init_options": {"address": "auto"}}, "is given as 'address' beside 'init_options'"),
        ({"num_cpus": 2}, "num_cpus belongs below 'remote_options', for example 'remote_options': {'num_cpus': 2}"),
        ({"remote_options": {"num_cpu": 2}}, "no key named 'num_cpu'. Did you mean 'num_cpus'?"),
        ({"remote_options": {"num_gpus": -1}}, "remote_options['num_gpus'] must be a number that is not negative"),
        ({"remote_options": {"resources": {"GPU": 1}}}, "which are given as num_cpus, num_gpus and memory"),
        ({"remote_options": {"label_selector": {"zone": 1}}}, "label_selector'] must be a dict of texts"),
        ({"remote_options": {"runtime_env": "."}}, "runtime_env'] must be a dict or a ray.runtime_env.RuntimeEnv"),
        ({"remote_options": {"max_retries": 3}}, "remote_options['max_retries'] is set by Wove for every task"),
        ({"remote_options": {"max_calls": 1.5}}, "max_calls'] must be a whole number that is not negative"),
        ({"force_cancel": "yes"}, "force_cancel must be True or False"),
        ({"force_cancel": True, "cancel_grace": 1.0}, "cancel_grace and force_cancel exclude each other"),
        ({"queue_timeout": 0}, "queue_timeout must be a positive number of seconds, for example 600.0; it is 0."),
    ],
)
def test_an_error_names_the_key_and_shows_an_example(config: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        read_settings(config, name="cluster")
    assert message in str(caught.value)
    assert str(caught.value).startswith("executor_config of 'cluster'")


@pytest.mark.parametrize(
    "options",
    [{"scheduling_strategy": 5}, {"label_selector": {"zone": "in(("}}, {"num_gpus": 0.5, "accelerator_type": 3}],
)
def test_what_ray_alone_can_judge_is_judged_before_anything_is_submitted(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match="remote_options: Ray refuses them: "):
        RemoteRun(options)
