"""`CeleryAdapter`: lets tasks of a weave run on Celery workers."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, ClassVar

from wove.backend.threads import in_daemon_thread
from wove.integrations.base import BackendAdapter, JobState
from wove.integrations.gathering import Gathering
from wove.integrations.recent import RecentSubmissions
from wove_celery.first_delivery import SENT_HEADER
from wove_celery.settings import read_settings
from wove_celery.sightings import News, Sightings

if TYPE_CHECKING:
    from wove_celery.broker import Broker, Message
    from wove_celery.listener import Listener

# What is larger waits at the callback receiver instead. Brokers carry more (Redis 512 MB, RabbitMQ 4 16 MiB, SQS
# 256 KiB), but a worker's main process holds every message that it has prefetched.
_LARGEST_PAYLOAD = 1024 * 1024
_LARGEST_PAYLOAD_SQS = 150 * 1024
_CLOSE_SECONDS = 3.0

logger = logging.getLogger("wove")


class CeleryAdapter(BackendAdapter):
    """Submits tasks to Celery workers that have imported ``wove_celery.worker``.

    ``executor_config``: ``app`` or ``broker_url``; ``result_backend``, ``app_name``, ``task_name``, ``queue`` and the
    other options of ``Celery.send_task``, also below ``send_task_options``; ``terminate_on_cancel``,
    ``terminate_signal``. The README has a table.
    """

    required_modules = ("celery",)
    install_hint = "pip install wove-celery"
    max_payload_bytes = _LARGEST_PAYLOAD
    capabilities = frozenset(
        "cancel_running_async cancel_running_sync deduplicate detect_dead_process detect_dead_worker detect_lost_job "
        "graceful_stop max_argument_20mb queues_without_worker separate_process".split()
    )
    limitations: ClassVar[Mapping[str, str]] = {
        "cancel_queued": "a message cannot be taken out of the middle of a broker's queue; "
        "the job of a task that was given up stays until a worker takes it, and is dropped then"
    }

    _broker: "Broker | None" = None
    _listener: "Listener | None" = None

    async def start(self) -> None:
        """Check the configuration and connect to the broker.

        Raises:
            ConfigurationError: a key is missing or wrong; the message names it and shows an example.
            MissingDispatchFeatureError: the broker's client package is missing.
            ConnectionError: the broker cannot be reached; the message names it, without credentials.
        """
        self._settings = read_settings(self.config, name=self.name)
        self._loop = asyncio.get_running_loop()
        self._news: asyncio.Queue[tuple[str, JobState]] | None = None
        self._unwanted = Gathering(self._revoke)
        self._recent = RecentSubmissions()
        await in_daemon_thread(self._connect)

    def _connect(self) -> None:
        # Celery takes a while to import.
        from wove_celery.broker import Broker, make_app
        from wove_celery.listener import Listener, can_listen

        app = make_app(self._settings)
        self._broker = Broker(app, self._settings)
        driver = self._broker.driver
        if driver == "sqs":
            self.max_payload_bytes = _LARGEST_PAYLOAD_SQS
        self._sightings = Sightings(requeues=driver == "amqp")
        self._broker.connect()
        if can_listen(app):
            self._listener = Listener(app, self._sightings, self._report)
            self._listener.open()

    async def submit_many(self, submissions: Sequence[tuple[dict[str, Any], dict[str, Any]]]) -> Sequence[str]:
        """Send tasks, over the connection at once; the Celery id of each is its run's id.

        Raises:
            ConnectionError: the broker cannot be reached.
            DeliveryError: the broker refuses a message.
        """
        run_ids = [str(frame["run_id"]) for _, frame in submissions]
        # A broker takes a message as often as it is sent, and each would look like the first.
        fresh = {run_id: each for run_id, each in zip(run_ids, submissions, strict=True) if run_id not in self._recent}
        if fresh:
            messages = [self._message(payload, frame) for payload, frame in fresh.values()]
            await in_daemon_thread(self._connected.send, messages)
        for run_id in fresh:
            self._recent.add(run_id, run_id)
        return run_ids

    async def cancel(self, run_id: str, submission: Any, frame: dict[str, Any]) -> None:
        """Revoke a task. One that runs in a prefork worker is ended, unless ``terminate_on_cancel`` is off."""
        if submission is None:
            return
        await self._unwanted.add(run_id)

    async def watch(self) -> AsyncIterator[tuple[str, JobState]]:
        """Yield what workers say about jobs that ended without an event, and what their silence says."""
        self._news = asyncio.Queue()
        while True:
            yield await self._news.get()

    async def close(self) -> None:
        """Close the connections."""
        if self._broker is None:
            return
        closing = [self._unwanted.close(_CLOSE_SECONDS), in_daemon_thread(self._broker.close)]
        if self._listener is not None:
            closing.append(in_daemon_thread(self._listener.close))
        await asyncio.wait([asyncio.ensure_future(each) for each in closing], timeout=_CLOSE_SECONDS)

    @property
    def _connected(self) -> "Broker":
        if self._broker is None:
            raise RuntimeError(f"The adapter {self.name!r} has not been started.")
        return self._broker

    def _message(self, payload: Mapping[str, Any], frame: Mapping[str, Any]) -> "Message":
        options: dict[str, Any] = {}
        given = self._settings.options
        if "shadow" not in given:
            options["shadow"] = str(payload.get("task_name") or payload.get("task_id"))
        expires = _expiry(payload.get("deadline"), given.get("expires"))
        if expires is not None:
            options["expires"] = expires
        headers = {SENT_HEADER: time.time(), **(payload.get("trace") or {}), **given.get("headers", {})}
        options["headers"] = headers
        return str(frame["run_id"]), payload, options

    async def _revoke(self, run_ids: list[str]) -> None:
        # Only the worker that has said it holds the run is told, and all of them only where nobody has.
        by_node: dict[str | None, list[str]] = {}
        for run_id in run_ids:
            by_node.setdefault(self._sightings.node_of(run_id), []).append(run_id)
        await in_daemon_thread(self._revoke_at, by_node)

    def _revoke_at(self, by_node: Mapping[str | None, Sequence[str]]) -> None:
        for node, run_ids in by_node.items():
            self._connected.revoke(run_ids, workers=None if node is None else [node])

    def _report(self, news: News) -> None:
        """Pass news on to `watch`. Called on the listener's thread."""
        try:
            self._loop.call_soon_threadsafe(self._put, news)
        except RuntimeError:
            pass  # The loop is closed; nobody waits any more.

    def _put(self, news: News) -> None:
        if self._news is not None:
            for each in news:
                self._news.put_nowait(each)


def _expiry(deadline: float | None, given: object) -> object:
    """Return when a worker must not start the task any more: the weave's deadline or the configured one, whichever
    comes first; seconds from now, or a moment.
    """
    if deadline is None:
        return None
    now = time.time()
    left = max(deadline - now, 0.0)
    if given is None:
        return left
    if isinstance(given, str):
        given = datetime.fromisoformat(given)
    if isinstance(given, datetime):
        # Celery takes a naive datetime for one in the app's zone; a weave's deadline is nearer in any sensible case.
        return min(left, given.timestamp() - now) if given.tzinfo is not None else left
    return min(left, float(given))  # type: ignore[arg-type]
