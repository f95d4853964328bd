"""`AWSBatchAdapter`: lets tasks of a weave run as AWS Batch jobs."""

import asyncio
import logging
from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any

from wove.backend.threads import in_daemon_thread
from wove.backend_worker import PAYLOAD_VARIABLE
from wove.errors import ConfigurationError, DeliveryError
from wove.integrations.base import BackendAdapter, JobState
from wove.integrations.gathering import Gathering
from wove_batch.reference import REFERENCE_VARIABLE
from wove_batch.settings import read_settings
from wove_batch.states import Submitted, log_place
from wove_batch.submission import LARGEST_ARRAY, NewJob, array_name, room_in_overrides, sample_request, submit_job
from wove_batch.threads import BoundedThreads

if TYPE_CHECKING:
    from wove_batch.jobs import Jobs
    from wove_batch.payloads import Payloads, Stored
    from wove_batch.remains import Remains
    from wove_batch.service import Service

_CLOSE_SECONDS = 3.0
_LOG_LINES = 15
_LONGEST_TAIL = 2000
# A log arrives in CloudWatch some seconds after its job has ended.
_MOST_LOOKS = 3
_IN_THIS_ACCOUNT = "in this account and region. Create it, or correct the name or the region in client_options."

logger = logging.getLogger("wove")


