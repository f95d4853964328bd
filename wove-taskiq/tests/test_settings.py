"""What the environment's ``executor_config`` may hold."""

from typing import Any

import project_brokers
import pytest
from taskiq_redis import ListQueueBroker

from wove.errors import ConfigurationError
from wove_taskiq.brokers import find_target
from wove_taskiq.settings import Settings, read_settings

REDIS = "redis://localhost:6379/0"


def read(**config: Any) -> Settings:
    return read_settings({"broker": REDIS, **config})


def test_the_broker_is_all_that_is_needed() -> None:
    settings = read()
    assert (settings.url, settings.stream, settings.queue_name, settings.labels) == (REDIS, False, None, {})


def test_keys_of_the_core_are_left_to_it() -> None:
    assert read(callback_port=9010, results="json", max_payload_bytes=1000, dead_job_grace=1.0) == read()


def test_the_settings_show_no_credentials() -> None:
    assert "secret" not in repr(read(broker="redis://:secret@localhost/0"))


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({}, "needs 'broker', for example 'redis://localhost:6379/0' or 'myproject.jobs:broker'"),
        ({"broker": "localhost"}, "broker must be a Redis URL, a Taskiq broker, or the import path of one"),
        ({"broker": 6379}, "it is 6379"),
        ({"broker": "amqp://localhost"}, "broker must be a Redis URL"),
        ({"brokre": REDIS}, "no key named 'brokre'. Did you mean 'broker'?"),
        ({"broker": REDIS, "task": "a:b"}, "broker and task exclude each other"),
        ({"task": 5}, "task must be a Taskiq task, or the import path of one, for example 'myproject.jobs:wove_task'"),
        ({"task": "a:b", "task_name": "c"}, "task_name is for environments without 'task'"),
        ({"broker": "a:b", "stream": True}, "stream is for a broker that is given as a URL"),
        ({"broker": REDIS, "stream": "yes"}, "stream must be True or False"),
        ({"broker": REDIS, "queue_name": ""}, "queue_name must be a text that is not empty, for example 'reports'"),
        ({"broker": REDIS, "labels": {"a": []}}, "labels must be a dict of texts, numbers, booleans and bytes"),
        ({"broker": REDIS, "labels": {"queue_name": "a"}}, "is given as 'queue_name' beside 'labels'"),
    ],
)
def test_a_mistake_is_named_with_an_example(config: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        read_settings(config)
    assert message in str(caught.value)
    assert str(caught.value).startswith("executor_config of 'taskiq'")


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"broker": "nowhere.at_all:broker"}, "broker: 'nowhere.at_all:broker' cannot be imported"),
        ({"broker": "project_brokers:absent"}, "broker: 'project_brokers:absent' cannot be imported"),
        ({"broker": "os:environ"}, "is not a Taskiq broker"),
        ({"task": "project_brokers:list_broker"}, "is not a Taskiq task"),
        ({"task": "wove_taskiq.tasks:execute"}, "is not a Taskiq task"),
        ({"broker": "redis://:secret@localhost:port/0"}, "broker: a part of the URL is wrong (ValueError)"),
    ],
)
async def test_what_leads_to_no_broker_is_named(config: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        find_target(read_settings(config))
    assert message in str(caught.value)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    "given", ["project_brokers:list_broker", "project_brokers:make_list_broker", project_brokers.list_broker]
)
async def test_a_project_s_broker_lends_its_queue_but_not_its_connections(given: object) -> None:
    target = find_target(read_settings({"broker": given}))
    assert isinstance(target.broker, ListQueueBroker)
    assert target.broker.queue_name == "project"
    assert target.broker.connection_pool is not project_brokers.list_broker.connection_pool


async def test_a_task_gives_broker_and_name_and_labels() -> None:
    task = ListQueueBroker(REDIS, queue_name="mine").register_task(lambda payload: None, task_name="mine.run", retry=3)
    target = find_target(read_settings({"task": task, "labels": {"timeout": 5}}))
    assert (target.task_name, target.labels) == ("mine.run", {"retry": 3, "timeout": 5})
    assert getattr(target.broker, "queue_name", None) == "mine"
