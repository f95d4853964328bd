"""How a job lives on the test server of AWS Batch: it waits for a place, its process runs, and somebody may end it."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, ClassVar

from moto.batch import models
from moto.batch.utils import JobStatus

# AWS Batch API reference, SubmitJob.
OVERRIDES_CHARACTERS = 8192

# The words are AWS's, from the user guide's "Troubleshooting AWS Batch" and what others have quoted.
LONG_OVERRIDES = "Container Overrides length must be at most 8192"
EXITED = "Essential container in task exited"
TOO_LONG = "Job attempt duration exceeded timeout"
OUT_OF_MEMORY = "OutOfMemoryError: Container killed due to memory usage"
HOST_GONE = "Host EC2 (instance i-0123456789abcdef0) terminated."
NOT_PULLED = "CannotPullContainerError: Error response from daemon: pull access denied for {image}"
NO_CAPACITY = (
    "MISCONFIGURATION:JOB_RESOURCE_REQUIREMENT - The job resource requirement (vCPU/memory/GPU) is higher than that "
    "can be met by the CE(s) attached to the job queue."
)

LOOK_SECONDS = float(os.environ.get("BATCH_TEST_LOOK_SECONDS", "0.5"))
# AWS: 30 seconds.
STOP_SECONDS = float(os.environ.get("BATCH_TEST_STOP_SECONDS", "2"))

# What moto does not pass on from a request to the job that it makes.
asked = threading.local()


class Bed:
    """What the jobs of this process share.

    Attributes:
        folder: for logs and faults.
        places: how many processes run at a time.
    """

    def __init__(self, folder: Path, places: int) -> None:
        self.folder = folder
        self._places = places
        self._changed = threading.Condition()
        self._processes: dict[LocalJob, subprocess.Popen[bytes]] = {}
        (folder / "faults").mkdir(parents=True, exist_ok=True)

    @contextmanager
    def place(self, may_wait: Callable[[], bool], may_start: Callable[[], bool]) -> Iterator[bool]:
        """Wait for a place as long as one may; tell whether there is one."""
        with self._changed:
            while (got := may_wait()) and not (self._places > 0 and may_start()):
                self._changed.wait(0.05)
            self._places -= got
        try:
            yield got
        finally:
            with self._changed:
                self._places += got
                self._changed.notify_all()

    def start(self, job: "LocalJob", command: list[str], env: dict[str, str], log: Path) -> "subprocess.Popen[bytes]":
        """Start a job's process, in a session of its own."""
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
        with log.open("ab") as output:
            process = subprocess.Popen(
                command,
                env={"PATH": path, "HOME": os.environ.get("HOME", "/"), **env},
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._processes[job] = process
        return process

    def ended(self, job: "LocalJob") -> None:
        """Forget a process, and end what it started."""
        signal_group(self._processes.pop(job), signal.SIGKILL)

    def lose_host(self) -> None:
        """Let the host of all jobs that run go away."""
        for job, process in list(self._processes.items()):
            job.host_gone = True
            signal_group(process, signal.SIGKILL)

    def signal_all(self, number: int) -> None:
        """Send a signal to all processes."""
        for process in list(self._processes.values()):
            signal_group(process, number)

    def takes_fault(self, kind: str) -> bool:
        """Tell whether this request suffers a fault of that kind, and use the fault up."""
        for file in sorted((self.folder / "faults").glob(f"{kind}-*")):
            try:
                file.unlink()
            except FileNotFoundError:
                continue  # Another request was faster.
            return True
        return False


def signal_group(process: "subprocess.Popen[bytes]", number: int) -> None:
    try:
        os.killpg(process.pid, number)
    except ProcessLookupError:
        pass


def resident_bytes(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0


class LocalJob(models.Job):  # type: ignore[misc]
    """One job or child of an array, with its own thread."""

    __module__ = models.__name__  # moto files its models by the module that defines them.

    # The one of this process.
    bed: ClassVar[Bed]
    # moto would compute it.
    status = JobStatus.SUBMITTED
    job_stopped_reason: str | None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.overrides = json.loads(json.dumps(self.container_overrides))
        self.retry = asked.retry or self.job_definition.retry_strategy or {}
        self.share = asked.share
        self.host_gone = False
        self.reason: str | None = None

    # --- what DescribeJobs says ---

    def describe_short(self) -> dict[str, Any]:
        self._settle()
        # For an array that has ended moto puts a plain text there.
        return {**super().describe_short(), "status": JobStatus(self.status).value}

    def describe(self) -> dict[str, Any]:
        found = super().describe()
        container = found["container"]
        container["resourceRequirements"] = self._requirements()
        if self.exit_code is not None:
            container["exitCode"] = self.exit_code
        if self.reason is not None:
            container["reason"] = self.reason
        stopped = {"isTerminated": self.stop, "isCancelled": False} if self.job_stopped else {}
        share = {"shareIdentifier": self.share} if self.share else {}
        return {**found, **stopped, **share, "retryStrategy": self.retry}

    def _requirements(self) -> list[dict[str, str]]:
        properties = self.job_definition.container_properties
        found = {each["type"]: each["value"] for each in properties.get("resourceRequirements", [])}
        found |= {each["type"]: each["value"] for each in self.overrides.get("resourceRequirements", [])}
        return [{"type": kind, "value": value} for kind, value in found.items()]

    def _settle(self) -> None:
        """End an array with its last child."""
        children = self._child_jobs or []
        if not children or self.job_stopped:
            return
        self.status = JobStatus.PENDING
        if all(child.job_stopped for child in children):
            failed = any(child.status == JobStatus.FAILED for child in children)
            self._end("Array Child Job failed" if failed else None, success=not failed)

    def _get_container_property(self, p: str, default: Any) -> Any:
        if p != "environment":
            return super()._get_container_property(p, default)
        given = [*(self.job_definition.container_properties.get(p) or []), *(self.overrides.get(p) or [])]
        pairs = {each["name"]: each["value"] for each in given}
        pairs |= {"AWS_BATCH_JOB_ID": self.job_id, "AWS_BATCH_JQ_NAME": self.job_queue.name}
        pairs["AWS_BATCH_JOB_ATTEMPT"] = str(max(len(self.attempts), 1))
        if "index" in (self.array_properties or {}):
            pairs["AWS_BATCH_JOB_ARRAY_INDEX"] = str(self.array_properties["index"])
        return [{"name": name, "value": value} for name, value in pairs.items()]

    # --- its life ---

    def terminate(self, reason: str) -> None:
        for child in self._child_jobs or []:
            child.terminate(reason)
        super().terminate(reason)

    def run(self) -> None:
        try:
            self._live()
        except Exception as error:
            self._end(f"The test bed failed: {error!r}", success=False)

    def _live(self) -> None:
        if len(json.dumps(self.overrides, separators=(",", ":"), ensure_ascii=False)) > OVERRIDES_CHARACTERS:
            self._end(LONG_OVERRIDES, success=False)
            return
        success, reason = False, None
        for _ in range(self.retry.get("attempts", 1)):
            self.status = JobStatus.RUNNABLE
            with self.bed.place(lambda: not self.stop, self._may_start) as place:
                success, reason = self._attempt() if place else (False, None)
            if success or self.stop or reason == TOO_LONG:
                break
        self._end(reason, success=success)

    def _may_start(self) -> bool:
        if self._asks_too_much():
            # Shown in DescribeJobs while the job waits.
            self.job_stopped_reason = NO_CAPACITY
            return False
        return any(environment.state == "ENABLED" for environment in self.job_queue.environments)

    def _asks_too_much(self) -> bool:
        return any(each["type"] == "GPU" for each in self._requirements())

    def _attempt(self) -> tuple[bool, str | None]:
        self.status = JobStatus.STARTING
        self.job_started_at = datetime.now()  # noqa: DTZ005 - as moto does
        self._start_attempt()
        image = self.job_definition.container_properties["image"]
        if image.startswith("missing/"):
            time.sleep(0.05)
            self.reason = NOT_PULLED.format(image=image)
            return False, "Task failed to start"
        log = self.bed.folder / f"{self.job_id.replace(':', '-')}.log"
        env = {each["name"]: each["value"] for each in self._get_container_property("environment", [])}
        self.status = JobStatus.RUNNING
        process = self.bed.start(self, self._get_container_property("command", []), env, log)
        try:
            why = self._watch(process)
            code = process.wait()
        finally:
            self.bed.ended(self)
        self._keep_log(log)
        if self.host_gone:
            return False, HOST_GONE
        self.exit_code = code if code >= 0 else 128 - code
        if why == OUT_OF_MEMORY:
            self.reason, why = OUT_OF_MEMORY, EXITED
        return code == 0 and not self.stop and why is None, why or EXITED

    def _watch(self, process: "subprocess.Popen[bytes]") -> str | None:
        """Return when the process has ended, or was ended for a reason."""
        limit = self._get_attempt_duration()
        memory = next((int(each["value"]) for each in self._requirements() if each["type"] == "MEMORY"), None)
        started = time.monotonic()
        why: str | None = None
        while process.poll() is None:
            if self.stop or (limit and time.monotonic() - started > limit):
                why = None if self.stop else TOO_LONG
                signal_group(process, signal.SIGTERM)
                try:
                    process.wait(STOP_SECONDS)
                except subprocess.TimeoutExpired:
                    signal_group(process, signal.SIGKILL)
            elif memory and resident_bytes(process.pid) > memory * 2**20:
                why = OUT_OF_MEMORY
                signal_group(process, signal.SIGKILL)
                process.wait()
            else:
                time.sleep(LOOK_SECONDS)
        return why

    def _keep_log(self, log: Path) -> None:
        self.log_stream_name = self._stream_name
        self._log_backend.ensure_log_group(self._log_group)
        self._log_backend.ensure_log_stream(self._log_group, self.log_stream_name)
        now = int(datetime.now(UTC).timestamp() * 1000)
        lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
        events = [{"timestamp": now, "message": line} for line in lines]
        self._log_backend.put_log_events(self._log_group, self.log_stream_name, events)

    def _end(self, reason: str | None, *, success: bool) -> None:
        if not self.stop:
            self.job_stopped_reason = reason
        self._mark_stopped(success=success)
