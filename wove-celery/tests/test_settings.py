"""What the environment's ``executor_config`` may hold."""

from datetime import UTC, datetime
from typing import Any

import pytest
from celery import Celery

from wove.errors import ConfigurationError
from wove_celery.settings import Settings, read_settings

REDIS = "redis://localhost:6379/0"


def read(**config: Any) -> Settings:
    return read_settings({"broker_url": REDIS, **config})


def test_the_broker_is_all_that_is_needed() -> None:
    settings = read()
    assert (settings.task_name, settings.app_name, settings.terminate) == ("wove.run", "wove", True)
    assert settings.options == {}


def test_options_of_celery_keep_their_names() -> None:
    eta = datetime(2030, 1, 1, tzinfo=UTC)
    options = {"queue": "reports", "routing_key": "r", "priority": 5, "eta": eta, "time_limit": 60, "headers": {"a": 1}}
    assert read(**options).options == options


def test_send_task_options_are_the_same_options() -> None:
    settings = read(queue="reports", send_task_options={"priority": 3, "soft_time_limit": 5.0, "queue": "reports"})
    assert settings.options == {"queue": "reports", "priority": 3, "soft_time_limit": 5.0}


def test_keys_of_the_core_are_left_to_it() -> None:
    assert read(callback_port=9010, results="json", max_payload_bytes=1000, dead_job_grace=1.0) == read()


def test_the_settings_show_no_credentials() -> None:
    assert "secret" not in repr(read_settings({"broker_url": "redis://:secret@localhost/0"}))


def test_an_app_takes_the_place_of_a_broker() -> None:
    app = Celery("mine", broker=REDIS, set_as_current=False)
    assert read_settings({"app": app}).app is app
    assert read_settings({"app": "myproject.celery:app"}).app == "myproject.celery:app"


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({}, "needs 'broker_url', for example 'redis://localhost:6379/0'"),
        ({"broker_url": "localhost"}, "broker_url must be the URL of a broker"),
        ({"broker_url": 6379}, "broker_url must be the URL of a broker, or a list of them, for example 'redis://"),
        ({"broker_ulr": REDIS}, "no key named 'broker_ulr'. Did you mean 'broker_url'?"),
        ({"broker_url": REDIS, "app": "a:b"}, "broker_url is for environments without 'app'"),
        ({"app": 5}, "app must be a Celery app, or its import path"),
        ({"broker_url": REDIS, "queue": ""}, "queue must be a text that is not empty, for example 'reports'"),
        ({"broker_url": REDIS, "priority": "high"}, "priority must be a whole number from 0 to 255, for example 5"),
        ({"broker_url": REDIS, "countdown": -1}, "countdown must be a number of seconds, at least 0"),
        ({"broker_url": REDIS, "time_limit": 0}, "time_limit must be a positive number of seconds"),
        ({"broker_url": REDIS, "time_limit": 5, "soft_time_limit": 6}, "must not be longer than time_limit"),
        ({"broker_url": REDIS, "eta": "tomorrow"}, "eta must be a datetime or an ISO 8601 text"),
        ({"broker_url": REDIS, "eta": "2030-01-01", "countdown": 1}, "eta and countdown exclude each other"),
        ({"broker_url": REDIS, "expires": True}, "expires must be a datetime or an ISO 8601 text"),
        ({"broker_url": REDIS, "headers": ["a"]}, "headers must be a dict with text keys"),
        ({"broker_url": REDIS, "terminate_on_cancel": "yes"}, "terminate_on_cancel must be True or False"),
        ({"broker_url": REDIS, "send_task_options": {"qeue": "a"}}, "no key named 'qeue'. Did you mean 'queue'?"),
        ({"broker_url": REDIS, "send_task_options": {"task_id": "a"}}, "is set by Wove for every task"),
        ({"broker_url": REDIS, "queue": "a", "send_task_options": {"queue": "b"}}, "contradict each other"),
    ],
)
def test_a_mistake_is_named_with_an_example(config: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        read_settings(config)
    assert message in str(caught.value)
    assert str(caught.value).startswith("executor_config of 'celery'")
