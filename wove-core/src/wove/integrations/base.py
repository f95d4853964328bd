"""The contract of a backend adapter: how one selected task enters a task system that the project already runs."""

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, get_args

from wove.errors import did_you_mean

CONTRACT_VERSION = 1

JobPhase = Literal["queued", "running", "finished", "failed", "cancelled", "gone"]


@dataclass(frozen=True, slots=True)
class JobState:
    """What a backend says about one job.

    Attributes:
        phase: ``finished``, ``failed``, ``cancelled`` and ``gone`` mean that no more events can be expected from the
            job.
        exit_code: the exit code of the job's process where the backend knows it.
        reason: the backend's own words, for the error message.
        grace: seconds that a final event may still take, where the backend knows that it takes less than the
            environment's ``dead_job_grace``. None: that counts.
        outcome: what ``run(payload, returns=...)`` returned on the worker, where the backend has carried it back as the
            job's result. It counts as the final event that it is.

    Raises:
        ValueError: there is no such phase.
    """

    phase: JobPhase
    exit_code: int | None = None
    reason: str | None = None
    grace: float | None = None
    outcome: bytes | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        # Taken as it is, a misspelled "running" would end a healthy task.
        phases = get_args(JobPhase)
        if self.phase not in phases:
            raise ValueError(f"No phase {self.phase!r}.{did_you_mean(str(self.phase), phases)} {', '.join(phases)}.")

    @property
    def over(self) -> bool:
        """Whether the backend considers the job as ended."""
        return self.phase not in ("queued", "running")


