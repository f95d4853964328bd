"""AWS Batch: moto's API with jobs as real processes, as many at a time as the machine has processors. Collected by
``batch.py``.

Native jobs unpickle a function, call it and keep its result in a file, which stands in for S3; a hundred of them are
one array job. DescribeJobs is asked, almost without a pause, until they have ended. The test bed looks at a process
every half second, so no job's end shows sooner.
"""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import batch
import boto3
import cloudpickle

import wove_batch  # noqa: F401 - without it there is nothing to measure

ROOT = batch.HERE.parent
REGION = "eu-central-1"
QUEUE, DEFINITION, BUCKET = "wove-queue", "wove-worker", "wove-payloads"
POLL_SECONDS = 0.01
ENDED = ("SUCCEEDED", "FAILED")
PROGRAM = """
import os, pickle
folder, index = os.environ["FOLDER"], os.environ.get("AWS_BATCH_JOB_ARRAY_INDEX", "0")
with open(f"{folder}/{index}.in", "rb") as file:
    function, item = pickle.load(file)
with open(f"{folder}/{index}.out", "wb") as file:
    pickle.dump(function(item), file)
"""


@contextmanager
def server(port: int, folder: str) -> Iterator[None]:
    places = ["--places", str(os.cpu_count() or 2)]
    command = [sys.executable, "-m", "tests.beds.batch_server", str(port), "--folder", folder, *places]
    process = subprocess.Popen([*command, f"--env=WOVE_SPOOL_DIR={folder}/spool"], cwd=ROOT, stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        yield
    finally:
        process.terminate()
        process.communicate()


def run_natively(client: Any, jobs: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        for item in range(jobs):
            Path(folder, f"{item}.in").write_bytes(cloudpickle.dumps((batch.echo, item)))
        environment = [{"name": "FOLDER", "value": folder}]
        job_id = client.submit_job(
            jobName="native",
            jobQueue=QUEUE,
            jobDefinition=DEFINITION,
            containerOverrides={"command": ["python", "-c", PROGRAM], "environment": environment},
            **({"arrayProperties": {"size": jobs}} if jobs > 1 else {}),
        )["jobId"]
        while (status := client.describe_jobs(jobs=[job_id])["jobs"][0]["status"]) not in ENDED:
            time.sleep(POLL_SECONDS)
        assert status == "SUCCEEDED"
        found = [cloudpickle.loads(Path(folder, f"{item}.out").read_bytes()) for item in range(jobs)]
    assert found == list(range(jobs))


@contextmanager
def system() -> Iterator[batch.System]:
    port = batch.free_port()
    options: dict[str, Any] = {
        "endpoint_url": f"http://127.0.0.1:{port}",
        "region_name": REGION,
        "aws_access_key_id": "testing",
        "aws_secret_access_key": "testing",
    }
    config = {"client_options": options, "job_queue": QUEUE, "job_definition": DEFINITION, "payload_bucket": BUCKET}
    with tempfile.TemporaryDirectory() as folder, server(port, folder):
        client = boto3.client("batch", **options)
        yield batch.System(
            {"executor": "aws_batch", "executor_config": config},
            lambda: run_natively(client, 1),
            lambda jobs: run_natively(client, jobs),
        )
        client.close()


SUBJECT = batch.Subject("aws_batch", batch.BARS, system)
