"""AWS Batch, S3 and CloudWatch Logs for tests: a moto server that runs each job's command as a local process.

``python -m tests.beds.batch_server [PORT]`` listens on 127.0.0.1, makes the queue `QUEUE`, the job definition
`DEFINITION` and the bucket `BUCKET`, and prints "ready". Any credentials will do. SIGTERM ends every process that it
started; SIGUSR1 makes the host of the running jobs go away, SIGUSR2 warns their processes with SIGTERM. Needs
``moto[server,batch,s3]``, no Docker.

moto keeps the records and speaks the protocol. How a job lives is ours, after the documentation of AWS Batch: it waits
in RUNNABLE for a place and for an enabled compute environment, and its process gets TERM, then KILL. Images are not
pulled, but one whose name begins with ``missing/`` cannot be. More memory than the job asked for ends it. As on AWS,
and unlike moto alone, these are refused:

- a job name that is not ``[A-Za-z0-9][A-Za-z0-9_-]{0,127}``; a request above 30 KiB; more than 100 ids to describe
- containerOverrides above 8192 characters: accepted, then FAILED

A file in FOLDER/faults changes the fate of one SubmitJob and is removed: ``throttle-*`` refuses it with
TooManyRequestsException, ``lose-request-*`` drops the connection before, ``lose-answer-*`` after it has been carried
out. ``lose-list-*`` drops that of one ListJobs.
"""

import argparse
import logging
import signal
import tempfile
import threading
from pathlib import Path
from typing import Any

import boto3
from moto.server import ThreadedMotoServer

from tests.beds.batch_job import Bed
from tests.beds.batch_requests import install

HOST = "127.0.0.1"
REGION = "eu-central-1"
CREDENTIALS = {"aws_access_key_id": "testing", "aws_secret_access_key": "testing"}
# What the jobs' role gives them; on AWS at an address inside of the container.
ROLE = {"AWS_ACCESS_KEY_ID": "of-the-role", "AWS_SECRET_ACCESS_KEY": "of-the-role"}
QUEUE, DEFINITION, BUCKET = "wove-queue", "wove-worker", "wove-payloads"
# A compute environment that is DISABLED starts no job, and its queue goes on taking them.
ENVIRONMENT = "wove-hosts"


def furnish(port: int, env: dict[str, str]) -> None:
    """Make what an administrator makes once."""
    client: Any = lambda service: boto3.client(  # noqa: E731
        service, endpoint_url=f"http://{HOST}:{port}", region_name=REGION, **CREDENTIALS
    )
    role = client("iam").create_role(RoleName="hosts", AssumeRolePolicyDocument="{}")["Role"]["Arn"]
    batch = client("batch")
    hosts = batch.create_compute_environment(
        computeEnvironmentName=ENVIRONMENT, type="UNMANAGED", state="ENABLED", serviceRole=role
    )
    order = [{"order": 1, "computeEnvironment": hosts["computeEnvironmentArn"]}]
    batch.create_job_queue(jobQueueName=QUEUE, state="ENABLED", priority=1, computeEnvironmentOrder=order)
    batch.register_job_definition(
        jobDefinitionName=DEFINITION,
        type="container",
        containerProperties={
            "image": "any",
            "command": ["false"],
            "resourceRequirements": [{"type": "VCPU", "value": "1"}, {"type": "MEMORY", "value": "512"}],
            "environment": [{"name": name, "value": value} for name, value in {**ROLE, **env}.items()],
        },
    )
    client("s3").create_bucket(Bucket=BUCKET, CreateBucketConfiguration={"LocationConstraint": REGION})


def main() -> None:
    """Serve until SIGTERM."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("port", type=int, nargs="?", default=5555, help="where it listens (default: 5555)")
    parser.add_argument("--folder", type=Path, help="for logs and faults; a temporary one if omitted")
    parser.add_argument("--places", type=int, default=8, help="how many jobs run at a time (default: 8)")
    parser.add_argument("--env", action="append", default=[], metavar="NAME=VALUE", help="a variable of every job")
    options = parser.parse_args()
    bed = Bed(options.folder or Path(tempfile.mkdtemp(prefix="batch-server-")), options.places)
    install(bed)
    done = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: done.set())
    signal.signal(signal.SIGUSR1, lambda *_: bed.lose_host())
    signal.signal(signal.SIGUSR2, lambda *_: bed.signal_all(signal.SIGTERM))
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(HOST, options.port, verbose=False)
    server.start()
    furnish(options.port, dict(pair.split("=", 1) for pair in options.env))
    print("ready", flush=True)
    done.wait()
    bed.signal_all(signal.SIGKILL)
    server.stop()


if __name__ == "__main__":
    main()
