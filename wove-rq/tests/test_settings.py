"""What an ``executor_config`` may hold, and what its errors say."""

from datetime import timedelta
from typing import Any

import pytest

from wove.errors import ConfigurationError
from wove_rq.settings import read_settings

URL = "redis://localhost:6379/0"


def test_a_url_is_all_that_is_needed() -> None:
    settings = read_settings({"redis_url": URL})
    assert (settings.redis_url, settings.queue_name, settings.serializer, settings.terminate) == (
        URL,
        "default",
        None,
        True,
    )


def test_options_keep_their_names_and_times_become_what_rq_takes() -> None:
    given = {"at_front": True, "job_timeout": "10m", "ttl": 1.5, "result_ttl": 0, "retry": 3, "enqueue_in": 10}
    options = read_settings({"redis_url": URL, "enqueue_options": given}).options
    assert options == {
        "at_front": True,
        "job_timeout": 600,
        "ttl": 2,
        "result_ttl": 0,
        "retry": 3,
        "enqueue_in": timedelta(seconds=10),
    }


def test_keys_of_the_core_are_left_to_it() -> None:
    config = {"redis_url": URL, "callback_port": 9010, "max_payload_bytes": 1000, "dead_job_grace": 1.0}
    assert read_settings(config).queue_name == "default"


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({}, r"needs 'redis_url', for example 'redis://"),
        ({"redis_url": "localhost:6379"}, r"redis_url must be a URL that begins with redis://"),
        ({"redis_ur": URL}, r"no key named 'redis_ur'. Did you mean 'redis_url'\?"),
        ({"redis_url": URL, "queue_name": ""}, r"queue_name must be a text that is not empty"),
        ({"redis_url": URL, "serializer": 3}, r"serializer must be .* for example 'json'; it is 3"),
        ({"redis_url": URL, "terminate_on_cancel": "no"}, r"terminate_on_cancel must be True or False"),
        ({"redis_url": URL, "job_timeout": 5}, r"job_timeout belongs below 'enqueue_options'"),
        ({"queue": "reports"}, r"A queue's name is given as 'queue_name': 'reports'"),
        ({"queue": 5}, r"queue must be an rq.Queue"),
        ({"queue": "a:b", "redis_url": URL}, r"redis_url is for environments without 'queue'"),
    ],
)
def test_an_error_names_the_key_and_shows_an_example(config: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message) as raised:
        read_settings(config, name="jobs")
    assert "executor_config of 'jobs'" in str(raised.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"job_timout": 5}, r"no key named 'job_timout'. Did you mean 'job_timeout'\?"),
        ({"job_timeout": 0}, r"enqueue_options\['job_timeout'\] must be a positive number of seconds"),
        ({"job_id": "x"}, r"enqueue_options\['job_id'\] is set by Wove for every task"),
        ({"enqueue_at": "tomorrow"}, r"a datetime or an ISO 8601 text"),
        ({"enqueue_at": "2030-01-01T00:00:00+00:00", "enqueue_in": 5}, r"exclude each other"),
        ({"retry": "often"}, r"an rq.Retry or a number of times"),
        ({"at_front": 1}, r"must be True or False"),
    ],
)
def test_wrong_options_are_errors(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        read_settings({"redis_url": URL, "enqueue_options": options})


def test_no_password_is_shown() -> None:
    assert "secret" not in repr(read_settings({"redis_url": "redis://me:secret@localhost/0"}))
