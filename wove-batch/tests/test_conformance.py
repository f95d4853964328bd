"""Proves the adapter with Wove's conformance kit: payloads in the jobs' environment, and payloads in S3."""

from collections.abc import Iterator

import pytest
from batch_backend import BatchDeployment, BatchServer

from tests.beds.batch_server import BUCKET
from wove.testing import AdapterConformance
from wove_batch import AWSBatchAdapter


class OnBatch(AdapterConformance):
    """The kit with time for a process to be started for each task, also where many tests run at once."""

    step_seconds = 60.0
    prompt_seconds = 5.0
    heartbeat_seconds = 3.0
    dead_job_seconds = 25.0
    cancel_seconds = 10.0
    stop_seconds = 2.0
    outage_seconds = 2.0


@pytest.fixture(scope="class")
def inline(server: BatchServer) -> Iterator[BatchDeployment]:
    deployment = BatchDeployment(server)
    yield deployment
    deployment.close()


@pytest.fixture(scope="class")
def with_bucket(server: BatchServer) -> Iterator[BatchDeployment]:
    deployment = BatchDeployment(server, {"payload_bucket": f"{BUCKET}/kit", "job_name_prefix": "kit"})
    yield deployment
    deployment.close()


class TestPayloadsInTheEnvironment(OnBatch):
    """Payloads travel in the overrides; larger ones are fetched from the weave."""

    adapter_class = AWSBatchAdapter
    subject = "aws_batch (payloads inline)"

    @pytest.fixture
    def deployment(self, inline: BatchDeployment) -> BatchDeployment:
        return inline


class TestPayloadsInS3(OnBatch):
    """Payloads travel through S3, and maps become array jobs."""

    adapter_class = AWSBatchAdapter
    subject = "aws_batch (payload_bucket)"

    @pytest.fixture
    def deployment(self, with_bucket: BatchDeployment) -> BatchDeployment:
        return with_bucket
