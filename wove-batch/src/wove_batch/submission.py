"""What is asked of SubmitJob: names, overrides, sizes and limits. Pure: nothing here talks to AWS."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from wove.backend_worker import PAYLOAD_VARIABLE
from wove.errors import ConfigurationError, PayloadTooLargeError
from wove.integrations.jobs import job_id_of, seconds_left
from wove_batch.reference import REFERENCE_VARIABLE
from wove_batch.settings import Settings

# AWS counts the JSON of containerOverrides, and tells only when the job has failed.
LONGEST_OVERRIDES = 8192
# A quotation mark of the payload takes two characters there.
_ESCAPES = 500
# A payload without its pickles, which the worker fetches then.
_LEAST_ROOM = 1500
_SHORTEST_TIMEOUT = 60
# Where a payload is in S3: the longest key has 1024 characters.
_LONGEST_REFERENCE = 1400
# https://docs.aws.amazon.com/batch/latest/userguide/array_jobs.html
LARGEST_ARRAY = 10_000


class NewJob:
    """One run that is to become a job, or an element of an array job.

    Attributes:
        name: the job's; legal, and no other run's.
        family: what the names of all jobs with the same idempotency key begin with, or None without such a key.
        payload: JSON.
        timeout: ``attemptDurationSeconds``, or None.
        array: equal for runs that may become one array job; None for a run that must be a job of its own.
    """

    __slots__ = ("array", "detached", "family", "name", "payload", "task_name", "timeout")

    def __init__(self, payload: Mapping[str, Any], frame: Mapping[str, Any], settings: Settings) -> None:
        run_id = str(frame["run_id"])
        key = job_id_of(frame)
        self.family: str | None = None
        if key != run_id:
            # Names are compared without regard to case, and a key may have characters that no name has.
            self.family = f"{settings.prefix}-k{hashlib.sha256(key.encode()).hexdigest()[:20]}-"
        self.name = f"{self.family or f'{settings.prefix}-'}{run_id}"
        self.task_name = str(payload.get("task_name") or payload.get("task_id"))
        self.payload = json.dumps(payload, separators=(",", ":"))
        self.timeout = _timeout(settings.timeout, seconds_left(payload, frame))
        self.detached = (frame.get("delivery") or {}).get("delivery_orphan_policy") == "detach"
        is_item = frame.get("item") is not None and self.family is None and not self.detached
        self.array = (self.task_name, self.timeout) if settings.array_jobs and is_item else None


def _timeout(given: int | None, left: int | None) -> int | None:
    """Return the shorter limit: nobody wants a job any longer than its weave waits."""
    limits = [limit for limit in (given, left) if limit is not None]
    return max(min(limits), _SHORTEST_TIMEOUT) if limits else None


def array_name(jobs: Sequence[NewJob]) -> str:
    """Return the name of the array job of some runs."""
    return f"{jobs[0].name}-{len(jobs)}"


def room_in_overrides(settings: Settings, *, where: str) -> int:
    """Return how many bytes of JSON a payload may have that travels in the overrides.

    Raises:
        ConfigurationError: the configured overrides leave too little room.
    """
    taken = _size(_overrides(settings, PAYLOAD_VARIABLE, ""))
    room = LONGEST_OVERRIDES - taken - _ESCAPES
    if room < (_LONGEST_REFERENCE if settings.bucket else _LEAST_ROOM):
        raise ConfigurationError(
            f"{where}: container_overrides take {taken:,} of the {LONGEST_OVERRIDES:,} characters that AWS Batch "
            "allows, which leaves too few for a task. Move variables into the job definition."
        )
    return room


def submit_job(
    settings: Settings, name: str, timeout: int | None, *, variable: str, value: str, size: int = 1
) -> dict[str, Any]:
    """Return the parameters of a SubmitJob request.

    Args:
        settings: what all jobs have in common.
        name: the job's.
        timeout: seconds that an attempt may take, or None.
        variable: the one that the worker reads.
        value: the payload in it, or where it is.
        size: of the array; 1 for no array.

    Raises:
        PayloadTooLargeError: AWS would accept the job and let it fail.
    """
    overrides = _overrides(settings, variable, value)
    length = _size(overrides)
    if length > LONGEST_OVERRIDES:
        raise PayloadTooLargeError(
            f"The containerOverrides of job {name}",
            size=length,
            limit=LONGEST_OVERRIDES,
            advice="Lower max_payload_bytes, or set payload_bucket.",
        )
    request: dict[str, Any] = {
        "jobName": name,
        "jobQueue": settings.job_queue,
        "jobDefinition": settings.job_definition,
        "containerOverrides": overrides,
        "retryStrategy": dict(settings.retry_strategy),
    }
    if timeout is not None:
        request["timeout"] = {"attemptDurationSeconds": timeout}
    if settings.tags:
        request["tags"] = dict(settings.tags)
    if settings.share_identifier is not None:
        request["shareIdentifier"] = settings.share_identifier
    if size > 1:
        request["arrayProperties"] = {"size": size}
    return request


def sample_request(settings: Settings) -> dict[str, Any]:
    """Return a request as all others will be, to be checked before there is a task."""
    variable = REFERENCE_VARIABLE if settings.bucket else PAYLOAD_VARIABLE
    return submit_job(settings, settings.prefix, settings.timeout, variable=variable, value="")


def _overrides(settings: Settings, variable: str, value: str) -> dict[str, Any]:
    variables = {**settings.overrides.get("environment", {}), variable: value}
    return {
        **settings.overrides,
        "environment": [{"name": each, "value": text} for each, text in variables.items()],
    }


def _size(overrides: Mapping[str, Any]) -> int:
    return len(json.dumps(overrides, separators=(",", ":"), ensure_ascii=False))
