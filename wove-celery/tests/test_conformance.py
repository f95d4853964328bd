"""Proves the adapter with Wove's conformance kit, on both brokers and with both kinds of pools."""

from functools import partial
from pathlib import Path

import pytest
from celery_backend import CeleryDeployment, RabbitBroker, RedisBroker, Stand, app_command, own_command

from wove.testing import AdapterConformance
from wove_celery import CeleryAdapter


class OnCelery(AdapterConformance):
    """The kit with waiting times that are no longer than they have to be."""

    heartbeat_seconds = 1.5
    outage_seconds = 2.0
    stop_seconds = 2.0


class TestRedisPrefork(OnCelery):
    """The worker is started by Celery's own command, without any app."""

    adapter_class = CeleryAdapter
    subject = "celery (Redis, prefork)"

    @pytest.fixture
    def deployment(self, stand: Stand, redis_server: RedisBroker) -> CeleryDeployment:
        return stand.deployment(redis_server, pool="prefork")


class TestRedisThreads(OnCelery):
    """The worker is started by Celery's own command for a project's app."""

    adapter_class = CeleryAdapter
    subject = "celery (Redis, threads)"

    @pytest.fixture
    def deployment(self, stand: Stand, redis_server: RedisBroker, project: Path) -> CeleryDeployment:
        return stand.deployment(redis_server, pool="threads", command=partial(app_command, project))


class TestRabbitThreads(OnCelery):
    """The worker is started by Wove's own command."""

    adapter_class = CeleryAdapter
    subject = "celery (RabbitMQ, threads)"

    @pytest.fixture
    def deployment(self, stand: Stand, rabbitmq_server: RabbitBroker) -> CeleryDeployment:
        return stand.deployment(rabbitmq_server, pool="threads", command=own_command)


class TestRabbitPrefork(OnCelery):
    """The worker is started by Celery's own command for a project's app."""

    adapter_class = CeleryAdapter
    subject = "celery (RabbitMQ, prefork)"

    @pytest.fixture
    def deployment(self, stand: Stand, rabbitmq_server: RabbitBroker, project: Path) -> CeleryDeployment:
        return stand.deployment(rabbitmq_server, pool="prefork", command=partial(app_command, project))
