"""Connections to a broker that give up within seconds, and how to get rid of them."""

import re
from collections.abc import Callable
from typing import Any

from celery import Celery
from kombu import Connection

from wove.errors import ConfigurationError, MissingDispatchFeatureError, nearest_name

# A dead broker must be noticed within seconds: kombu's own defaults retry for much longer.
RETRIES = {"max_retries": 1, "interval_start": 0.0, "interval_step": 0.1, "interval_max": 0.1}
_LONGEST_CONNECT = 5.0
_ANSWER_LIMITS = {"amqp": ("read_timeout", "write_timeout"), "redis": ("socket_timeout",)}
_SHORTEST_SECRET = 4
_SCHEMES = ("amqp", "pyamqp", "redis", "rediss", "sentinel", "sqs")


def new_connection(app: Celery, *, answer_seconds: float | None = None) -> Connection:
    """Return a connection, not opened yet, that gives up on a dead broker within seconds.

    Args:
        app: the app whose broker it is.
        answer_seconds: how long the broker may take for an answer; None waits for any time.
    """
    limit = min(app.conf.broker_connection_timeout or _LONGEST_CONNECT, _LONGEST_CONNECT)
    timeouts: dict[str, float] = {}
    driver = transport_class(app).driver_type
    if driver == "redis":
        timeouts["socket_connect_timeout"] = limit
    if answer_seconds is not None:
        timeouts.update(dict.fromkeys(_ANSWER_LIMITS.get(driver, ()), answer_seconds))
    given = app.conf.broker_transport_options or {}
    return app.connection_for_write(connect_timeout=limit, transport_options={**timeouts, **given, **RETRIES})


def transport_class(app: Celery) -> Any:
    """Return kombu's class for the kind of broker that an app has.

    Raises:
        ConfigurationError: there is no such kind of broker.
        MissingDispatchFeatureError: the client's package is missing.
    """
    try:
        # Not the connection's `transport`: that one opens file descriptors.
        return app.connection_for_write().get_transport_cls()
    except ImportError as error:
        raise missing_client(error) from error
    except KeyError as error:
        scheme = str(app.conf.broker_write_url).partition("://")[0]
        nearest = nearest_name(scheme, _SCHEMES)
        hint = f" Did you mean {nearest!r}?" if nearest else ""
        raise ConfigurationError(
            f"broker_url: Celery knows no broker of the kind {scheme!r}.{hint} "
            "Examples: 'redis://localhost:6379/0', 'amqp://user:password@localhost//'."
        ) from error


def missing_client(error: ImportError) -> MissingDispatchFeatureError:
    """Return the error for a broker whose client package is not installed."""
    return MissingDispatchFeatureError(f"The Celery broker ({error})", install='pip install "wove-celery[redis]"')


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


def release(connection: Connection) -> None:
    """Close a connection politely; never raises."""
    _close(connection, connection.release)


def discard(connection: Connection) -> None:
    """Close a connection without asking the broker, which may not answer any more; never raises."""
    if connection.get_transport_cls().driver_type == "amqp":
        _close(connection, connection.collect)
    else:
        _close(connection, connection.release)


def _close(connection: Connection, close: Callable[[], object]) -> None:
    transport = connection.transport
    try:
        close()
    except Exception:  # It is broken: there is nothing to be polite to.
        pass
    # Kombu leaves a virtual transport's epoll descriptor to the garbage collector.
    poller = getattr(getattr(transport, "cycle", None), "poller", None)
    if poller is not None:
        poller.close()
