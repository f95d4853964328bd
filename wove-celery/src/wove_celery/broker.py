"""The adapter's connection to the broker: everything that it sends goes through here, blocking, from any thread."""

import re
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

from celery import Celery
from celery.app.utils import find_app
from kombu import Connection, Producer
from kombu.exceptions import OperationalError

from wove.errors import ConfigurationError, DeliveryError, MissingDispatchFeatureError, nearest_name
from wove_celery.settings import Settings

T = TypeVar("T")

# A dead broker must be noticed within seconds: kombu's own defaults retry for much longer.
_RETRIES = {"max_retries": 1, "interval_start": 0.0, "interval_step": 0.1, "interval_max": 0.1}
# How long a broker that accepts connections may take to answer, unless the app's transport options say otherwise.
_ANSWER_SECONDS = 10.0
_ANSWER_LIMITS = {"amqp": ("read_timeout", "write_timeout"), "redis": ("socket_timeout",)}
_LONGEST_CONNECT = 5.0
_SHORTEST_SECRET = 4
_SCHEMES = ("amqp", "pyamqp", "redis", "rediss", "sentinel", "sqs")

Message = tuple[str, Mapping[str, Any], Mapping[str, Any]]
"""A run's id, its payload, and further options for ``send_task``."""


def make_app(settings: Settings) -> Celery:
    """Return the app that submits: the project's own, or one made for the broker.

    Raises:
        ConfigurationError: the import path leads to no app.
    """
    if settings.app is None:
        # Not the current app: a process that has one of its own must not notice this one.
        return Celery(
            settings.app_name, broker=settings.broker_url, backend=settings.result_backend, set_as_current=False
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


class Broker:
    """One connection, used by one thread at a time. It is opened on first use, and anew when it has broken.

    Args:
        app: the Celery app whose broker it is.
        settings: how tasks are submitted.
    """

    def __init__(self, app: Celery, settings: Settings) -> None:
        self._app = app
        self._settings = settings
        self._lock = threading.Lock()
        self._producer: Producer | None = None
        check_transport(app)

    @property
    def driver(self) -> str:
        """The kind of broker: ``"amqp"``, ``"redis"``, ..."""
        return str(self._new_connection().transport.driver_type)

    def connect(self) -> None:
        """Open the connection.

        Raises:
            ConnectionError: the broker cannot be reached; names it without credentials.
        """
        self._with_producer(lambda producer: None)

    def send(self, messages: Sequence[Message]) -> None:
        """Submit payloads, in one go where the client can.

        Raises:
            ConnectionError: the broker cannot be reached. None, some or all of the payloads have arrived.
            DeliveryError: the broker refuses them.
        """
        self._with_producer(lambda producer: self._send_all(producer, messages))

    def revoke(self, run_ids: Sequence[str], *, workers: Sequence[str] | None) -> None:
        """Tell workers not to start runs, and to end those that they execute.

        Args:
            run_ids: the runs.
            workers: node names; None tells all that there are.

        Raises:
            ConnectionError: the broker cannot be reached.
        """
        arguments: dict[str, Any] = {"task_id": list(run_ids), "terminate": self._settings.terminate}
        if self._settings.terminate:
            arguments["signal"] = self._settings.signal
        self._with_producer(lambda producer: self._broadcast(producer, "revoke", arguments, workers))

    def close(self) -> None:
        """Close the connection. What it was doing in another thread ends before."""
        with self._lock:
            producer, self._producer = self._producer, None
            if producer is not None:
                try:
                    producer.connection.release()
                except Exception:  # It is closed one way or the other.
                    discard(producer.connection)

    def _send_all(self, producer: Producer, messages: Sequence[Message]) -> None:
        with _batch(producer, len(messages)):
            for run_id, payload, options in messages:
                self._send_one(producer, run_id, payload, options)
        if producer.connection.transport.driver_type == "amqp":
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
                connection.ensure_connection(**_RETRIES)
                self._producer = self._app.amqp.Producer(connection, auto_declare=False)
            return use(self._producer)
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


def new_connection(app: Celery, *, answer_seconds: float | None = None) -> Connection:
    """Return a connection, not opened yet, that gives up on a dead broker within seconds.

    Args:
        app: the app whose broker it is.
        answer_seconds: how long the broker may take for an answer; None waits for any time.
    """
    limit = min(app.conf.broker_connection_timeout or _LONGEST_CONNECT, _LONGEST_CONNECT)
    timeouts: dict[str, float] = {}
    driver = app.connection_for_write().transport.driver_type
    if driver == "redis":
        timeouts["socket_connect_timeout"] = limit
    if answer_seconds is not None:
        timeouts.update(dict.fromkeys(_ANSWER_LIMITS.get(driver, ()), answer_seconds))
    given = app.conf.broker_transport_options or {}
    return app.connection_for_write(connect_timeout=limit, transport_options={**timeouts, **given, **_RETRIES})


def check_transport(app: Celery) -> None:
    """Raise unless kombu knows the kind of broker, and what it needs is installed.

    Raises:
        ConfigurationError: there is no such kind of broker.
        MissingDispatchFeatureError: the client's package is missing.
    """
    try:
        app.connection_for_write().transport  # noqa: B018
    except ImportError as error:
        raise MissingDispatchFeatureError(
            f"The Celery broker ({error})", install='pip install "wove-celery[redis]"'
        ) from error
    except KeyError as error:
        scheme = str(app.conf.broker_write_url).partition("://")[0]
        nearest = nearest_name(scheme, _SCHEMES)
        hint = f" Did you mean {nearest!r}?" if nearest else ""
        raise ConfigurationError(
            f"broker_url: Celery knows no broker of the kind {scheme!r}.{hint} "
            "Examples: 'redis://localhost:6379/0', 'amqp://user:password@localhost//'."
        ) from error


def unreachable(connection: Connection, error: BaseException) -> ConnectionError:
    """Return the error for a broker that does not answer; it names the broker without credentials."""
    reason = str(error) or type(error).__name__
    secret = connection.password
    if secret and len(secret) >= _SHORTEST_SECRET:
        reason = reason.replace(secret, "***")
    return ConnectionError(
        f"The Celery broker at {address(connection)} cannot be reached: {reason.rstrip('.')}. "
        "Is it running, and is its URL right?"
    )


def address(connection: Connection) -> str:
    """Return the URL of a broker without user name and password."""
    return re.sub(r"//[^/@]*@", "//", str(connection.as_uri()))


def discard(connection: Connection) -> None:
    """Close a connection without asking the broker, which may not answer any more."""
    try:
        if connection.transport.driver_type == "amqp":
            connection.collect()
        else:
            connection.release()
    except Exception:  # It is broken already.
        pass


@contextmanager
def _batch(producer: Producer, size: int) -> Iterator[None]:
    # Since kombu 5.7; Redis then gets all messages in one pipeline.
    if size > 1 and getattr(producer, "supports_batch_publish", False):
        with producer.batch():
            yield
    else:
        yield
