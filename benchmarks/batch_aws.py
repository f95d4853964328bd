"""AWS Batch: moto's API with jobs as real processes, as many at a time as the machine has processors. Collected by
``batch.py``.

Native jobs start Python, which does nothing; a hundred of them are one array job. They are waited for by DescribeJobs
without a pause worth mentioning. The test bed looks at a process every half second, so no job's end shows sooner.
"""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import batch
import boto3

import wove_batch  # noqa: F401 - without it there is nothing to measure

SERVER = batch.HERE.parent / "tests" / "beds" / "batch_server.py"
REGION = "eu-central-1"
QUEUE, DEFINITION, BUCKET = "wove-queue", "wove-worker", "wove-payloads"
POLL_SECONDS = 0.01
ENDED = ("SUCCEEDED", "FAILED")


@contextmanager
def server(port: int, folder: str) -> Iterator[None]:
    variables = [f"--env=PYTHONPATH={batch.HERE}", f"--env=WOVE_SPOOL_DIR={folder}/spool"]
    places = ["--places", str(os.cpu_count() or 2)]
    command = [sys.executable, str(SERVER), str(port), "--folder", folder, *places, *variables]
    process = subprocess.Popen(command, stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        yield
    finally:
        process.terminate()
        process.communicate()


@contextmanager
def system() -> Iterator[batch.System]:
    port = batch.free_port()
    options: dict[str, Any] = {
        "endpoint_url": f"http://127.0.0.1:{port}",
        "region_name": REGION,
        "aws_access_key_id": "testing",
        "aws_secret_access_key": "testing",
    }
    with tempfile.TemporaryDirectory() as folder, server(port, folder):
        client = boto3.client("batch", **options)

        def run(**more: Any) -> None:
            job_id = client.submit_job(
                jobName="native",
                jobQueue=QUEUE,
                jobDefinition=DEFINITION,
                containerOverrides={"command": ["python", "-c", "pass"]},
                **more,
            )["jobId"]
            while (status := client.describe_jobs(jobs=[job_id])["jobs"][0]["status"]) not in ENDED:
                time.sleep(POLL_SECONDS)
            assert status == "SUCCEEDED"

        def many(jobs: int) -> None:
            run(arrayProperties={"size": jobs})

        config = {
            "client_options": options,
            "job_queue": QUEUE,
            "job_definition": DEFINITION,
            "payload_bucket": BUCKET,
        }
        yield batch.System({"executor": "aws_batch", "executor_config": config}, run, many)
        client.close()


SUBJECT = batch.Subject("aws_batch", batch.BARS, system)
