"""Listens, on a thread of its own, to what workers say about the runs that they hold."""

import logging
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any
from uuid import uuid4

from celery import Celery
from celery.events.event import get_exchange
from kombu import Connection, Consumer, Queue

from wove_celery.connections import RETRIES, discard, new_connection, release, transport_class
from wove_celery.sightings import News, Sightings, read_roll_call

# The group of the event type "wove-runs", see `wove_celery.presence`.
ROUTING_KEY = "wove.#"
_TICK_SECONDS = 0.2
_FIRST_PAUSE, _LONGEST_PAUSE = 1.0, 15.0
# Should this process die, the broker drops its queue.
_QUEUE_EXPIRES_SECONDS = 60.0

logger = logging.getLogger("wove")


def can_listen(app: Celery) -> bool:
    """Tell whether the kind of broker can pass events on to several listeners."""
    return "fanout" in transport_class(app).implements.exchange_type


class Listener:
    """Hears the roll calls of workers. One per adapter; `open` and `close` belong to other threads than its own.

    Args:
        app: the app whose workers are listened to.
        sightings: is told what they say.
        report: is called on the listener's thread with what follows.
    """

    def __init__(self, app: Celery, sightings: Sightings, report: Callable[[News], None]) -> None:
        self._app = app
        self._sightings = sightings
        self._report = report
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None

    def open(self) -> None:
        """Begin to listen; when it returns, no event is missed any more.

        Where the broker does not let it listen, a warning is logged, and it is tried again later.
        """
        connection = self._subscribed()
        self._thread = threading.Thread(target=self._run, args=(connection,), name="wove-celery-events", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End the thread; takes a fraction of a second."""
        self._stopped.set()
        if self._thread is not None:
            self._thread.join(timeout=2.0)

    def _run(self, subscribed: "_Subscription | None") -> None:
        pause = _FIRST_PAUSE
        while not self._stopped.is_set():
            if subscribed is None:
                if self._stopped.wait(pause):
                    return
                pause = min(2 * pause, _LONGEST_PAUSE)
                subscribed = self._subscribed(level=logging.DEBUG)
                continue
            pause = _FIRST_PAUSE
            try:
                self._listen(subscribed)
            except Exception as error:  # Whatever a broken connection raises; another one is tried.
                logger.debug("Listening to Celery workers was interrupted: %r", error)
                # Silence means nothing while nobody listens.
                self._sightings.forget()
            finally:
                subscribed.close()
                subscribed = None

    def _subscribed(self, level: int = logging.WARNING) -> "_Subscription | None":
        try:
            return _Subscription(self._app, self._on_event)
        except Exception as error:  # Whatever a broker may object to.
            logger.log(level, "Celery workers cannot be listened to (%s); their death is noticed later.", error)
            return None

    def _listen(self, subscription: "_Subscription") -> None:
        while not self._stopped.is_set():
            subscription.drain(_TICK_SECONDS)
            news = self._sightings.lost(now=time.monotonic())
            if news:
                self._report(news)

    def _on_event(self, body: Any, message: Any) -> None:
        for event in body if isinstance(body, list) else [body]:
            try:
                call = read_roll_call(event)
            except ValueError as error:
                logger.debug("%s", error)
                continue
            news = self._sightings.heard(call, now=time.monotonic())
            if news:
                self._report(news)


class _Subscription:
    """A connection with a queue of its own that gets the events of workers."""

    def __init__(self, app: Celery, on_event: Callable[[Any, Any], None]) -> None:
        self._connection: Connection = new_connection(app)
        self._stack = ExitStack()
        try:
            self._connection.ensure_connection(**RETRIES)
            queue = Queue(
                f"{app.conf.event_queue_prefix}.wove-{uuid4().hex}",
                exchange=get_exchange(self._connection, name=app.conf.event_exchange),
                routing_key=ROUTING_KEY,
                auto_delete=True,
                durable=False,
                expires=_QUEUE_EXPIRES_SECONDS,
            )
            accept = {"json", app.conf.event_serializer}
            self._stack.enter_context(
                Consumer(self._connection.default_channel, [queue], callbacks=[on_event], no_ack=True, accept=accept)
            )
        except BaseException:
            discard(self._connection)
            raise

    def drain(self, seconds: float) -> None:
        """Handle what comes within some seconds."""
        try:
            self._connection.drain_events(timeout=seconds)
        except TimeoutError:
            pass

    def close(self) -> None:
        """Unsubscribe and close the connection."""
        try:
            self._stack.close()
        except Exception:  # The connection is broken; the broker drops the queue.
            discard(self._connection)
        else:
            release(self._connection)
