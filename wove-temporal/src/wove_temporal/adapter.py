"""`TemporalAdapter`: lets tasks of a weave run on Temporal workers."""

from collections.abc import AsyncIterator
from importlib import import_module
from typing import TYPE_CHECKING, Any

from wove.backend.threads import in_daemon_thread
from wove.integrations.base import BackendAdapter, JobState
from wove_temporal.settings import read_settings

if TYPE_CHECKING:
    from wove_temporal.jobs import Submitted
    from wove_temporal.session import Session

# What is larger waits at the callback receiver instead. Temporal refuses 2 MB and warns of 512 KiB, and keeps every
# argument for as long as its namespace keeps what is closed: https://docs.temporal.io/cloud/limits
_LARGEST_PAYLOAD = 256 * 1024


class TemporalAdapter(BackendAdapter):
    """Submits tasks to Temporal workers that have `WovePlugin`, or to a workflow of the project.

    ``executor_config``: ``client`` or ``target_host``, ``namespace`` and ``connect_options``; ``task_queue``,
    ``workflow``, ``workflow_id_prefix``, ``start_options``, four timeouts, ``retry_policy``, ``priority``. The README
    has a table.
    """

    required_modules = ("temporalio",)
    install_hint = "pip install wove-temporal"
    max_payload_bytes = _LARGEST_PAYLOAD
    claims_apart = True
    capabilities = frozenset(
        "cancel_queued cancel_running_async cancel_running_sync deduplicate detect_dead_process detect_dead_worker "
        "detect_lost_job graceful_stop max_argument_20mb queues_without_worker separate_process".split()
    )

    _session: "Session | None" = None

    async def start(self) -> None:
        """Check the configuration, connect, and see what the server can do. Where no worker is seen, a warning is
        logged.

        Raises:
            ConfigurationError: a key is wrong, or there is no such namespace; the message names it.
            ConnectionError: the server cannot be reached; the message names it, without credentials.
        """
        settings = read_settings(self.config, name=self.name)
        # Temporal's SDK takes a while to import.
        session = await in_daemon_thread(import_module, "wove_temporal.session")
        self._session = await session.open_session(settings, where=f"executor_config of {self.name!r}")

    async def submit(self, payload: dict[str, Any], frame: dict[str, Any]) -> "Submitted":
        """Start an activity or a workflow; its id is made of the idempotency key, or else of the run's id.

        Raises:
            ConnectionError: the server cannot be reached.
            DeliveryError: the server refuses, or another weave's job has the same idempotency key.
        """
        return await self._opened.submit(payload, frame)

    async def cancel(self, run_id: str, submission: Any, frame: dict[str, Any]) -> None:
        """End a job that is queued, and ask one that runs to stop.

        Raises:
            ConnectionError: the server cannot be reached.
        """
        await self._opened.cancel(submission)

    def watch(self) -> AsyncIterator[tuple[str, JobState]]:
        """Yield how jobs have ended, as soon as the server says so."""
        return self._opened.watch()

    def heard(self, run_id: str, event_type: str = "") -> None:
        """Take note that a run has begun, so that it is not started again, or is over."""
        self._opened.heard(run_id, event_type)

    async def close(self) -> None:
        """Wait for no job any more, and drop the connection."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    @property
    def _opened(self) -> "Session":
        if self._session is None:
            raise RuntimeError(f"The adapter {self.name!r} has not been started.")
        return self._session
