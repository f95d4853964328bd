"""`DaskAdapter`: lets tasks of a weave run on the workers of a Dask cluster."""

import asyncio
import logging
from collections.abc import AsyncIterator, Mapping, Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any

from wove.backend.threads import in_daemon_thread
from wove.integrations.base import BackendAdapter, JobState
from wove.integrations.gathering import Gathering
from wove_dask.settings import read_settings

if TYPE_CHECKING:
    from wove_dask.connections import Lease
    from wove_dask.jobs import Jobs, Submitted

# What is larger waits at the callback receiver instead, where its worker fetches it without troubling the scheduler.
_LARGEST_PAYLOAD = 256 * 1024
_CLOSE_SECONDS = 3.0
# A worker that has not told the weave of a task's beginning does so in this time.
_UNHEARD_SECONDS = 0.3

logger = logging.getLogger("wove")


class DaskAdapter(BackendAdapter):
    """Submits tasks to Dask workers that have this distribution installed.

    ``executor_config``: ``address`` or ``client``; ``client_options``, ``submit_options``. The README has a table.
    """

    required_modules = ("distributed",)
    install_hint = "pip install wove-dask"
    max_payload_bytes = _LARGEST_PAYLOAD
    exclusive_runs = True
    # Dask's own way, scattering, would lose an argument with the worker that has it, and every task that needs it.
    claims_apart = True
    carries_outcomes = True
    capabilities = frozenset(
        "cancel_queued cancel_running_async cancel_running_sync deduplicate detect_dead_process detect_dead_worker "
        "detect_lost_job graceful_stop max_argument_20mb queues_without_worker separate_process".split()
    )

    _lease: "Lease | None" = None
    _jobs: "Jobs | None" = None

    async def start(self) -> None:
        """Check the configuration and connect to the scheduler.

        Raises:
            ConfigurationError: a key is wrong, or none leads to a scheduler; the message shows an example.
            ConnectionError: the scheduler cannot be reached.
        """
        self._warned: str | None = None
        self._loop = asyncio.get_running_loop()
        # Not bounded itself: one entry per run that is over.
        self._news: asyncio.Queue[tuple[str, JobState]] = asyncio.Queue()
        self._unwanted: Gathering[Submitted] = Gathering(self._cancel)
        # Runs that were taken back a moment ago, and may have begun before.
        self._unheard: dict[str, asyncio.TimerHandle] = {}
        settings = read_settings(self.config, name=self.name)
        # Dask takes a while to import.
        jobs = await in_daemon_thread(import_module, "wove_dask.jobs")
        connections = await in_daemon_thread(import_module, "wove_dask.connections")
        self._lease = connections.Lease(settings, where=f"executor_config of {self.name!r}")
        self._jobs = jobs.Jobs(self._lease.connection, settings, self._report, carries=self.carries_outcomes)
        await self._jobs.connect()
        await self._warn()

    async def submit_many(self, submissions: Sequence[tuple[dict[str, Any], dict[str, Any]]]) -> Sequence["Submitted"]:
        """Submit tasks in one go; the key of each is made of the idempotency key, or else of the run's id.

        Raises:
            ConnectionError: the scheduler cannot be reached.
        """
        return await self._started.submit(submissions)

    async def cancel(self, run_id: str, submission: Any, frame: dict[str, Any]) -> None:
        """Take a task back: one that waits is not executed, and one that runs is stopped by its worker."""
        if submission is None:
            return
        await self._unwanted.add(submission)
        if submission.begun:
            return
        state = JobState("cancelled", reason="it had not begun")
        if submission.carried:
            # It may have begun a moment ago; then its worker says that it has stopped.
            self._unheard[run_id] = self._loop.call_later(_UNHEARD_SECONDS, self._tell_unheard, run_id, state)
        else:
            # Its worker, if it has one by now, would ask the weave before it begins, and be told to leave it.
            self._news.put_nowait((run_id, state))

    def heard(self, run_id: str, event_type: str) -> None:
        """Take note that a worker has begun a run: from then on it is lost with its worker."""
        if self._jobs is None:
            return
        self._jobs.heard(run_id, event_type)
        timer = self._unheard.pop(run_id, None)
        if timer is not None:
            timer.cancel()

    async def watch(self) -> AsyncIterator[tuple[str, JobState]]:
        """Yield the state of each run that is over, as soon as Dask says so."""
        while True:
            yield await self._news.get()

    async def poll(self, submissions: Mapping[str, Any]) -> Mapping[str, JobState]:
        """Return why runs wait, where no worker of the cluster can take them."""
        waiting = self._started.waiting(submissions)
        reason = await self._warn() if waiting else None
        return {} if reason is None else {run_id: JobState("queued", reason=reason) for run_id in waiting}

    async def close(self) -> None:
        """Wait a moment for tasks that are being taken back, then let go of all, and of the client."""
        if self._jobs is not None:
            for timer in self._unheard.values():
                timer.cancel()
            await self._unwanted.close(_CLOSE_SECONDS)
            await self._jobs.close()
        if self._lease is not None:
            await self._lease.close()

    @property
    def _started(self) -> "Jobs":
        if self._jobs is None:
            raise RuntimeError(f"The adapter {self.name!r} has not been started.")
        return self._jobs

    async def _warn(self) -> str | None:
        """Tell, once, that tasks have to wait for a worker that is not there; return why."""
        reason = await self._started.why_waiting()
        if reason is not None and reason != self._warned:
            logger.warning("Environment with executor %r: tasks wait, because %s", self.name, reason)
        self._warned = reason
        return reason

    async def _cancel(self, handles: "list[Submitted]") -> None:
        await self._started.cancel(handles)

    def _tell_unheard(self, run_id: str, state: JobState) -> None:
        del self._unheard[run_id]
        self._news.put_nowait((run_id, state))

    def _report(self, run_id: str, state: JobState) -> None:
        if asyncio.get_running_loop() is self._loop:
            self._news.put_nowait((run_id, state))
            return
        # The client is the project's own and lives on another loop.
        try:
            self._loop.call_soon_threadsafe(self._news.put_nowait, (run_id, state))
        except RuntimeError:
            pass  # Wove has been shut down.
