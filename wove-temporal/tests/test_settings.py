"""What the environment's ``executor_config`` may hold."""

from datetime import timedelta
from typing import Any

import pytest
from temporalio.common import Priority, RetryPolicy

from wove.errors import ConfigurationError
from wove_temporal.jobs import activity_timeouts, legal_id, priority, retry_fields, retry_policy
from wove_temporal.settings import Settings, read_settings


class ProjectWorkflow:
    async def run(self, payload: dict[str, Any]) -> None: ...


def read(**config: Any) -> Settings:
    return read_settings(config)


def test_nothing_is_needed() -> None:
    settings = read()
    assert (settings.target_host, settings.namespace, settings.task_queue) == ("localhost:7233", "default", "wove")
    assert (settings.workflow, settings.prefix, settings.retry_policy) == (None, "wove-", 1)


def test_keys_of_the_core_are_left_to_it() -> None:
    assert read(callback_port=9010, results="json", max_payload_bytes=1000, dead_job_grace=1.0) == read()


def test_the_settings_show_no_credentials() -> None:
    assert "secret" not in repr(read(connect_options={"api_key": "secret"}))


def test_durations_are_seconds_or_timedeltas() -> None:
    settings = read(heartbeat_timeout=5, start_to_close_timeout=timedelta(minutes=1), start_options={"start_delay": 2})
    assert settings.timeouts == {
        "heartbeat_timeout": timedelta(seconds=5),
        "start_to_close_timeout": timedelta(seconds=60),
    }
    assert settings.start_options == {"start_delay": timedelta(seconds=2)}


@pytest.mark.parametrize(
    ("given", "made"),
    [
        (3, RetryPolicy(maximum_attempts=3)),
        ({"maximum_attempts": 2, "initial_interval": 5}, RetryPolicy(timedelta(seconds=5), maximum_attempts=2)),
        (RetryPolicy(maximum_attempts=4), RetryPolicy(maximum_attempts=4)),
    ],
)
def test_a_retry_policy_is_a_number_a_dict_or_a_policy(given: object, made: RetryPolicy) -> None:
    assert retry_policy(read(retry_policy=given).retry_policy) == made


def test_a_retry_policy_travels_in_seconds() -> None:
    fields = retry_fields(read(retry_policy={"initial_interval": 5, "maximum_attempts": 2}).retry_policy)
    assert fields == {"initial_interval": 5.0, "backoff_coefficient": 2.0, "maximum_attempts": 2}


@pytest.mark.parametrize("given", [2, {"priority_key": 2}, Priority(priority_key=2)])
def test_a_priority_is_a_number_a_dict_or_a_priority(given: object) -> None:
    assert priority(read(priority=given).priority) == Priority(priority_key=2)


def test_the_delivery_timeout_bounds_the_activity() -> None:
    assert activity_timeouts(read(), 30)["schedule_to_close_timeout"] == timedelta(seconds=30)
    assert activity_timeouts(read(schedule_to_close_timeout=10), 30)["schedule_to_close_timeout"].total_seconds() == 10
    assert activity_timeouts(read(), None)["start_to_close_timeout"] == timedelta(days=7)


def test_an_id_that_not_every_server_takes_is_hashed() -> None:
    assert legal_id("wove-report 42/ä") == "wove-report 42/ä"
    for name in ("x" * 201, "line\nfeed", "\ud800"):
        assert legal_id(name).startswith("wove-key-")
        assert len(legal_id(name)) < 60


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"target_hots": "a:1"}, "no key named 'target_hots'. Did you mean 'target_host'?"),
        ({"target_host": "localhost"}, "target_host must be the server's host and port, for example 'localhost:7233'"),
        ({"target_host": "https://host:1"}, "target_host must be the server's host and port"),
        ({"client": 5}, "client must be a temporalio Client, a function that makes one, or the import path of either"),
        ({"client": "a:b", "namespace": "c"}, "namespace is for environments without 'client'"),
        ({"client": "a:b", "connect_options": {"tls": True}}, "connect_options is for environments without 'client'"),
        ({"tls": True}, "tls belongs below 'connect_options', for example 'connect_options': {'tls': True}"),
        ({"connect_options": {"namespace": "a"}}, "connect_options['namespace'] is set by Wove"),
        ({"connect_options": {"tsl": True}}, "connect_options: no key named 'tsl'. Did you mean 'tls'?"),
        ({"connect_options": {"tls": "yes"}}, "connect_options['tls'] must be True, False or a"),
        ({"connect_options": {"api_key": ""}}, "connect_options['api_key'] must be a text that is not empty"),
        ({"heartbeat_timeout": 0}, "heartbeat_timeout must be a positive number of seconds, for example 60; it is 0."),
        ({"heartbeat_timeout": "5"}, "heartbeat_timeout must be a positive number of seconds"),
        ({"workflow": ProjectWorkflow}, "workflow must be the name of a workflow, or its run method"),
        ({"workflow": "Mine", "heartbeat_timeout": 5}, "heartbeat_timeout is for environments without 'workflow'"),
        ({"workflow": "Mine", "retry_policy": 5}, "retry_policy is for environments without 'workflow'"),
        ({"workflow_id_prefix": "a\n"}, "workflow_id_prefix must be a text of at most 100 printable characters"),
        ({"retry_policy": 0}, "a number of attempts of at least 1, for example 3; it is 0."),
        ({"retry_policy": {"attempts": 3}}, "retry_policy must be a dict with keys out of initial_interval"),
        ({"priority": 0}, "priority must be a temporalio.common.Priority, a dict of its fields, or a number"),
        ({"priority": {"key": 1}}, "priority must be a dict with keys out of priority_key, fairness_key"),
        ({"summary": "a"}, "summary belongs below 'start_options'"),
        ({"start_options": {"id": "a"}}, "start_options['id'] is set by Wove for every task"),
        ({"start_options": {"priority": 1}}, "start_options['priority'] is given as 'priority' beside 'start_options'"),
        ({"start_options": {"memo": {}}}, "start_options['memo'] is for environments with a 'workflow' of their own"),
        ({"start_options": {"id_reuse_policy": "NEVER"}}, "must be ALLOW_DUPLICATE, ALLOW_DUPLICATE_FAILED_ONLY or"),
        ({"start_options": {"start_dealy": 1}}, "no key named 'start_dealy'. Did you mean 'start_delay'?"),
    ],
)
def test_a_mistake_is_named_with_an_example(config: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        read_settings(config)
    assert message in str(caught.value)
    assert str(caught.value).startswith("executor_config of 'temporal'")


def test_a_workflow_of_the_project_has_more_options() -> None:
    settings = read(workflow=ProjectWorkflow.run, start_options={"memo": {"a": 1}, "execution_timeout": 60})
    assert settings.start_options == {"memo": {"a": 1}, "execution_timeout": timedelta(seconds=60)}
