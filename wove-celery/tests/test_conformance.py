"""Proves the adapter with Wove's conformance kit, on both brokers and with both kinds of pools."""

import pytest
from celery_backend import CeleryDeployment, RabbitBroker, RedisBroker, Stand

from wove.testing import AdapterConformance
from wove_celery import CeleryAdapter


class TestRedisPrefork(AdapterConformance):
    """The worker is started by Celery's own command, without any app."""

    adapter_class = CeleryAdapter
    subject = "celery (Redis, prefork)"

    @pytest.fixture
    def deployment(self, stand: Stand, redis_server: RedisBroker) -> CeleryDeployment:
        return stand.deployment(redis_server, pool="prefork")


class TestRabbitThreads(AdapterConformance):
    """The same with the other broker and the other pool."""

    adapter_class = CeleryAdapter
    subject = "celery (RabbitMQ, threads)"

    @pytest.fixture
    def deployment(self, stand: Stand, rabbitmq_server: RabbitBroker) -> CeleryDeployment:
        return stand.deployment(rabbitmq_server, pool="threads")
