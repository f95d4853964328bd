"""Finds, or makes, the broker of a configuration, and gives it connections of its own."""

import copy
import importlib
import inspect
from collections import defaultdict
from collections.abc import Mapping
from typing import Any

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import ConstantBackoff, NoBackoff
from taskiq import AsyncBroker, AsyncTaskiqDecoratedTask, TaskiqState
from taskiq.brokers.shared_broker import AsyncSharedBroker
from taskiq.result_backends.dummy import DummyResultBackend
from taskiq_redis import ListQueueBroker, RedisStreamBroker
from taskiq_redis.redis_broker import BaseRedisBroker

from wove.errors import ConfigurationError
from wove_taskiq.settings import DEFAULT_QUEUE_NAME, DEFAULT_TASK_NAME, Settings

# How long Redis may take to accept a connection and to answer; each is tried twice.
_CONNECT_SECONDS = 3.0
_ANSWER_SECONDS = 5.0
RETRY_PAUSE = 0.1


class Target:
    """Where messages go.

    Attributes:
        broker: belongs to the adapter, unless it is one that cannot be copied.
        task_name: of the task that executes payloads.
        labels: of every message.
    """

    def __init__(self, broker: AsyncBroker, task_name: str, labels: Mapping[str, Any]) -> None:
        self.broker = broker
        self.task_name = task_name
        self.labels = dict(labels)


def find_target(settings: Settings) -> Target:
    """Return the target of a configuration, not connected yet. To be called on the loop that uses it.

    Raises:
        ConfigurationError: an import path leads to no broker or task, or a URL is wrong.
    """
    if settings.task is not None:
        task = _imported("task", settings.task)
        if not isinstance(task, AsyncTaskiqDecoratedTask):
            raise ConfigurationError(f"task: {settings.task!r} is not a Taskiq task, but a {type(task).__name__}.")
        broker, name, labels = _broker_of(task), task.task_name, {**task.labels, **settings.labels}
    else:
        broker = _own_broker(settings) if settings.url is not None else _given_broker(settings.broker)
        name, labels = settings.task_name or DEFAULT_TASK_NAME, dict(settings.labels)
    if not isinstance(broker, AsyncBroker):
        raise ConfigurationError(f"broker: {settings.broker!r} is not a Taskiq broker, but a {type(broker).__name__}.")
    if isinstance(broker, BaseRedisBroker):
        broker = _with_own_connections(broker)
        if settings.queue_name is not None:
            broker.queue_name = settings.queue_name
    elif settings.queue_name is not None:
        labels["queue_name"] = settings.queue_name
    return Target(broker, name, labels)


def make_redis_broker(url: str, *, stream: bool, queue_name: str | None = None) -> BaseRedisBroker:
    """Return a broker of taskiq-redis.

    Raises:
        ConfigurationError: the URL is wrong.
    """
    queue = queue_name or DEFAULT_QUEUE_NAME
    try:
        # A group that begins with the stream, "0", gets what was sent before there was a worker, too.
        return (
            RedisStreamBroker(url, queue_name=queue, consumer_id="0")
            if stream
            else ListQueueBroker(url, queue_name=queue)
        )
    except (TypeError, ValueError) as error:
        # The text may hold a password.
        raise ConfigurationError(
            f"broker: a part of the URL is wrong ({type(error).__name__}). Give for example 'redis://localhost:6379/0'."
        ) from None


def address(broker: AsyncBroker) -> str:
    """Return where a broker's server is, without user name and password."""
    pool = getattr(broker, "connection_pool", None)
    if pool is None:
        return type(broker).__name__
    fields = pool.connection_kwargs
    return str(fields.get("path") or f"{fields.get('host', 'localhost')}:{fields.get('port', 6379)}")


def client_without_retries(broker: BaseRedisBroker) -> Redis:
    """Return a client with connections of its own, which sends nothing twice."""
    pool = broker.connection_pool
    return Redis(connection_pool=_pool_like(pool, {**pool.connection_kwargs, "retry": Retry(NoBackoff(), 0)}))


def _pool_like(pool: Any, arguments: Mapping[str, Any]) -> Any:
    return type(pool)(connection_class=pool.connection_class, max_connections=pool.max_connections, **arguments)


def _own_broker(settings: Settings) -> BaseRedisBroker:
    return make_redis_broker(settings.url or "", stream=settings.stream, queue_name=settings.queue_name)


def _given_broker(given: Any) -> Any:
    broker = _imported("broker", given)
    # As in Taskiq's own command line, the path may lead to a function that makes the broker.
    return broker() if inspect.isfunction(broker) else broker


def _broker_of(task: Any) -> Any:
    broker = task.broker
    if not isinstance(broker, AsyncSharedBroker):
        return broker
    default = task.kicker().broker
    if default is broker:
        raise ConfigurationError(
            f"task: {task.task_name!r} is a shared task that has no broker. Give 'broker' and "
            f"'task_name': {task.task_name!r} instead."
        )
    return default


def _imported(key: str, given: Any) -> Any:
    if not isinstance(given, str):
        return given
    module, _, attribute = given.partition(":")
    try:
        found = importlib.import_module(module)
        for name in attribute.split("."):
            found = getattr(found, name)
    except (ImportError, AttributeError) as error:
        raise ConfigurationError(f"{key}: {given!r} cannot be imported: {error}.") from error
    return found


def _with_own_connections(given: BaseRedisBroker) -> BaseRedisBroker:
    """Return a copy for this loop: the connections of the project's own broker belong to the project's loop."""
    pool = given.connection_pool
    arguments = {**pool.connection_kwargs}
    arguments["socket_connect_timeout"] = arguments.get("socket_connect_timeout") or _CONNECT_SECONDS
    arguments["socket_timeout"] = arguments.get("socket_timeout") or _ANSWER_SECONDS
    arguments["retry"] = Retry(ConstantBackoff(RETRY_PAUSE), 1)
    own = copy.copy(given)
    own.connection_pool = _pool_like(pool, arguments)
    # The project's handlers fill the project's state; nobody reads results here.
    own.event_handlers = defaultdict(list)
    own.state = TaskiqState()
    own.result_backend = DummyResultBackend()
    return own
