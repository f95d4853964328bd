"""What an ``executor_config`` may hold, and what its errors say."""

from types import SimpleNamespace
from typing import Any

import pytest

from wove.errors import ConfigurationError
from wove_dask.settings import read_settings

ADDRESS = "tcp://scheduler:8786"


def test_an_address_is_all_that_is_needed() -> None:
    settings = read_settings({"address": ADDRESS})
    assert (settings.client, settings.address, settings.submit_options) == (None, ADDRESS, {})


def test_a_cluster_object_lends_its_address() -> None:
    assert read_settings({"address": SimpleNamespace(scheduler_address=ADDRESS)}).address == ADDRESS


def test_a_client_of_wove_s_is_asynchronous_and_nobody_s_default() -> None:
    options = {"asynchronous": True, "name": "reports"}
    settings = read_settings({"address": ADDRESS, "client_options": options})
    assert settings.client_options == {"asynchronous": True, "set_as_default": False, "name": "reports"}


def test_options_keep_their_names() -> None:
    options = {
        "resources": {"GPU": 1},
        "workers": "worker-1",
        "allow_other_workers": True,
        "priority": -1,
        "retries": 2,
        "fifo_timeout": "60s",
        "annotations": {"executor": "gpu"},
    }
    settings = read_settings({"address": ADDRESS, "submit_options": options})
    assert settings.annotations == options.pop("annotations")
    assert settings.submit_options == {**options, "workers": ["worker-1"]}


def test_keys_of_the_core_are_left_to_it() -> None:
    config = {"address": ADDRESS, "callback_port": 9010, "max_payload_bytes": 1000, "dead_job_grace": 1.0}
    assert read_settings(config) == read_settings({"address": ADDRESS})


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"addres": ADDRESS}, r"no key named 'addres'. Did you mean 'address'\?"),
        ({"address": 8786}, r"address must be the scheduler's address, or a cluster object .* it is 8786"),
        ({"client": ADDRESS}, r"client must be a distributed.Client, for example distributed.Client\("),
        ({"client_options": 5}, r"client_options must be a dict with text keys"),
        ({"resources": {"GPU": 1}}, r"resources belongs below 'submit_options'"),
        ({"client_options": {"address": ADDRESS}}, r"It is given as 'address' beside 'client_options'"),
        ({"client_options": {"loop": None}}, r"client_options\['loop'\] is not taken"),
        ({"client_options": {"set_as_default": True}}, r"client_options\['set_as_default'\] is always False"),
        ({"client_options": {"asynchronous": False}}, r"client_options\['asynchronous'\] is always True"),
    ],
)
def test_an_error_names_the_key_and_shows_an_example(config: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message) as raised:
        read_settings(config, name="cluster")
    assert "executor_config of 'cluster'" in str(raised.value)


@pytest.mark.parametrize("key", ["address", "client_options"])
def test_a_client_excludes_what_a_client_is_made_of(key: str) -> None:
    client = SimpleNamespace(submit=None, scheduler_info=None)
    given = {"address": ADDRESS, "client_options": {"timeout": 1}}[key]
    with pytest.raises(ConfigurationError, match=f"{key} is for environments without 'client'"):
        read_settings({"client": client, key: given})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"resource": {"GPU": 1}}, r"no key named 'resource'. Did you mean 'resources'\?"),
        ({"resources": {"GPU": 0}}, r"submit_options\['resources'\] must be a dict of names and positive amounts"),
        ({"resources": {}}, r"a dict of names and positive amounts, for example {'GPU': 1}"),
        ({"workers": []}, r"the name, address or host of a worker, or a list of them"),
        ({"workers": [1]}, r"the name, address or host of a worker, or a list of them"),
        ({"priority": "high"}, r"submit_options\['priority'\] must be a whole number"),
        ({"retries": -1}, r"submit_options\['retries'\] must be a whole number that is not negative"),
        ({"fifo_timeout": 0}, r"a positive number of seconds"),
        ({"key": "x"}, r"submit_options\['key'\] is set by Wove for every task"),
        ({"allow_other_workers": True}, r"is for tasks that prefer some workers. Name these"),
    ],
)
def test_wrong_options_are_errors(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        read_settings({"address": ADDRESS, "submit_options": options})
