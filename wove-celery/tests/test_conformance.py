"""Proves the adapter with Wove's conformance kit, on both brokers and with both kinds of pools.

Two classes run the whole kit. The two others run the scenarios in which broker and pool matter together; where outcomes
are recorded for the documentation's table, they run the whole kit too.
"""

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TypeVar

import pytest
from celery_backend import CeleryDeployment, RabbitBroker, RedisBroker, Stand, app_command, own_command

from wove.testing import AdapterConformance
from wove_celery import CeleryAdapter

C = TypeVar("C", bound=type[AdapterConformance])

CHOSEN = (
    "test_a_synchronous_task_returns_its_value",
    "test_an_asynchronous_task_returns_its_value",
    "test_a_map_returns_its_values_in_order",
    "test_a_terminated_worker_reports_or_finishes_its_task",
    "test_a_running_synchronous_task_stops_when_its_weave_is_cancelled",
    "test_a_running_coroutine_stops_when_its_weave_is_cancelled",
    "test_a_task_that_was_given_up_in_the_queue_never_runs",
    "test_a_payload_that_is_submitted_twice_runs_once",
    "test_nothing_is_left_in_the_backend",
)
# In a pool of threads, the process that executes a task is the worker.
DEATHS_OF_THREADS = ("test_a_killed_worker_is_reported_by_the_backend",)
DEATHS_OF_CHILDREN = (
    "test_a_killed_process_is_reported_by_the_backend",
    "test_a_job_that_ends_without_an_event_is_reported",
)


def only(*names: str) -> Callable[[C], C]:
    """Hide the other scenarios of a class from pytest, unless outcomes are recorded."""

    def choose(suite: C) -> C:
        scenarios = {name for name in dir(suite) if name.startswith("test_")}
        if not scenarios >= set(names):
            raise ValueError(f"The kit has no scenarios of these names: {sorted(set(names) - scenarios)}")
        if "WOVE_CONFORMANCE_OUTCOMES" not in os.environ:
            for name in scenarios - set(names):
                setattr(suite, name, None)
        return suite

    return choose


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


@only(*CHOSEN, *DEATHS_OF_THREADS)
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


@only(*CHOSEN, *DEATHS_OF_CHILDREN)
class TestRabbitPrefork(OnCelery):
    """The worker is started by Celery's own command for a project's app."""

    adapter_class = CeleryAdapter
    subject = "celery (RabbitMQ, prefork)"

    @pytest.fixture
    def deployment(self, stand: Stand, rabbitmq_server: RabbitBroker, project: Path) -> CeleryDeployment:
        return stand.deployment(rabbitmq_server, pool="prefork", command=partial(app_command, project))
