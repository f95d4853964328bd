"""A server with the API of AWS Batch that executes jobs as processes, and weaves that reach it through a relay."""

import os
import signal
import sys
import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from secrets import token_hex
from typing import Any

import boto3

from tests.beds.batch_server import BUCKET, CREDENTIALS, DEFINITION, ENVIRONMENT, HOST, QUEUE, REGION
from tests.support.deployments import AnnouncedWorker
from tests.support.relay import Relay
from wove.testing import Deployment
from wove.testing.servers import free_port

ROOT = Path(__file__).parents[2]
UNFINISHED = ("SUBMITTED", "PENDING", "RUNNABLE", "STARTING", "RUNNING")


class BatchServer:
    """A running server.

    Attributes:
        port: where it listens.
        batch, s3: clients.
    """

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        self._faults = folder / "faults"
        variables = {
            "WOVE_SPOOL_DIR": str(folder / "spool"),
            # Tasks of these tests are found by their modules' names.
            "PYTHONPATH": str(Path(__file__).parent),
        }
        options = [f"--env={name}={value}" for name, value in variables.items()]
        command = [sys.executable, "-m", "tests.beds.batch_server", str(self.port), "--folder", str(folder), *options]
        # It notices sooner that a process has ended, so that the tests need not wait for that.
        env = {"BATCH_TEST_LOOK_SECONDS": "0.1"}
        self._process = AnnouncedWorker(command, announcement="ready", env=env, cwd=ROOT)
        self._process.ensure()
        self.batch = self.client("batch")
        self.s3 = self.client("s3")

    def client_options(self, port: int | None = None) -> dict[str, Any]:
        """Return what leads a boto3 client here, through another port if one is given."""
        return {"endpoint_url": f"http://{HOST}:{port or self.port}", "region_name": REGION, **CREDENTIALS}

    def client(self, service: str) -> Any:
        """Return a client, to be closed by the caller."""
        return boto3.client(service, **self.client_options())  # type: ignore[call-overload, unused-ignore]

    def open_hosts(self, *, are_open: bool) -> None:
        """Let jobs start, or wait in RUNNABLE."""
        state = "ENABLED" if are_open else "DISABLED"
        self.batch.update_compute_environment(computeEnvironment=ENVIRONMENT, state=state)

    def lose_host(self) -> None:
        """Let the host of all running jobs go away."""
        os.kill(self._process.pid, signal.SIGUSR1)

    def warn_jobs(self) -> None:
        """Send SIGTERM to the processes of all running jobs."""
        os.kill(self._process.pid, signal.SIGUSR2)

    def jobs(self, *statuses: str) -> list[dict[str, Any]]:
        """Return what ListJobs says about the jobs with some of the statuses, or all there have been."""
        if not statuses:
            by_name = [{"name": "JOB_NAME", "values": ["*"]}]
            return list(self.batch.list_jobs(jobQueue=QUEUE, filters=by_name)["jobSummaryList"])
        found = [self.batch.list_jobs(jobQueue=QUEUE, jobStatus=status)["jobSummaryList"] for status in statuses]
        return [job for some in found for job in some]

    def job(self, job_id: str) -> dict[str, Any]:
        """Return what DescribeJobs says about a job."""
        (job,) = self.batch.describe_jobs(jobs=[job_id])["jobs"]
        return dict(job)

    def objects(self) -> list[str]:
        """Return the keys in the bucket."""
        return [entry["Key"] for entry in self.s3.list_objects_v2(Bucket=BUCKET).get("Contents", [])]

    def expect(self, kind: str) -> None:
        """Let the next SubmitJob suffer a fault."""
        (self._faults / f"{kind}-{token_hex(4)}").touch()

    @contextmanager
    def definition(self, **properties: Any) -> Iterator[str]:
        """Register a job definition, and yield its name and revision."""
        plain = self.batch.describe_job_definitions(jobDefinitionName=DEFINITION)["jobDefinitions"][0]
        container = {**plain["containerProperties"], **properties}
        made = self.batch.register_job_definition(
            jobDefinitionName=f"other-{token_hex(4)}", type="container", containerProperties=container
        )
        name = f"{made['jobDefinitionName']}:{made['revision']}"
        yield name
        self.batch.deregister_job_definition(jobDefinition=name)

    def close(self) -> None:
        """End the server and the jobs."""
        self.batch.close()
        self.s3.close()
        self._process.terminate()
        deadline = time.monotonic() + 15.0
        while self._process.running and time.monotonic() < deadline:
            time.sleep(0.02)
        self._process.close()


class BatchDeployment(Deployment):
    """A queue whose jobs start as soon as hosts are open.

    Args:
        server: the server.
        config: more keys of the ``executor_config``.
    """

    def __init__(self, server: BatchServer, config: Mapping[str, Any] | None = None) -> None:
        self.server = server
        self.relay = Relay(server.port)
        self._config = config or {}

    def environment(self) -> dict[str, Any]:
        """Return the environment; the endpoint leads through the relay."""
        config = {
            "client_options": self.server.client_options(self.relay.port),
            "job_queue": QUEUE,
            "job_definition": DEFINITION,
            "dead_job_grace": 2.0,
            **self._config,
        }
        return {"executor": "aws_batch", "executor_config": config}

    def ensure_worker(self) -> None:
        """Open the hosts."""
        self.server.open_hosts(are_open=True)

    def stop_workers(self) -> None:
        """Close the hosts: jobs wait."""
        self.server.open_hosts(are_open=False)

    def kill_worker(self) -> None:
        """Let the host go away."""
        self.server.lose_host()

    def terminate_worker(self) -> None:
        """Warn the jobs as a host does that is about to be shut down."""
        self.server.warn_jobs()

    def take_backend_down(self) -> None:
        """Shut the relay."""
        self.relay.shut()

    def bring_backend_up(self) -> None:
        """Open the relay."""
        self.relay.open()

    def leftovers(self) -> Collection[str]:
        """Return jobs that have not ended, and payloads. Jobs that have, AWS shows for days, and no one can help it."""
        jobs = [f"job {job['jobName']}" for job in self.server.jobs(*UNFINISHED)]
        return [*jobs, *(f"object {key}" for key in self.server.objects())]

    def close(self) -> None:
        """Shut the relay for good."""
        self.relay.close()
