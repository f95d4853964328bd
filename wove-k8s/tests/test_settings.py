"""What the environment's ``executor_config`` may hold, and what its errors say."""

from typing import Any

import pytest

from wove.errors import ConfigurationError
from wove_k8s.settings import read_settings

IMAGE = "example.org/reports:1"


def test_an_image_is_all_that_is_needed() -> None:
    settings = read_settings({"image": IMAGE})
    assert (settings.namespace, settings.in_cluster, settings.load_config) == (None, None, True)
    assert list(settings.pod.command) == ["python", "-m", "wove.backend_worker"]
    assert (settings.job.backoff_limit, settings.job.ttl_seconds, settings.job.name_prefix) == (0, 60, "wove")


def test_keys_of_the_core_are_left_to_it() -> None:
    config = {"image": IMAGE, "callback_port": 9010, "results": "json", "dead_job_grace": 1.0}
    assert read_settings(config) == read_settings({"image": IMAGE})


def test_variables_may_be_a_dict_or_what_kubernetes_takes() -> None:
    entries = [{"name": "REGION", "value": "eu"}]
    assert read_settings({"image": IMAGE, "env": {"REGION": "eu"}}).pod.env == entries
    assert read_settings({"image": IMAGE, "env": entries}).pod.env == entries


def test_an_image_may_stand_in_the_patch_or_come_from_the_factory() -> None:
    patch = {"spec": {"containers": [{"name": "wove", "image": IMAGE}]}}
    assert read_settings({"pod_template": patch}).pod.image is None
    assert read_settings({"job_factory": "myproject.jobs:make"}).job.factory == "myproject.jobs:make"


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({}, "needs 'image', for example 'registry.example.org/reports:1.4'"),
        ({"pod_template": {"spec": {"containers": [{"name": "other", "image": IMAGE}]}}}, "needs 'image'"),
        ({"image": IMAGE, "namspace": "a"}, "no key named 'namspace'. Did you mean 'namespace'?"),
        ({"image": IMAGE, "namespace": "No_Namespace"}, "namespace must be lower-case letters, digits and hyphens"),
        ({"image": IMAGE, "command": "python -m x"}, "command must be a list of words, for example ['python', "),
        ({"image": IMAGE, "job_name_prefix": "a" * 21}, "job_name_prefix must be lower-case letters, digits and"),
        ({"image": IMAGE, "backoff_limit": -1}, "backoff_limit must be a whole number of at least 0"),
        ({"image": IMAGE, "env": {"A": 1}}, "env must be a dict of texts, or a list of Kubernetes' EnvVar"),
        ({"image": IMAGE, "env": [{"value": "x"}]}, "env must be a dict of texts, or a list of Kubernetes' EnvVar"),
        ({"image": IMAGE, "volumes": [{"name": "a"}]}, "volumes must be a list of Kubernetes' Volume, each with its"),
        (
            {"image": IMAGE, "pod_template": {"containers": []}},
            "pod_template must be a dict with 'metadata' and 'spec'",
        ),
        ({"image": IMAGE, "job_factory": "make"}, "job_factory must be a function that takes a manifest"),
        ({"image": IMAGE, "batch_api": object()}, "batch_api must be a BatchV1Api, or its import path"),
        (
            {"image": IMAGE, "batch_api": "a:b", "in_cluster": True},
            "in_cluster is for environments without 'batch_api'",
        ),
        ({"image": IMAGE, "load_config": False, "in_cluster": True}, "load_config is off"),
        ({"image": IMAGE, "ttl_seconds_after_finished": -5}, "ttl_seconds_after_finished must be a number of seconds"),
        (
            {"image": IMAGE, "active_deadline_seconds": 0},
            "active_deadline_seconds must be a positive number of seconds",
        ),
        (
            {"image": IMAGE, "resources": {"request": {"cpu": "1"}}},
            "resources must be a dict with 'requests', 'limits'",
        ),
        ({"image": IMAGE, "labels": {"a": 1}}, "labels must be a dict of texts"),
    ],
)
def test_a_mistake_is_named_with_an_example(config: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        read_settings(config)
    assert message in str(caught.value)
    assert str(caught.value).startswith("executor_config of 'kubernetes_jobs'")
