"""What an ``executor_config`` may hold, and what its errors say."""

from typing import Any

import pytest

from wove.errors import ConfigurationError
from wove_batch.settings import Bucket, read_settings
from wove_batch.submission import room_in_overrides, sample_request

LEAST = {"job_queue": "reports", "job_definition": "wove-worker"}


def request_of(**config: Any) -> dict[str, Any]:
    return sample_request(read_settings({**LEAST, **config}))


def test_queue_and_definition_are_all_that_is_needed() -> None:
    assert request_of() == {
        "jobName": "wove",
        "jobQueue": "reports",
        "jobDefinition": "wove-worker",
        "containerOverrides": {
            "command": ["python", "-m", "wove.backend_worker"],
            "environment": [{"name": "WOVE_BACKEND_PAYLOAD", "value": ""}],
        },
        # A definition may say ten.
        "retryStrategy": {"attempts": 1},
    }


def test_what_submit_job_takes_is_passed_on() -> None:
    request = request_of(
        job_name_prefix="acme",
        vcpus=0.25,
        memory=2048,
        gpus=1,
        timeout=90.5,
        retry_strategy={"attempts": 3, "evaluateOnExit": [{"onReason": "Host EC2*", "action": "RETRY"}]},
        tags={"team": "reports"},
        share_identifier="reports",
        container_overrides={"environment": {"STAGE": "test"}, "instanceType": "m7i.large"},
    )
    overrides = request["containerOverrides"]
    assert request["jobName"] == "acme"
    assert request["timeout"] == {"attemptDurationSeconds": 91}
    assert request["retryStrategy"]["attempts"] == 3
    assert (request["tags"], request["shareIdentifier"]) == ({"team": "reports"}, "reports")
    assert overrides["instanceType"] == "m7i.large"
    assert overrides["environment"][0] == {"name": "STAGE", "value": "test"}
    assert overrides["resourceRequirements"] == [
        {"type": "VCPU", "value": "0.25"},
        {"type": "MEMORY", "value": "2048"},
        {"type": "GPU", "value": "1"},
    ]


def test_container_overrides_are_taken_as_boto3_takes_them() -> None:
    overrides = request_of(
        container_overrides={
            "command": ["python3", "-m", "wove.backend_worker"],
            "environment": [{"name": "STAGE", "value": "test"}],
            "resourceRequirements": [{"type": "VCPU", "value": "4"}],
            "memory": 512,
        }
    )["containerOverrides"]
    assert overrides["command"][0] == "python3"
    assert overrides["environment"][0] == {"name": "STAGE", "value": "test"}
    assert overrides["resourceRequirements"] == [{"type": "VCPU", "value": "4"}, {"type": "MEMORY", "value": "512"}]


def test_the_command_of_the_definition_can_be_kept() -> None:
    assert "command" not in request_of(container_overrides={"command": None})["containerOverrides"]


def test_a_payload_in_s3_is_read_by_a_program_of_its_own() -> None:
    request = request_of(payload_bucket="acme-wove")
    assert request["containerOverrides"]["command"] == ["python", "-m", "wove_batch.worker"]
    assert [each["name"] for each in request["containerOverrides"]["environment"]] == ["WOVE_BATCH_PAYLOAD"]


@pytest.mark.parametrize(
    ("given", "bucket"),
    [
        ("acme-wove", Bucket("acme-wove", "")),
        ("acme-wove/", Bucket("acme-wove", "")),
        ("s3://acme-wove/payloads", Bucket("acme-wove", "payloads/")),
        ("acme.wove/a/b/", Bucket("acme.wove", "a/b/")),
    ],
)
def test_a_bucket_may_have_a_prefix(given: str, bucket: Bucket) -> None:
    assert read_settings({**LEAST, "payload_bucket": given}).bucket == bucket


def test_maps_become_arrays_where_there_is_a_bucket() -> None:
    assert not read_settings(LEAST).array_jobs
    assert read_settings({**LEAST, "payload_bucket": "acme-wove"}).array_jobs
    assert not read_settings({**LEAST, "payload_bucket": "acme-wove", "array_jobs": False}).array_jobs


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"job_queue": None}, r"needs 'job_queue', for example 'job_queue': 'reports'"),
        ({"job_definition": None}, r"needs 'job_definition'"),
        ({"job_definiton": "x"}, r"no key named 'job_definiton'. Did you mean 'job_definition'\?"),
        ({"region_name": "eu-central-1"}, r"region_name belongs below 'client_options'"),
        ({"environment": {}}, r"environment belongs below 'container_overrides'"),
        ({"client": "batch"}, r"client must be a boto3 client for Batch"),
        ({"client_options": {"region": "x"}}, r"client_options: no key named 'region'. Did you mean 'region_name'\?"),
        ({"job_name_prefix": "-x"}, r"job_name_prefix must be at most 40 letters"),
        ({"job_name_prefix": "x" * 41}, r"job_name_prefix must be at most 40 letters"),
        ({"job_name_prefix": "täglich"}, r"job_name_prefix must be at most 40 letters"),
        ({"vcpus": "2"}, r"vcpus must be a positive number, for example 2"),
        ({"memory": 1.5}, r"memory must be a whole number of MiB"),
        ({"gpus": 0}, r"gpus must be a whole number of at least 1"),
        ({"timeout": 30}, r"timeout must be a number of seconds of at least 60, for example 3600; it is 30"),
        ({"retry_strategy": 11}, r"retry_strategy must be at least 1 and at most 10 attempts"),
        ({"retry_strategy": {"tries": 1}}, r"retry_strategy must be a number of attempts, or a dict"),
        ({"tags": {"team": 1}}, r"tags must be a dict of at most 50 texts"),
        ({"share_identifier": "a b"}, r"share_identifier must be at most 255 letters and digits"),
        ({"payload_bucket": "No Bucket"}, r"payload_bucket must be the name of a bucket"),
        ({"array_jobs": True}, r"array_jobs needs 'payload_bucket'"),
        ({"runnable_timeout": 0}, r"runnable_timeout must be a positive number of seconds"),
        ({"vcpus": 1, "container_overrides": {"vcpus": 2}}, r"vcpus is given twice"),
        ({"container_overrides": {"command": "python"}}, r"\['command'\] must be a list of texts, or None"),
        ({"container_overrides": {"environment": {"AWS_BATCH_X": "1"}}}, r"without AWS_BATCH_X"),
        ({"container_overrides": {"environment": {"WOVE_BACKEND_PAYLOAD": "1"}}}, r"without WOVE_BACKEND_PAYLOAD"),
        ({"container_overrides": {"comand": []}}, r"no key named 'comand'. Did you mean 'command'\?"),
    ],
)
def test_an_error_names_the_key_and_shows_an_example(config: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message) as raised:
        read_settings({**LEAST, **config}, name="jobs")
    assert "executor_config of 'jobs'" in str(raised.value)


def test_overrides_that_leave_no_room_for_a_task_are_an_error() -> None:
    settings = read_settings({**LEAST, "container_overrides": {"environment": {"TEXT": "x" * 7000}}})
    with pytest.raises(ConfigurationError, match=r"take 7,\d+ of the 8,192 characters"):
        room_in_overrides(settings, where="here")
    assert room_in_overrides(read_settings(LEAST), where="here") > 7000


def test_no_secret_is_shown() -> None:
    options = {"aws_secret_access_key": "hush-hush"}
    overrides = {"environment": {"PASSWORD": "hush-hush"}}
    settings = read_settings({**LEAST, "client_options": options, "container_overrides": overrides})
    assert "hush" not in repr(settings)
