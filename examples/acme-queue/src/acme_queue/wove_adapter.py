"""The adapter: lets a task of a weave run as a job of an Acme queue. All that Wove needs to know is in this file."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

from acme_queue.client import Client, Job
from wove import BackendAdapter
from wove.errors import ConfigurationError
from wove.integrations.base import JobState
from wove.integrations.jobs import job_id_of
from wove.integrations.settings import Setting, check_settings, check_text


def _client(url: object) -> Client:
    try:
        return Client(check_text(url))
    except ValueError:
        raise ValueError("the URL of a queue") from None


# Each key with its check and an example for the message.
_SETTINGS = {
    "url": Setting(_client, "'acme:///var/lib/acme/queue.db'"),
    "queue": Setting(check_text, "'reports'"),
}


class AcmeQueueAdapter(BackendAdapter):
    """Submits tasks to an Acme queue.

    ``executor_config``:

    - ``url``: the queue, e.g. ``"acme:///var/lib/acme/queue.db"``. Required.
    - ``queue``: the name of the queue in it; ``"default"`` if omitted.
    """

    required_modules = ("acme_queue",)
    install_hint = "pip install acme-queue"
    poll_interval = 0.5
    capabilities = frozenset(
        "cancel_queued cancel_running_async cancel_running_sync deduplicate detect_dead_process detect_dead_worker "
        "detect_lost_job graceful_stop max_argument_20mb queues_without_worker separate_process".split()
    )

    async def start(self) -> None:
        """Check the configuration and whether the queue is there.

        Raises:
            ConfigurationError: ``url`` is missing or no URL of a queue, ``queue`` is no name, or there is another key.
            QueueUnavailable: the queue cannot be opened.
        """
        where = f"executor_config of {self.name!r}"
        given = check_settings(self.config, _SETTINGS, where=where)
        if "url" not in given:
            raise ConfigurationError(f"{where} needs a 'url', for example {_SETTINGS['url'].example}.")
        self._client, self._queue = given["url"], given.get("queue", "default")
        # SQLite blocks, so every call goes to a thread.
        await asyncio.to_thread(self._client.check)

    async def submit(self, payload: dict[str, Any], frame: dict[str, Any]) -> str:
        """Add a job and return its id: the idempotency key, or else the run's id."""
        job_id = job_id_of(frame)
        await asyncio.to_thread(self._client.enqueue, self._queue, {job_id: payload})
        return job_id

    async def submit_many(self, submissions: Sequence[tuple[dict[str, Any], dict[str, Any]]]) -> Sequence[str]:
        """Add the jobs of a mapped task in one transaction."""
        jobs = {job_id_of(frame): payload for payload, frame in submissions}
        await asyncio.to_thread(self._client.enqueue, self._queue, jobs)
        return [job_id_of(frame) for _, frame in submissions]

    async def cancel(self, run_id: str, submission: Any, frame: dict[str, Any]) -> None:
        """Remove a queued job, or have a running one stopped with SIGTERM."""
        if submission is not None:
            await asyncio.to_thread(self._client.cancel, submission)

    async def poll(self, submissions: Mapping[str, Any]) -> Mapping[str, JobState]:
        """Say how jobs are doing; one that is not in the queue any more is gone."""
        known = await asyncio.to_thread(self._client.jobs, list(submissions.values()))
        return {run_id: _state_of(known.get(job_id)) for run_id, job_id in submissions.items()}


def _state_of(job: Job | None) -> JobState:
    if job is None:
        return JobState("gone", reason="the job is not in the queue any more")
    if job.worker_lost:
        return JobState("gone", reason="its worker has not been heard of for seconds")
    if job.state == "failed":
        return JobState("failed", exit_code=job.exit_code, reason=job.reason)
    return JobState("queued" if job.state == "queued" else "running")
