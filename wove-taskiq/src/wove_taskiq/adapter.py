"""`TaskiqAdapter`: lets tasks of a weave run on Taskiq workers."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any

from wove.backend.threads import in_daemon_thread
from wove.integrations.base import BackendAdapter
from wove.integrations.gathering import Gathering
from wove.integrations.jobs import is_detached
from wove.integrations.recent import RecentSubmissions
from wove_taskiq.settings import read_settings

if TYPE_CHECKING:
    from wove_taskiq.jobs import Entry, Jobs

# What is larger waits at the callback receiver instead: Taskiq encodes messages on the event loop, and a message is
# named by its text when it has to be removed from a list.
_LARGEST_PAYLOAD = 64 * 1024
_CLOSE_SECONDS = 3.0
# How soon what is left in a stream of a task that has ended is removed.
_SWEEP_SECONDS, _LONGEST_PAUSE = 0.5, 5.0
_LAST_SWEEP_SECONDS = 0.3
_LAST_PAUSE = 0.03

_NOT_SEEN = (
    "Taskiq keeps no record of who executes what. Missed heartbeats tell: set delivery_heartbeat_seconds for tasks "
    "whose loss has to be noticed soon."
)

logger = logging.getLogger("wove")


class Submitted:
    """The handle of a message.

    Attributes:
        task_id: Taskiq's id.
        entry: where the message is.
    """

    __slots__ = ("entry", "task_id")

    def __init__(self, task_id: str, entry: "Entry") -> None:
        self.task_id = task_id
        self.entry = entry

    def __repr__(self) -> str:
        return f"<Taskiq task {self.task_id}>"


class TaskiqAdapter(BackendAdapter):
    """Submits tasks to Taskiq workers that have imported `wove_taskiq.worker`.

    ``executor_config``: ``broker`` or ``task``; ``task_name``, ``queue_name``, ``labels``, ``stream``. The README has a
    table.
    """

    required_modules = ("taskiq", "taskiq_redis")
    install_hint = "pip install wove-taskiq"
    max_payload_bytes = _LARGEST_PAYLOAD
    capabilities = frozenset(
        "cancel_queued cancel_running_async cancel_running_sync deduplicate graceful_stop max_argument_20mb "
        "queues_without_worker separate_process".split()
    )
    limitations = {  # noqa: RUF012
        "detect_dead_process": _NOT_SEEN,
        "detect_dead_worker": _NOT_SEEN,
        "detect_lost_job": _NOT_SEEN,
    }

    _jobs: "Jobs | None" = None
    _sweeping: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Check the configuration, connect to the broker and start it.

        Raises:
            ConfigurationError: a key is missing or wrong; the message names it and shows an example.
            ConnectionError: the broker cannot be reached; the message names it, without credentials.
        """
        self._pause = _SWEEP_SECONDS
        self._recent = RecentSubmissions()
        settings = read_settings(self.config, name=self.name)
        # Taskiq takes a while to import.
        jobs = await in_daemon_thread(import_module, "wove_taskiq.jobs")
        self._jobs = jobs.Jobs(settings)
        self._unwanted: Gathering[Entry] = Gathering(self._connected.remove)
        await self._connected.connect()

    async def submit_many(
        self, submissions: Sequence[tuple[dict[str, Any], dict[str, Any]]]
    ) -> Sequence[Submitted | Exception]:
        """Send messages in one go; the id of each is the run's.

        Returns:
            For each message its handle, or a DeliveryError: the broker, or a middleware of the project, refuses it.

        Raises:
            ConnectionError: the broker cannot be reached.
        """
        known = {run_id: self._recent[run_id] for run_id in map(_run_id, submissions) if run_id in self._recent}
        # A broker takes a message as often as it is sent, and each would look like the first.
        fresh = {_run_id(each): each for each in submissions if _run_id(each) not in known}
        entries = await self._connected.send([(run_id, payload) for run_id, (payload, _) in fresh.items()])
        self._pause = _SWEEP_SECONDS
        outcomes: dict[str, Submitted | Exception] = dict(known)
        for (run_id, (_, frame)), entry in zip(fresh.items(), entries, strict=True):
            if isinstance(entry, Exception):
                outcomes[run_id] = entry
                continue
            outcomes[run_id] = handle = Submitted(run_id, entry)
            self._recent.add(run_id, handle)
            if is_detached(frame):
                self._connected.let_outlive(entry)
        if self._connected.has_sent and (self._sweeping is None or self._sweeping.done()):
            self._sweeping = asyncio.get_running_loop().create_task(self._sweep())
        return [outcomes[run_id] for run_id in map(_run_id, submissions)]

    async def cancel(self, run_id: str, submission: Any, frame: dict[str, Any]) -> None:
        """Remove a message that no worker has taken. A worker that has is told by the answer to its next event."""
        if not isinstance(submission, Submitted) or submission.entry.item is None:
            return
        await self._unwanted.add(submission.entry)

    async def close(self) -> None:
        """Remove what there is to be removed, then close the connections."""
        if self._jobs is None:
            return
        await self._unwanted.close(_CLOSE_SECONDS)
        if self._sweeping is not None:
            self._sweeping.cancel()
            await asyncio.wait([self._sweeping], timeout=_CLOSE_SECONDS)
            await self._sweep_at_last()
        await self._jobs.close()

    @property
    def _connected(self) -> "Jobs":
        if self._jobs is None:
            raise RuntimeError(f"The adapter {self.name!r} has not been started.")
        return self._jobs

    async def _sweep(self) -> None:
        while self._connected.has_sent:
            await asyncio.sleep(self._pause)
            self._pause = min(2 * self._pause, _LONGEST_PAUSE)
            await self._tidy(self._connected.sweep)

    async def _sweep_at_last(self) -> None:
        """Wait a moment for workers that are about to acknowledge what they have reported."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + _LAST_SWEEP_SECONDS
        await self._tidy(self._connected.sweep)
        while self._connected.has_sent and loop.time() < deadline:
            await asyncio.sleep(_LAST_PAUSE)
            await self._tidy(self._connected.sweep)
        await self._tidy(self._connected.abandon)

    async def _tidy(self, removal: Callable[[], Awaitable[None]]) -> None:
        try:
            await removal()
        except Exception as error:  # Redis is away for a moment, perhaps.
            logger.debug("Removing old tasks from the stream failed: %s", error)


def _run_id(submission: tuple[dict[str, Any], dict[str, Any]]) -> str:
    return str(submission[1]["run_id"])
