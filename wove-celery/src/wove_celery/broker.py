"""The adapter's connection to the broker: everything that it sends goes through here, blocking, from any thread."""

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache
from typing import Any, TypeVar

from celery import Celery
from celery.app.utils import find_app
from kombu import Connection, Producer
from kombu.exceptions import OperationalError

from wove.errors import ConfigurationError, DeliveryError
from wove_celery.connections import (
    RETRIES,
    address,
    discard,
    missing_client,
    new_connection,
    release,
    transport_class,
    unreachable,
)
from wove_celery.first_delivery import SENT_AGAIN, SENT_HEADER
from wove_celery.settings import REVOKE_COMMAND, REVOKE_FLAG, Settings

T = TypeVar("T")

# How long a broker that accepts connections may take to answer, unless the app's transport options say otherwise.
_ANSWER_SECONDS = 10.0

Message = tuple[str, Mapping[str, Any], Mapping[str, Any]]
"""A run's id, its payload, and further options for ``send_task``."""


def make_app(settings: Settings) -> Celery:
    """Return the app that submits: the project's own, or one made for the broker.

    Raises:
        ConfigurationError: the import path leads to no app.
    """
    if settings.app is None:
        urls = settings.broker_url
        return _made_app(
            settings.app_name, urls if isinstance(urls, str) else tuple(urls or ()), settings.result_backend
        )
    if not isinstance(settings.app, str):
        return settings.app
    try:
        return find_app(settings.app)
    except Exception as error:  # An import runs the project's own code.
        raise ConfigurationError(
            f"app: {settings.app!r} leads to no Celery app ({type(error).__name__}: {error}). "
            "Give an import path such as 'myproject.celery:app'."
        ) from error


# Kept: an app holds a file descriptor until the garbage collector finds it, and takes a while to make.
@lru_cache(maxsize=32)
def _made_app(name: str, broker: str | tuple[str, ...], backend: str | None) -> Celery:
    urls = broker if isinstance(broker, str) else list(broker)
    # Not the current app: a process that has one of its own must not notice this one.
    return Celery(name, broker=urls, backend=backend, set_as_current=False)


class Broker:
    """One connection, used by one thread at a time. It is opened on first use, and anew when it has broken.

    Attributes:
        driver: the kind of broker: ``"amqp"``, ``"redis"``, ...

    Args:
        app: the Celery app whose broker it is.
        settings: how tasks are submitted.

    Raises:
        ConfigurationError: there is no such kind of broker.
    """

    def __init__(self, app: Celery, settings: Settings) -> None:
        self._app = app
        self._settings = settings
        self._lock = threading.Lock()
        self._producer: Producer | None = None
        self.driver = str(transport_class(app).driver_type)

    def connect(self) -> None:
        """Open the connection.

        Raises:
            MissingDispatchFeatureError: the client's package is missing.
            ConnectionError: the broker cannot be reached; names it without credentials.
        """
        self._with_producer(lambda producer: None)

    def send(self, messages: Sequence[Message]) -> None:
        """Submit payloads, in one go where the client can.

        Raises:
            ConnectionError: the broker cannot be reached. None, some or all of the payloads have arrived.
            DeliveryError: the broker refuses them.
        """
        attempts = iter((messages, _again(messages)))
        self._with_producer(lambda producer: self._send_all(producer, next(attempts)))

    def revoke(self, run_ids: Sequence[str], *, workers: Sequence[str] | None) -> None:
        """Tell workers not to start runs, and to end those that they execute.

        Args:
            run_ids: the runs.
            workers: node names; None tells all that there are.

        Raises:
            ConnectionError: the broker cannot be reached.
        """
        arguments: dict[str, Any] = {
            "task_id": list(run_ids),
            "terminate": self._settings.terminate,
            REVOKE_FLAG: True,
        }
        if self._settings.terminate:
            arguments["signal"] = self._settings.signal
        self._with_producer(lambda producer: self._broadcast(producer, REVOKE_COMMAND, arguments, workers))

    def close(self) -> None:
        """Close the connection. What it was doing in another thread ends before."""
        with self._lock:
            producer, self._producer = self._producer, None
            if producer is not None:
                release(producer.connection)

    def _send_all(self, producer: Producer, messages: Sequence[Message]) -> None:
        with _batch(producer, len(messages)):
            for run_id, payload, options in messages:
                self._send_one(producer, run_id, payload, options)
        if self.driver == "amqp":
            # Publishing is not answered in AMQP. The answer to any later method on the channel says that the broker
            # has read everything before it; a dead connection would otherwise swallow the messages in silence.
            producer.channel.basic_qos(0, 0, False)

    def _send_one(
        self, producer: Producer, run_id: str, payload: Mapping[str, Any], options: Mapping[str, Any]
    ) -> None:
        self._app.send_task(
            self._settings.task_name,
            args=[payload],
            task_id=run_id,
            producer=producer,
            **{**_DEFAULTS, **self._settings.options, **options},
        )

    def _broadcast(
        self, producer: Producer, command: str, arguments: dict[str, Any], workers: Sequence[str] | None
    ) -> None:
        mailbox = self._app.control.mailbox(producer.connection)
        # Its own producers come from the app's pool, which would wait for a dead broker.
        mailbox.producer_pool = None
        mailbox._broadcast(command, arguments, destination=None if workers is None else list(workers))

    def _with_producer(self, use: Callable[[Producer], T]) -> T:
        with self._lock:
            kept = self._producer is not None
            try:
                return self._attempt(use)
            except ConnectionError:
                if not kept:
                    raise
            # The broker may have closed a connection that has been idle for long, or may have been restarted.
            return self._attempt(use)

    def _attempt(self, use: Callable[[Producer], T]) -> T:
        connection = self._producer.connection if self._producer is not None else self._new_connection()
        try:
            if self._producer is None:
                connection.ensure_connection(**RETRIES)
                self._producer = self._app.amqp.Producer(connection, auto_declare=False)
            return use(self._producer)
        except ImportError as error:
            raise missing_client(error) from error
        except (OperationalError, OSError, *connection.connection_errors) as error:
            self._drop()
            raise unreachable(connection, error) from error
        except connection.channel_errors as error:
            self._drop()
            raise DeliveryError(f"The Celery broker at {address(connection)} refuses it: {error}") from error

    def _new_connection(self) -> Connection:
        return new_connection(self._app, answer_seconds=_ANSWER_SECONDS)

    def _drop(self) -> None:
        producer, self._producer = self._producer, None
        if producer is not None:
            discard(producer.connection)


_DEFAULTS: Mapping[str, Any] = {
    # The result travels by callback. A result that Celery expected would cost a subscription for each task.
    "ignore_result": True,
    "serializer": "json",
    # Celery would copy a part of the payload, with its key, into the headers that monitoring tools show.
    "argsrepr": "(...)",
    "kwargsrepr": "{}",
    "retry": False,
}


def _again(messages: Sequence[Message]) -> Sequence[Message]:
    """Return messages of which some may have arrived already: no worker may take these for the first ones."""
    return [
        (run_id, payload, {**options, "headers": {**options.get("headers", {}), SENT_HEADER: SENT_AGAIN}})
        for run_id, payload, options in messages
    ]


@contextmanager
def _batch(producer: Producer, size: int) -> Iterator[None]:
    # Since kombu 5.7; Redis then gets all messages in one pipeline.
    if size > 1 and getattr(producer, "supports_batch_publish", False):
        with producer.batch():
            yield
    else:
        yield
