"""What the test server of AWS Batch makes of requests: those that AWS refuses, and those that suffer a fault."""

import json
import re
import socket
from typing import Any

from flask import request as http_request
from moto.batch import models, responses
from moto.batch.exceptions import ClientException
from moto.core.exceptions import JsonRESTError

from tests.beds.batch_job import Bed, LocalJob, asked

# AWS Batch API reference, SubmitJob and DescribeJobs; "Service quotas" of the user guide.
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,127}\Z")
REQUEST_BYTES = 30 * 1024
DESCRIBED_AT_ONCE = 100

_submit, _list = responses.BatchResponse.submitjob, responses.BatchResponse.listjobs


class TooManyRequests(JsonRESTError):  # type: ignore[misc]
    """What AWS answers above 50 submissions per second."""

    code = 429

    def __init__(self) -> None:
        super().__init__("TooManyRequestsException", "Too Many Requests")


def submit(request: Any) -> str:
    size = len(request.body if isinstance(request.body, bytes) else str(request.body).encode())
    if size > REQUEST_BYTES:
        raise ClientException("Job size must be less than 30 KiB")
    if not NAME.match(request._get_param("jobName") or ""):
        raise ClientException("Job name should match valid pattern")
    if LocalJob.bed.takes_fault("throttle"):
        raise TooManyRequests
    if LocalJob.bed.takes_fault("lose-request"):
        drop_connection()
    asked.retry, asked.share = request._get_param("retryStrategy"), request._get_param("shareIdentifier")
    answer: str = _submit(request)
    if LocalJob.bed.takes_fault("lose-answer"):
        drop_connection()
    return answer


def drop_connection() -> None:
    """Break the connection of the request that this thread answers."""
    http_request.environ["werkzeug.socket"].shutdown(socket.SHUT_RDWR)
    raise ClientException("Nobody sees this.")


def describe(request: Any) -> str:
    ids = request._get_param("jobs") or []
    if len(ids) > DESCRIBED_AT_ONCE:
        raise ClientException(f"The number of jobs requested exceeds the limit of {DESCRIBED_AT_ONCE}.")
    known = request.batch_backend._jobs
    return json.dumps({"jobs": [known[each].describe() for each in ids if each in known]})


def list_newest_first(request: Any) -> str:
    if LocalJob.bed.takes_fault("lose-list"):
        drop_connection()
    found = json.loads(_list(request))
    found["jobSummaryList"].sort(key=lambda job: -job["createdAt"])
    return json.dumps(found)


def definitions(backend: Any, identifier: str) -> list[Any]:
    """moto finds ARNs and names, but no ``name:revision``, in DescribeJobDefinitions."""
    if ":" in identifier:
        found = backend.get_job_definition(identifier)
        return [] if found is None else [found]
    return [each for each in backend._job_definitions.values() if each.name == identifier]


def install(bed: Bed) -> None:
    """Put jobs of this bed, and what stands above, in the places where moto looks them up."""
    LocalJob.bed = bed
    models.Job = LocalJob
    models.JOB_NAME_REGEX = NAME
    models.BatchBackend.get_job_definitions = definitions
    # The routes hold the class, so its methods are replaced.
    responses.BatchResponse.submitjob = submit
    responses.BatchResponse.describejobs = describe
    responses.BatchResponse.listjobs = list_newest_first
