"""`SlurmAdapter`: lets tasks of a weave run as jobs of a Slurm cluster."""

import asyncio
import importlib
import inspect
import logging
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

from wove.backend.threads import in_daemon_thread
from wove.errors import ConfigurationError, DeliveryError
from wove.integrations.base import BackendAdapter, JobState
from wove.integrations.gathering import Gathering
from wove.integrations.jobs import is_detached
from wove_slurm.commands import Commands
from wove_slurm.dispatching import Dispatcher
from wove_slurm.jobs import Job, Jobs, NewJob
from wove_slurm.logs import Logs
from wove_slurm.placing import Placement
from wove_slurm.settings import Settings, read_settings
from wove_slurm.watching import Watcher

# What is larger waits at the callback receiver instead: the controller keeps every script on its disk.
_LARGEST_PAYLOAD = 64 * 1024
_CLOSE_SECONDS = 3.0
_LAST_LOOK_SECONDS = 1.0
_CALLS_AT_A_TIME = 4

Submission = tuple[dict[str, Any], dict[str, Any]]

logger = logging.getLogger("wove")


class SlurmAdapter(BackendAdapter):
    """Submits each task as a job of its own, and those of a map as the elements of a job array.

    ``executor_config``: ``partition``, ``account``, ``qos``, ``time_limit``, ``nodes``, ``cpus_per_task``, ``mem``,
    ``gres``, ``constraint``; ``command``, ``setup``, ``export``, ``output``, ``job_name_prefix``; ``sbatch``,
    ``scancel``, ``submit``; ``poll_interval``, ``unschedulable_after``. The README has a table.
    """

    required_modules = ()
    install_hint = "pip install wove-slurm"
    max_payload_bytes = _LARGEST_PAYLOAD
    # Jobs are not requeued, so another worker is that of a job which Slurm has taken twice.
    exclusive_runs = True
    capabilities = frozenset(
        "cancel_queued cancel_running_async cancel_running_sync deduplicate detect_dead_process detect_dead_worker "
        "detect_lost_job graceful_stop max_argument_20mb queues_without_worker separate_process".split()
    )

    _watcher: Watcher | None = None

    async def start(self) -> None:
        """Check the configuration, and ask the controller about the cluster.

        Raises:
            ConfigurationError: a key is wrong, SLURM_CONF leads to no file, or Slurm's programs are not there; says
                what to give instead.
            ConnectionError: the controller does not answer.
        """
        settings = self._settings = read_settings(self.config, name=self.name)
        where = f"executor_config of {self.name!r}"
        missing = settings.variables.missing()
        if missing:
            raise ConfigurationError(
                f"{where}: export names {', '.join(missing)}, not set in this process. Set "
                f"it, or give a value: 'export': {{{missing[0]!r}: '...'}}."
            )
        await in_daemon_thread(lambda: settings.variables.check_conf(where=where))
        self._commands = Commands(settings)
        self._logs = Logs(settings.output)
        self._jobs = Jobs(settings, self._commands, self._logs)
        self._function = _function_of(settings, self.name)
        self._calls = asyncio.Semaphore(_CALLS_AT_A_TIME)
        await in_daemon_thread(self._jobs.connect)
        await in_daemon_thread(self._logs.prepare)
        self._dispatcher = Dispatcher(Placement(self._jobs, settings, self._commands, self._logs))
        self._unwanted: Gathering[Job] = Gathering(self._cancel)
        self._watcher = Watcher(
            self._jobs, self._logs, interval=settings.poll_interval, patience=settings.unschedulable_after
        )

    async def submit_many(self, submissions: Sequence[Submission]) -> Sequence[Job | Exception]:
        """Submit jobs, several at once as one array. The name of each ends with its run's id.

        Returns:
            For each job its handle; a DeliveryError: Slurm refuses it, or another weave's job has the same idempotency
            key; a ConnectionError: the controller cannot be reached.
        """
        watcher = self._started
        places: list[Job | Exception | None] = [watcher.find(str(frame["run_id"])) for _, frame in submissions]
        fresh = [pair for pair, place in zip(submissions, places, strict=True) if place is None]
        results = iter(await self._call(fresh) if self._function else await self._dispatch(fresh))
        placed = [next(results) if place is None else place for place in places]
        for (_, frame), job in zip(submissions, placed, strict=True):
            if isinstance(job, Job):
                job.detached = is_detached(frame)
                watcher.add(job)
        return placed

    async def cancel(self, run_id: str, submission: Any, frame: dict[str, Any]) -> None:
        """Let Slurm end a job, whether or not it has begun."""
        if isinstance(submission, Job) and self._started.find(run_id) is submission:
            await self._unwanted.add(submission)

    async def watch(self) -> AsyncIterator[tuple[str, JobState]]:
        """Yield the runs whose jobs are over, will never begin, or wait for something else than before."""
        watcher = self._started
        while True:
            await watcher.wait()
            for run_id, state in await watcher.look():
                yield run_id, state

    async def close(self) -> None:
        """Wait a moment for jobs that are being cancelled, then remove the logs."""
        if self._watcher is None:
            return
        await self._unwanted.close(_CLOSE_SECONDS)
        await self._dispatcher.close()
        looking = asyncio.ensure_future(in_daemon_thread(self._is_needed))
        await asyncio.wait([looking], timeout=_LAST_LOOK_SECONDS)
        self._commands.close()
        # The killed program's thread ends at once.
        needed = await looking
        await in_daemon_thread(lambda: self._logs.close(keep=needed))

    def _is_needed(self) -> bool:
        """Tell whether a job that nobody cancels will still want to write its log."""
        if self._watcher is None or not self._watcher.has_jobs:
            return False
        try:
            return self._watcher.last_look()
        except Exception as error:  # Slurm is away; a job without its log's directory could not begin.
            logger.debug("Asking Slurm about its jobs for the last time failed: %s", error)
            return True

    @property
    def _started(self) -> Watcher:
        if self._watcher is None:
            raise RuntimeError(f"The adapter {self.name!r} has not been started.")
        return self._watcher

    async def _dispatch(self, submissions: Sequence[Submission]) -> list[Job | Exception]:
        return await self._dispatcher.submit(
            [
                NewJob(str(frame["run_id"]), payload, (frame.get("delivery") or {}).get("delivery_idempotency_key"))
                for payload, frame in submissions
            ]
        )

    async def _call(self, submissions: Sequence[Submission]) -> list[Job | Exception]:
        """Let the project's own function submit."""
        return list(await asyncio.gather(*(self._call_one(*each) for each in submissions)))

    async def _call_one(self, payload: dict[str, Any], frame: dict[str, Any]) -> Job | Exception:
        function, run_id = self._function, str(frame["run_id"])
        try:
            async with self._calls:
                if inspect.iscoroutinefunction(function):
                    given = await function(payload, frame)
                else:
                    given = await in_daemon_thread(function, payload, frame)  # type: ignore[arg-type]
        except Exception as error:  # It is the project's code.
            return error
        key = str(given).strip().partition(";")[0]
        if isinstance(given, bool) or not key.partition("_")[0].isdigit():
            return DeliveryError(
                f"The function 'submit' of executor {self.name!r} must return the id of Slurm's job, such as 17 or "
                f"'17_3'; it returned a {type(given).__name__}."
            )
        return Job(key, run_id=run_id, name="")

    async def _cancel(self, jobs: list[Job]) -> None:
        now = asyncio.get_running_loop().time()
        for job in jobs:
            job.unwanted, job.told = True, now
        self._started.hurry()
        await in_daemon_thread(self._jobs.cancel, [job.key for job in jobs])


def _function_of(settings: Settings, name: str) -> Callable[..., Any] | None:
    given = settings.submit
    if not isinstance(given, str):
        return given  # type: ignore[no-any-return]
    module, _, attribute = given.partition(":")
    where = f"executor_config of {name!r}: submit {given!r} leads to no function"
    try:
        found = getattr(importlib.import_module(module), attribute)
    except Exception as error:  # An import runs the project's own code.
        raise ConfigurationError(
            f"{where} ({type(error).__name__}: {error}). Give an import path such as 'myproject.cluster:submit'."
        ) from error
    if not callable(found):
        raise ConfigurationError(f"{where}, but to a {type(found).__name__}.")
    return found  # type: ignore[no-any-return]
