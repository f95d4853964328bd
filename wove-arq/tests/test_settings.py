"""What the configuration accepts, and what it says when it does not."""

from datetime import UTC, datetime

import pytest
from arq.connections import ArqRedis, RedisSettings

from wove.errors import ConfigurationError
from wove_arq.connecting import address, connect, to_redis_settings
from wove_arq.settings import read_settings

URL = "redis://localhost:6379/0"


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({}, "needs 'redis_settings', for example 'redis://localhost:6379/0'"),
        ({"redis_setings": URL}, "Did you mean 'redis_settings'"),
        ({"redis_settings": "localhost"}, "redis_settings must be a URL"),
        ({"redis_settings": URL, "queue_name": ""}, "queue_name must be a text"),
        ({"redis_settings": URL, "function_name": 3}, "for example 'wove.run'"),
        ({"redis_settings": URL, "job_serializer": "yaml"}, "job_serializer must be 'json'"),
        ({"redis_settings": URL, "_defer_by": 3}, "belongs below 'enqueue_options'"),
        ({"redis_settings": URL, "enqueue_options": {"_defer_bye": 3}}, "Did you mean '_defer_by'"),
        ({"redis_settings": URL, "enqueue_options": {"_defer_by": -3}}, "a positive number of seconds"),
        ({"redis_settings": URL, "enqueue_options": {"_defer_until": "soon"}}, "ISO 8601"),
        ({"redis_settings": URL, "enqueue_options": {"_job_id": "mine"}}, "set by Wove"),
        ({"redis_settings": URL, "enqueue_options": {"_queue_name": "mine"}}, "give it as 'queue_name'"),
        ({"redis_settings": URL, "enqueue_options": {"_job_try": 0}}, "at least 1"),
        ({"pool": "redis"}, "what arq's create_pool"),
    ],
)
def test_a_wrong_configuration_is_explained(config: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigurationError) as raised:
        read_settings(config)
    assert message in str(raised.value)


def test_two_ways_to_name_redis_exclude_each_other() -> None:
    with pytest.raises(ConfigurationError, match="exclude each other"):
        read_settings({"pool": ArqRedis(), "redis_settings": URL})


def test_two_times_to_begin_exclude_each_other() -> None:
    options = {"_defer_by": 1, "_defer_until": datetime.now(UTC)}
    with pytest.raises(ConfigurationError, match="exclude each other"):
        read_settings({"redis_settings": URL, "enqueue_options": options})


@pytest.mark.parametrize("given", ["redis://localhost:port/0", "redis://:secret@localhost/database", {"hots": "x"}])
def test_wrong_redis_settings_are_refused_without_the_password(given: object) -> None:
    with pytest.raises(ConfigurationError) as raised:
        to_redis_settings(given)
    assert "redis_settings" in str(raised.value)
    assert "secret" not in str(raised.value)


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ("redis://user:secret@redis.example:6380/1", "redis.example:6380"),
        ("unix:///run/redis.sock", "/run/redis.sock"),
        ({"host": [("one", 1), ("two", 2)], "sentinel": True}, "one:1, two:2"),
    ],
)
def test_an_address_has_no_credentials(given: object, shown: str) -> None:
    assert address(to_redis_settings(given)) == shown


async def test_a_pool_of_another_loop_lends_its_settings_only() -> None:
    pool = ArqRedis(host="redis.example", port=6380, password="secret", default_queue_name="reports")
    made = await connect(read_settings({"pool": pool}))
    assert made is not pool
    assert made.connection_pool is not pool.connection_pool
    assert (address(made), made.default_queue_name) == ("redis.example:6380", "reports")
    assert made.connection_pool.connection_kwargs["password"] == "secret"


def test_redis_settings_of_the_project_are_taken_as_they_are() -> None:
    given = RedisSettings(host="redis.example")
    assert to_redis_settings(given) is given