class BackendAdapter:
    """Submits Wove payloads to one backend. It never executes a task and never blocks the event loop.

    One adapter instance serves every weave of the process that uses the same configuration: `start` is called once,
    `close` when the adapter has been idle for a while, at ``wove.shutdown()`` or at interpreter exit. All methods are
    called on Wove's background event loop; blocking client calls belong into a thread (``asyncio.to_thread``).

    Attributes:
        required_modules: import names (dotted ones too) that must be importable; checked before `start`.
        install_hint: what to ``pip install`` when one is missing.
        contract_version: the version of this contract that the adapter was written for.
        max_payload_bytes: the largest payload (bytes of JSON) that the backend carries; a larger one stays with the
            callback receiver and the worker fetches it. None: no limit.
        poll_interval: seconds between two calls of `poll` while runs are in flight.
        exclusive_runs: whether the first worker that begins a run is the only one that ever may, for backends that
            start a job again by themselves after its worker has died. Otherwise another worker may take over when the
            first has not been heard for its lease.
        carries_apart: whether `submit` takes large arguments apart from the payload: ``frame["apart"]`` is a list of
            `wove.backend.apart.Apart`, the same object for every run that needs it, and the worker announces them with
            `wove.backend.apart.values_apart` before it executes the payload.
        claims_apart: whether large arguments stay with the callback receiver, apart from the payload, where each worker
            process fetches them once, however many items of a map need them. For backends whose worker processes
            execute many runs; nothing is left to `submit` then.
        carries_outcomes: whether the results of jobs come back to the adapter, which may let workers return outcomes
            instead of posting them (``run(payload, returns=...)``) and pass them on in `JobState`. An adapter that does
            so looks here: where it is False, as in some scenarios of the conformance kit, every outcome is posted.
        capabilities: what the backend can do beyond submitting, out of `CAPABILITIES`; chooses the scenarios of the
            conformance kit.
        limitations: for each other one of `CAPABILITIES`, a sentence that says why; the documentation shows it.

    Args:
        name: the executor name, e.g. ``"celery"``.
        config: the environment's ``executor_config``.
        callback_url: the URL that workers post events to; also ``payload["callback_url"]``.
        run_config: the effective settings of the environment.
    """

    required_modules: ClassVar[Sequence[str]] = ()
    install_hint: ClassVar[str | None] = None
    contract_version: ClassVar[int] = CONTRACT_VERSION
    max_payload_bytes: int | None = None
    poll_interval: float = 5.0
    exclusive_runs: bool = False
    carries_apart: bool = False
    claims_apart: bool = False
    carries_outcomes: bool = False
    capabilities: ClassVar[frozenset[str]] = frozenset()
    limitations: ClassVar[Mapping[str, str]] = {}

    def __init__(
        self, *, name: str, config: Mapping[str, Any], callback_url: str, run_config: Mapping[str, Any]
    ) -> None:
        self.name = name
        self.config = dict(config)
        self.callback_url = callback_url
        self.run_config = run_config

    async def start(self) -> None:
        """Create clients, open queues, validate `config`.

        Raises:
            ConfigurationError: a key is missing or wrong; the message names the key and shows an example.
            ConnectionError: the backend cannot be reached (no credentials in the message).
        """

    async def submit(self, payload: dict[str, Any], frame: dict[str, Any]) -> Any:
        """Hand one payload to the backend, its Wove fields unchanged, and return the backend's handle of the
        submission. The default calls `submit_many`.

        Args:
            payload: the JSON-safe payload that the worker gives to ``wove.integrations.worker.run`` or ``arun``.
            frame: the ``run_task`` frame; its ``run_id`` is legal as an id in every supported backend, and
                ``frame["delivery"].get("delivery_idempotency_key")`` takes its place where the backend removes
                duplicates.

        Raises:
            Exception: any; it becomes the task's failure, as a retryable one.
        """
        if type(self).submit_many is BackendAdapter.submit_many:
            raise NotImplementedError(f"{type(self).__name__} does not implement submit()")
        (result,) = await self.submit_many([(payload, frame)])
        if isinstance(result, Exception):
            raise result
        return result

    async def submit_many(self, submissions: Sequence[tuple[dict[str, Any], dict[str, Any]]]) -> Sequence[Any]:
        """Hand over several payloads at once; used only where a class overrides it.

        Args:
            submissions: ``(payload, frame)`` pairs as for `submit`.

        Returns:
            A handle, or the exception that refused it, for each pair in order.
        """
        raise NotImplementedError(f"{type(self).__name__} does not implement submit_many()")

    def submit_now(self, payload: dict[str, Any], frame: dict[str, Any]) -> Any:
        """Hand over a payload at once, where that asks nobody and takes no time worth mentioning, so that a task which
        comes alone is spared some turns of the loop; used only where a class overrides it.

        Args:
            payload: as for `submit`.
            frame: as for `submit`.

        Returns:
            The backend's handle; None where the payload has to be submitted the usual way.

        Raises:
            Exception: as `submit`.
        """
        return None

    async def cancel(self, run_id: str, submission: Any, frame: dict[str, Any]) -> None:
        """Ask the backend to stop a run. The default does nothing: a running worker is told by the answer to its next
        event.

        Returns normally when the run is unknown or has already finished. Called at most once for a submission.
        """

    async def poll(self, submissions: Mapping[str, Any]) -> Mapping[str, JobState]:
        """Ask the backend, in one bulk query, how runs are doing; used only where a class overrides it.

        Args:
            submissions: run ids and the handles that `submit` returned, of the runs in flight.

        Returns:
            A state for each run id that the backend knows something about; a missing one means "no news".
        """
        raise NotImplementedError(f"{type(self).__name__} does not implement poll()")

    def watch(self) -> AsyncIterator[tuple[str, JobState]]:
        """Yield ``(run_id, state)`` as the backend pushes news; used only where a class overrides it."""
        raise NotImplementedError(f"{type(self).__name__} does not implement watch()")

    def heard(self, run_id: str, event_type: str) -> None:
        """Take note that a worker has reported something about a run, which tells a run that has begun from one that
        waits, and a run that is over from both. The default does nothing. Called for every event, and must not block.

        Args:
            run_id: the run.
            event_type: such as ``"task_started"``; those of `wove.backend.types.FINAL_EVENTS` end the run.
        """

    async def close(self) -> None:
        """Release what the adapter holds. Called once, also after a failed `start`."""


CAPABILITIES: Mapping[str, str] = {
    "cancel_queued": "a job that has not started can be removed from the backend",
    "cancel_running_async": "a running coroutine is stopped",
    "cancel_running_sync": "a running synchronous callable is stopped",
    "deduplicate": "the backend or its worker runs equal idempotency keys once",
    "detect_dead_process": "the backend reports that the process executing a task died",
    "detect_dead_worker": "the backend reports that a whole worker died",
    "detect_lost_job": "the backend reports a job that ended without a final event",
    "graceful_stop": "SIGTERM to the worker lets it report the running task",
    "max_argument_20mb": "an argument of 20 MB travels, directly or by claim check",
    "queues_without_worker": "a task can be submitted while no worker is up, and waits for one",
    "separate_process": "a task runs in another process than its weave, one that may die alone",
}