class AWSBatchAdapter(BackendAdapter):
    """Submits tasks to AWS Batch, where each runs as a job of its own.

    ``executor_config``: ``job_queue`` and ``job_definition``; ``client`` or ``client_options``;
    ``container_overrides``, ``job_name_prefix``, ``vcpus``, ``memory``, ``gpus``, ``timeout``, ``retry_strategy``,
    ``tags``, ``share_identifier``; ``payload_bucket``, ``array_jobs``, ``runnable_timeout``. The README has a table.
    """

    required_modules = ("boto3", "botocore")
    install_hint = "pip install wove-batch"
    poll_interval = 3.0
    capabilities = frozenset(
        "cancel_queued cancel_running_async cancel_running_sync deduplicate detect_dead_process detect_dead_worker "
        "detect_lost_job graceful_stop max_argument_20mb queues_without_worker separate_process".split()
    )

    _service: "Service | None" = None
    _remains: "Remains | None" = None

    async def start(self) -> None:
        """Check the configuration, and that AWS knows queue and job definition.

        Raises:
            ConfigurationError: a key is missing or wrong, queue or definition do not exist, or there are no
                credentials; the message names it and shows an example.
            ConnectionError: AWS cannot be reached; the message names the endpoint.
        """
        self._where = f"executor_config of {self.name!r}"
        self._settings = read_settings(self.config, name=self.name)
        room = room_in_overrides(self._settings, where=self._where)
        if self._settings.bucket is None:
            limits = [limit for limit in (self.max_payload_bytes, room) if limit is not None]
            self.max_payload_bytes = min(limits)
            self._warn_of_readers()
        self._closing = False
        self._unwanted = Gathering(self._end)
        # boto3 takes a while to import.
        await in_daemon_thread(self._connect)
        await self._check_places()

    def _connect(self) -> None:
        modules = {name: import_module(f"wove_batch.{name}") for name in ("service", "jobs", "payloads", "remains")}
        self._threads = BoundedThreads(modules["service"].ASKING)
        self._submitting = BoundedThreads(modules["service"].SUBMITTING)
        service: Service = modules["service"].Service(self._settings, where=self._where)
        service.connect()
        self._service = service
        complaint = service.complaint_about(sample_request(self._settings))
        if complaint is not None:
            raise ConfigurationError(f"{self._where}: boto3 does not take what SubmitJob would be sent: {complaint}")
        self._jobs: Jobs = modules["jobs"].Jobs(service, self._settings)
        bucket = self._settings.bucket
        self._payloads: Payloads | None = None if bucket is None else modules["payloads"].Payloads(service, bucket)
        self._remains = modules["remains"].Remains(self._jobs, self._payloads, self._threads)

    async def submit_many(
        self, submissions: Sequence[tuple[dict[str, Any], dict[str, Any]]]
    ) -> Sequence[Submitted | Exception]:
        """Create jobs: one for each run, or with a bucket one array job for the items of a map that are ready together.

        Returns:
            For each run its handle, or why there is no job: a DeliveryError that has AWS's words, a
            PayloadTooLargeError, or a ConnectionError.
        """
        jobs = [NewJob(payload, frame, self._settings) for payload, frame in submissions]
        groups = _grouped(jobs)
        outcomes = await asyncio.gather(*(self._submit(group) for group in groups))
        handles = {
            job: handle
            for group, outcome in zip(groups, outcomes, strict=True)
            for job, handle in zip(group, outcome, strict=True)
        }
        return [handles[job] for job in jobs]

    async def cancel(self, run_id: str, submission: Any, frame: dict[str, Any]) -> None:
        """End a job, whether it waits or runs. Its worker gets SIGTERM, and reports that the task was cancelled."""
        if isinstance(submission, Submitted) and submission.state is None:
            await self._unwanted.add(submission.job_id)

    async def poll(self, submissions: Mapping[str, Any]) -> Mapping[str, JobState]:
        """Return what AWS Batch says about jobs; about one that has failed with the end of its log."""
        handles: dict[str, Submitted] = dict(submissions)
        unknown = {run_id: handle for run_id, handle in handles.items() if handle.state is None}
        described = await self._describe([handle.job_id for handle in unknown.values()])
        looks = [self._look_at(handle, described.get(handle.job_id)) for handle in unknown.values()]
        states = dict(zip(unknown, await asyncio.gather(*looks), strict=True))
        known = {run_id: handle.state or states[run_id] for run_id, handle in handles.items()}
        return {run_id: state for run_id, state in known.items() if state is not None}

    async def close(self) -> None:
        """Wait a moment for jobs that are being ended, remove payloads from S3, then close the connections."""
        self._closing = True
        if self._service is None:
            return
        await self._unwanted.close(_CLOSE_SECONDS)
        if self._remains is not None:
            try:
                async with asyncio.timeout(_CLOSE_SECONDS):
                    await self._remains.close()
            except TimeoutError:
                logger.warning("AWS did not answer in time: payloads may be left in payload_bucket.")
        await in_daemon_thread(self._service.close)

    def _warn_of_readers(self) -> None:
        security = self.config.get("callback_security")
        if isinstance(security, str) and security.startswith("env:"):
            return
        logger.warning(
            "%s: without 'payload_bucket', payloads travel in the jobs' environment, where everybody reads them who "
            "may call batch:DescribeJobs, and with them the keys for the tasks' results. Set payload_bucket, or "
            "callback_security to 'env:VARIABLE'.",
            self._where,
        )

    async def _check_places(self) -> None:
        settings = self._settings
        queues = await self._asked("describe_job_queues", jobQueues=[settings.job_queue])
        if queues is not None and not queues["jobQueues"]:
            raise ConfigurationError(
                f"{self._where}: job_queue: AWS Batch has no queue {settings.job_queue!r} {_IN_THIS_ACCOUNT}"
            )
        if queues is not None and queues["jobQueues"][0].get("state") == "DISABLED":
            raise ConfigurationError(f"{self._where}: job_queue: the queue {settings.job_queue!r} is disabled.")
        name = settings.job_definition
        if name.startswith("arn:") and not name.rpartition(":")[2].isdigit():
            return  # DescribeJobDefinitions wants the revision.
        by_name = {"jobDefinitionName": name, "status": "ACTIVE"}
        found = await self._asked(
            "describe_job_definitions", **({"jobDefinitions": [name]} if ":" in name else by_name)
        )
        if found is not None and not any(each.get("status") == "ACTIVE" for each in found["jobDefinitions"]):
            raise ConfigurationError(
                f"{self._where}: job_definition: AWS Batch has no active {name!r} {_IN_THIS_ACCOUNT}"
            )

    async def _asked(self, operation: str, **parameters: Any) -> Any:
        """Return an answer of AWS, or None where it may not be asked: then submitting will tell."""
        from wove_batch.service import Denied

        try:
            return await self._threads.run(lambda: self._connected.insist(operation, **parameters))
        except Denied as denied:
            logger.debug("%s", denied)
            return None

    @property
    def _connected(self) -> "Service":
        if self._service is None:
            raise RuntimeError(f"The adapter {self.name!r} has not been started.")
        return self._service

    @property
    def _left(self) -> "Remains":
        if self._remains is None:
            raise RuntimeError(f"The adapter {self.name!r} has not been started.")
        return self._remains

    # --- submitting ---

    async def _submit(self, group: Sequence[NewJob]) -> Sequence[Submitted | Exception]:
        from wove_batch.service import AnswerLost

        name = group[0].name if len(group) == 1 else array_name(group)
        stored: Stored | None = None
        try:
            stored = await self._submitting.run(self._store, name, group)
            job_id = await self._submitting.run(self._create, name, group, stored)
        except Exception as error:  # Every run of the group has its own submission, and gets the same answer.
            if isinstance(error, AnswerLost):
                self._left.end_if_created(name)
            if stored is not None:
                self._left.drop(stored.key)
            return [error] * len(group)
        if stored is not None:
            self._left.keep(stored.key, job_id, detached=group[0].detached)
        if len(group) == 1:
            return [Submitted(job_id, name)]
        return [Submitted(f"{job_id}:{index}", name) for index in range(len(group))]

    def _store(self, name: str, group: Sequence[NewJob]) -> "Stored | None":
        return None if self._payloads is None else self._payloads.put(name, [job.payload for job in group])

    def _create(self, name: str, group: Sequence[NewJob], stored: "Stored | None") -> str:
        variable, value = PAYLOAD_VARIABLE, group[0].payload
        if stored is not None:
            variable, value = REFERENCE_VARIABLE, stored.reference
        timeout = group[0].timeout
        request = submit_job(self._settings, name, timeout, variable=variable, value=value, size=len(group))
        job_id = self._jobs.create(request, group[0])
        if self._closing:
            self._jobs.end(job_id)  # Nobody waits for the answer any more.
        return job_id

    # --- asking and ending ---

    async def _describe(self, job_ids: Sequence[str]) -> dict[str, Mapping[str, Any]]:
        from wove_batch.jobs import DESCRIBED_AT_ONCE as MOST

        chunks = [job_ids[first : first + MOST] for first in range(0, len(job_ids), MOST)]
        answers = await asyncio.gather(*(self._threads.run(self._jobs.describe, chunk) for chunk in chunks))
        return {job_id: job for answer in answers for job_id, job in answer.items()}

    async def _look_at(self, handle: Submitted, job: Mapping[str, Any] | None) -> JobState | None:
        state = handle.judge(job, runnable_timeout=self._settings.runnable_timeout)
        if state is None or not state.over or job is None:
            return state
        handle.looks += 1
        if state.phase == "finished" and handle.looks == 1:
            return state  # Its result is on the way, most likely.
        tail = await self._log_tail(job)
        if tail or handle.looks >= _MOST_LOOKS:
            handle.state = state = _with_tail(state, tail)
        return state

    async def _log_tail(self, job: Mapping[str, Any]) -> str:
        place = log_place(job)
        if place is None:
            return ""
        try:
            lines = await self._threads.run(self._jobs.log_tail, place, _LOG_LINES)
        except (ConnectionError, DeliveryError, ConfigurationError) as error:
            logger.debug("The log of an AWS Batch job cannot be read: %s", error)
            return ""
        return "\n".join(lines).strip()[-_LONGEST_TAIL:]

    async def _end(self, job_ids: list[str]) -> None:
        results = await asyncio.gather(
            *(self._threads.run(self._jobs.end, job_id) for job_id in job_ids), return_exceptions=True
        )
        refusals = []
        for job_id, result in zip(job_ids, results, strict=True):
            if isinstance(result, ConnectionError):
                self._left.end(job_id)
            elif isinstance(result, BaseException):
                refusals.append(result)
        if refusals:
            raise refusals[0]


def _grouped(jobs: Sequence[NewJob]) -> list[list[NewJob]]:
    """Return what becomes one job each."""
    groups: list[list[NewJob]] = []
    arrays: dict[object, list[NewJob]] = {}
    for job in jobs:
        group = arrays.get(job.array) if job.array is not None else None
        if group is None or len(group) == LARGEST_ARRAY:
            group = []
            groups.append(group)
            if job.array is not None:
                arrays[job.array] = group
        group.append(job)
    return groups


def _with_tail(state: JobState, tail: str) -> JobState:
    if not tail:
        return state
    indented = "\n".join(f"  {line}" for line in tail.splitlines())
    return JobState(
        state.phase, exit_code=state.exit_code, reason=f"{state.reason or ''}\nIts log ends with:\n{indented}"
    )
