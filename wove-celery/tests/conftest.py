"""Brokers for the whole session, one of each kind, started when the first test needs it."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from celery_backend import RabbitBroker, RedisBroker, Stand, rabbit_broker, redis_broker


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisBroker]:
    with redis_broker(tmp_path_factory.mktemp("redis")) as broker:
        yield broker


@pytest.fixture(scope="session")
def rabbitmq_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RabbitBroker]:
    with rabbit_broker(tmp_path_factory.mktemp("rabbitmq")) as broker:
        yield broker


@pytest.fixture(scope="session")
def stand(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stand]:
    stand = Stand(tmp_path_factory.mktemp("workers"))
    yield stand
    stand.clear()
