"""Creates jobs in AWS Batch, each once, and asks about them: blocking, from any thread."""

import time
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any

from wove.errors import DeliveryError
from wove_batch.service import AnswerLost, Service
from wove_batch.settings import Settings
from wove_batch.states import ENDED
from wove_batch.submission import NewJob

# https://docs.aws.amazon.com/batch/latest/APIReference/API_DescribeJobs.html
DESCRIBED_AT_ONCE = 100
_WHY_ENDED = "Wove: nobody waits for this task any more"
# A job that has been created shows in ListJobs soon afterwards.
_LOOK_AFTER_SECONDS = (0.2, 1.0)
# How long a job of another process with the same key, which may just be ending, holds up the next one.
_SUCCESSION_SECONDS = 10.0
_SUCCESSION_PAUSE = 0.5
_KEYED_REMEMBERED = 1000


class Jobs:
    """The jobs of one environment."""

    def __init__(self, service: Service, settings: Settings) -> None:
        self._service = service
        self._queue = settings.job_queue
        # Keyed jobs of this process: core sees to it that only one of a key is in flight here.
        self._own: OrderedDict[str, None] = OrderedDict()

    def create(self, request: Mapping[str, Any], job: NewJob) -> str:
        """Create a job and return its id. If the answer is lost it is looked for before the request is made again.

        Args:
            request: the parameters of SubmitJob.
            job: the run, or the first one of an array.

        Raises:
            AnswerLost: the job may have been created.
            ConnectionError: AWS cannot be reached, and the job has not been created.
            DeliveryError: AWS refuses it, or another process has a job with the same idempotency key.
        """
        if job.family is None:
            return self._create(request)
        there = self._wait_for_key(job)
        job_id = there or self._create(request)
        self._own[job_id] = None
        if len(self._own) > _KEYED_REMEMBERED:
            self._own.popitem(last=False)
        return job_id if there else self._only(job, job_id)

    def find(self, name: str) -> Mapping[str, Any] | None:
        """Return the summary of the newest job of a name, or None.

        Raises:
            Exception: as `Service.call`.
        """
        found = self._named(name)
        return found[0] if found else None

    def describe(self, job_ids: Sequence[str]) -> dict[str, Mapping[str, Any]]:
        """Return what DescribeJobs says about up to `DESCRIBED_AT_ONCE` jobs, by id.

        Raises:
            Exception: as `Service.call`.
        """
        answer = self._service.insist("describe_jobs", jobs=list(job_ids))
        return {job["jobId"]: job for job in answer.get("jobs", [])}

    def end(self, job_id: str) -> None:
        """End a job, whether it waits or runs: its process gets SIGTERM, and after 30 seconds SIGKILL.

        Raises:
            Exception: as `Service.call`.
        """
        self._service.insist("terminate_job", jobId=job_id, reason=_WHY_ENDED)

    def log_tail(self, place: Mapping[str, str], lines: int) -> list[str]:
        """Return the last lines of a job's log.

        Raises:
            Exception: as `Service.call`.
        """
        about: dict[str, Any] = {**place, "limit": lines, "startFromHead": False}
        answer = self._service.insist("get_log_events", service="logs", **about)
        return [event.get("message", "").rstrip() for event in answer.get("events", [])]

    def _create(self, request: Mapping[str, Any]) -> str:
        for last in (False, True):
            try:
                return str(self._service.call("submit_job", **request)["jobId"])
            except AnswerLost as lost:
                found = self._look_for(request["jobName"], lost)
                if found is not None:
                    return found
                if last:
                    raise
        raise AssertionError("the loop returns or raises")

    def _look_for(self, name: str, lost: AnswerLost) -> str | None:
        for pause in _LOOK_AFTER_SECONDS:
            time.sleep(pause)
            try:
                found = self.find(name)
            except (ConnectionError, DeliveryError) as error:
                raise AnswerLost(f"{lost} Whether job {name} was created cannot be found out: {error}") from None
            if found is not None:
                return str(found["jobId"])
        return None

    def _named(self, name: str) -> list[Mapping[str, Any]]:
        """Return summaries of the jobs of a name, or of all names that begin with it; the newest first."""
        by_name = [{"name": "JOB_NAME", "values": [name]}]
        answer = self._service.insist("list_jobs", jobQueue=self._queue, filters=by_name)
        return list(answer.get("jobSummaryList", []))

    def _rivals(self, job: NewJob) -> list[Mapping[str, Any]]:
        """Return the jobs of the same key that have not ended, apart from those of this process that came before."""
        alive = [each for each in self._named(f"{job.family}*") if each.get("status") not in ENDED]
        return [each for each in alive if each["jobName"] == job.name or each["jobId"] not in self._own]

    def _wait_for_key(self, job: NewJob) -> str | None:
        """Return when no other process has a job with the same key; with the id if this very one is there."""
        patience = time.monotonic() + _SUCCESSION_SECONDS
        while rivals := self._rivals(job):
            for rival in rivals:
                if rival["jobName"] == job.name:
                    return str(rival["jobId"])
            if time.monotonic() > patience:
                raise _taken(job, rivals[0])
            time.sleep(_SUCCESSION_PAUSE)
        return None

    def _only(self, job: NewJob, job_id: str) -> str:
        """Let the older one go on where two processes have created a job with the same key at the same time."""
        rivals = self._rivals(job)
        age = {each["jobId"]: (each["createdAt"], each["jobId"]) for each in rivals}
        older = [each for each in rivals if job_id in age and age[each["jobId"]] < age[job_id]]
        if older:
            self.end(job_id)
            raise _taken(job, older[0])
        return job_id


def _taken(job: NewJob, rival: Mapping[str, Any]) -> DeliveryError:
    return DeliveryError(
        f"AWS Batch has a job {rival['jobName']!r} already, and its result goes to another weave: a task with the same "
        f"delivery_idempotency_key as {job.task_name!r} waits or runs."
    )
