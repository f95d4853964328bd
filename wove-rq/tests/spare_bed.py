"""A worker of Wove's class with jobs of RQ's own, for the tests of the process that it forks ahead of its next job."""

import os
import re
import signal
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

from redis import Redis
from rq import Queue
from rq.job import Job, JobStatus
from rq_backend import RedisServer, children, own_command

from tests.support.deployments import AnnouncedWorker
from tests.support.jobs import eventually

HERE = Path(__file__).parent
SECONDS = 60.0
QUEUE = "spare"


class Bed:
    """One worker of Wove's class with a queue of its own."""

    def __init__(self, worker: AnnouncedWorker, queue: Queue) -> None:
        self.worker = worker
        self.queue = queue

    def spare(self) -> int:
        """Return the process that waits for a job, as soon as it does."""
        found: list[int] = []

        def is_there() -> bool:
            found[:] = self.waiting()
            return bool(found)

        eventually(is_there)
        (pid,) = found
        return pid

    def waiting(self) -> list[int]:
        """Return those of the worker's processes that wait for a job, by what they say of themselves."""
        # Whoever has taken a job says so before it begins.
        said = dict(re.findall(r"process (\d+) (waits|takes)", self.worker.output()))
        return [pid for pid in children(self.worker.pid) if said.get(str(pid)) == "waits" and not has_ended(pid)]

    def forked_ahead(self) -> set[int]:
        """Return every process that has ever waited for a job."""
        return {int(pid) for pid in re.findall(r"process (\d+) waits", self.worker.output())}

    def run(self, function: str, *args: Any, **options: Any) -> Any:
        """Return what a job returns."""
        return self.value(self.queue.enqueue(f"spare_jobs.{function}", *args, **options))

    def value(self, job: Job) -> Any:
        """Return what a job has returned, when it has ended."""
        eventually(lambda: job.get_status() in (JobStatus.FINISHED, JobStatus.FAILED), SECONDS)
        result = job.latest_result()
        assert job.get_status() == JobStatus.FINISHED, result and result.exc_string
        return job.return_value()

    def failure(self, job: Job) -> str:
        """Return what RQ says of a job that did not succeed."""
        eventually(lambda: job.get_status() in (JobStatus.FAILED, JobStatus.STOPPED), SECONDS)
        eventually(lambda: job.latest_result() is not None, SECONDS)
        result = job.latest_result()
        assert result is not None
        return str(result.exc_string)

    def begin_holding(self, path: Path, **options: Any) -> tuple[Job, int]:
        """Return a job that runs until it is killed, and its process."""
        job = self.queue.enqueue("spare_jobs.hold", str(path), **options)
        eventually(lambda: path.exists() and path.read_text())
        return job, int(path.read_text())


def state_of(pid: int) -> str:
    """Return one letter for what a process does, ``Z`` if it has ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return "Z"


def has_ended(pid: int) -> bool:
    return state_of(pid) == "Z"


Beds = Callable[..., AbstractContextManager[Bed]]


def beds(server: RedisServer, directory: Path) -> Beds:
    """Return what begins with an empty Redis server and one worker, of which it leaves nothing."""

    @contextmanager
    def begin(*options: str, env: dict[str, str] | None = None, job_class: type[Job] | None = None) -> Iterator[Bed]:
        server.clear()
        worker = AnnouncedWorker(
            own_command(server.url(), "--verbose", *options, QUEUE),
            announcement="*** Listening on ",
            env={"PYTHONPATH": str(HERE), "WOVE_SPOOL_DIR": str(directory / "spool"), **(env or {})},
        )
        try:
            worker.ensure()
            yield Bed(worker, Queue(QUEUE, connection=Redis.from_url(server.url()), job_class=job_class))
        finally:
            left = children(worker.pid)
            worker.close()
            for pid in left:
                if not has_ended(pid):
                    os.kill(pid, signal.SIGKILL)

    return begin
