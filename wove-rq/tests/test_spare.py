"""The process that a worker forks ahead of its next job, with RQ's own jobs at a real Redis server."""

import os
import re
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from redis import Redis
from rq import Queue, Worker
from rq.command import send_stop_job_command
from rq.job import Job, JobStatus
from rq.utils import as_text
from rq_backend import RedisServer, children, own_command

from tests.support.deployments import AnnouncedWorker
from tests.support.jobs import eventually
from wove_rq.spare import is_possible

HERE = Path(__file__).parent
SECONDS = 60.0
QUEUE = "spare"


class Bed:
    """One worker of Wove's class with a queue of its own."""

    def __init__(self, worker: AnnouncedWorker, queue: Queue) -> None:
        self.worker = worker
        self.queue = queue
        self.busy: set[int] = set()

    def spare(self) -> int:
        """Return the process that waits for a job, as soon as it does."""
        eventually(lambda: self._waiting())
        (pid,) = self._waiting()
        return pid

    def _waiting(self) -> list[int]:
        ready = {int(pid) for pid in re.findall(r"process (\d+) waits for the next job", self.worker.output())}
        return [pid for pid in children(self.worker.pid) if pid in ready - self.busy and not has_ended(pid)]

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
        horse = int(path.read_text())
        self.busy.add(horse)
        return job, horse


def state_of(pid: int) -> str:
    """Return one letter for what a process does, ``Z`` if it has ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return "Z"


def has_ended(pid: int) -> bool:
    return state_of(pid) == "Z"


Beds = Callable[..., Any]


@pytest.fixture
def beds(redis_server: RedisServer, tmp_path: Path) -> Beds:
    @contextmanager
    def begin(*options: str, env: dict[str, str] | None = None, job_class: type[Job] | None = None) -> Iterator[Bed]:
        with redis_server.client() as client:
            client.flushall()
        worker = AnnouncedWorker(
            own_command(redis_server.url(), "--verbose", *options, QUEUE),
            announcement="*** Listening on ",
            env={"PYTHONPATH": str(HERE), "WOVE_SPOOL_DIR": str(tmp_path / "spool"), **(env or {})},
        )
        try:
            worker.ensure()
            yield Bed(worker, Queue(QUEUE, connection=Redis.from_url(redis_server.url()), job_class=job_class))
        finally:
            left = children(worker.pid)
            worker.close()
            for pid in left:
                if not has_ended(pid):
                    os.kill(pid, signal.SIGKILL)

    return begin


@pytest.fixture
def bed(beds: Beds) -> Iterator[Bed]:
    with beds() as bed:
        yield bed


def test_a_job_runs_in_the_process_that_waited_for_it_and_the_next_one_in_another(bed: Bed) -> None:
    first = bed.spare()
    assert bed.run("pid") == first
    second = bed.spare()
    assert second != first
    assert bed.run("pid") == second
    eventually(lambda: has_ended(first))


def test_a_job_finds_what_rq_sets_up_around_it(bed: Bed) -> None:
    spare = bed.spare()
    job = bed.queue.enqueue("spare_jobs.surroundings", "hello", meta={"owner": "me"})
    told = bed.value(job)
    (worker,) = Worker.all(queue=bed.queue)
    assert told["pid"] == told["group"] == spare
    assert (told["job"], told["RQ_JOB_ID"], told["RQ_WORKER_ID"]) == (job.id, job.id, worker.name)
    assert told["meta"] == {"owner": "me"}
    assert told["threads"] == 1
    eventually(lambda: "printed hello" in bed.worker.output())
    assert "logged hello" in bed.worker.output()
    assert job.worker_name is None or job.worker_name == worker.name


def test_a_job_that_raises_fails_with_its_own_traceback(bed: Bed) -> None:
    bed.spare()
    assert "LookupError: nothing there" in bed.failure(bed.queue.enqueue("spare_jobs.fail"))
    bed.spare()


def test_a_large_job_is_handed_over_whole(bed: Bed) -> None:
    bed.spare()
    assert bed.run("size", os.urandom(5_000_000)) == 5_000_000


def test_a_spare_that_was_killed_is_replaced_and_its_job_runs(bed: Bed) -> None:
    killed = bed.spare()
    os.kill(killed, signal.SIGKILL)
    eventually(lambda: has_ended(killed))
    assert bed.run("pid") != killed
    assert bed.spare() != killed
    assert bed.run("pid") != killed


def test_a_connection_that_redis_has_closed_meanwhile_costs_no_job(bed: Bed, redis_server: RedisServer) -> None:
    spare = bed.spare()
    with redis_server.client() as client:
        client.client_kill_filter(_type="normal", skipme=True)
    assert bed.run("pid") == spare


@pytest.mark.parametrize("job_class", ["FragileJob", "SecretiveJob"])
def test_a_job_that_cannot_be_handed_over_gets_a_process_of_its_own(beds: Beds, job_class: str) -> None:
    with beds("--job-class", f"spare_workers.{job_class}") as bed:
        spare = bed.spare()
        assert bed.run("pid") != spare


def test_without_a_free_process_rq_forks_when_the_job_is_there(beds: Beds) -> None:
    with beds("--worker-class", "spare_workers.Forkless") as bed:
        eventually(lambda: "No process could be forked ahead of its job" in bed.worker.output())
        assert children(bed.worker.pid) == []
        bed.run("pid")
        spare = bed.spare()
        assert bed.run("pid") == spare


def test_a_spare_that_does_not_become_ready_keeps_no_job_waiting(beds: Beds) -> None:
    with beds("--worker-class", "spare_workers.Unready") as bed:
        eventually(lambda: [state_of(pid) for pid in children(bed.worker.pid)] == ["T"])
        (stuck,) = children(bed.worker.pid)
        assert bed.run("pid") != stuck
        bed.worker.terminate()
        eventually(lambda: not bed.worker.running and has_ended(stuck))


@pytest.mark.parametrize("way", ["option", "variable"])
def test_on_request_nothing_is_forked_ahead(beds: Beds, way: str) -> None:
    with beds(
        *(["--no-spare"] if way == "option" else []), env={"WOVE_RQ_SPARE": "0"} if way == "variable" else {}
    ) as bed:
        bed.run("pid")
        eventually(lambda: children(bed.worker.pid) == [])
        bed.run("pid")


def test_the_stop_command_kills_the_process_that_has_the_job(bed: Bed, tmp_path: Path) -> None:
    spare = bed.spare()
    job, horse = bed.begin_holding(tmp_path / "pid")
    assert horse == spare
    follower = bed.spare()
    send_stop_job_command(bed.queue.connection, job.id)
    assert "stopped by user" in bed.failure(job)
    assert job.get_status() == JobStatus.STOPPED
    assert has_ended(horse)
    assert bed.run("pid") == follower


def test_a_job_ends_at_its_timeout(bed: Bed, tmp_path: Path) -> None:
    bed.spare()
    job, _ = bed.begin_holding(tmp_path / "pid", job_timeout=1)
    assert "JobTimeoutException" in bed.failure(job)


def test_a_job_whose_process_is_killed_fails_as_rq_says_it(bed: Bed, tmp_path: Path) -> None:
    bed.spare()
    job, horse = bed.begin_holding(tmp_path / "pid")
    os.kill(horse, signal.SIGKILL)
    assert "Work-horse terminated unexpectedly" in bed.failure(job)
    assert "(signal 9)" in bed.failure(job)
    bed.run("pid")


def test_a_warm_shutdown_of_an_idle_worker_leaves_no_process(bed: Bed) -> None:
    spare = bed.spare()
    bed.worker.terminate()
    eventually(lambda: not bed.worker.running and has_ended(spare))


def test_a_cold_shutdown_leaves_neither_the_job_nor_the_spare(bed: Bed, tmp_path: Path) -> None:
    _, horse = bed.begin_holding(tmp_path / "pid")
    spare = bed.spare()
    bed.worker.terminate()
    eventually(lambda: "shutdown_requested_date" in worker_hash(bed))
    assert not has_ended(horse)

    def told_again() -> bool:
        # RQ takes a second signal within a second for an echo of the first.
        bed.worker.terminate()
        return not bed.worker.running

    eventually(told_again)
    eventually(lambda: has_ended(horse) and has_ended(spare))


def worker_hash(bed: Bed) -> set[str]:
    (worker,) = Worker.all(queue=bed.queue)
    return {as_text(name) for name in bed.queue.connection.hkeys(worker.key)}


def test_a_spare_ends_with_a_worker_that_was_killed_though_a_job_goes_on(bed: Bed, tmp_path: Path) -> None:
    _, horse = bed.begin_holding(tmp_path / "pid")
    spare = bed.spare()
    os.kill(bed.worker.pid, signal.SIGKILL)
    eventually(lambda: has_ended(spare))
    assert not has_ended(horse)
    os.kill(horse, signal.SIGKILL)


@pytest.mark.parametrize("method", ["fork_work_horse", "main_work_horse"])
def test_an_rq_that_forks_in_another_way_is_left_to_itself(
    redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    worker = Worker([QUEUE], connection=Redis.from_url(redis_server.url()))
    assert is_possible(worker)
    monkeypatch.setattr(Worker, method, lambda self, execution: None)
    assert not is_possible(worker)


def test_a_burst_ends_when_the_queue_is_empty(beds: Beds) -> None:
    with beds("--burst") as bed:
        eventually(lambda: not bed.worker.running)
        assert "done, quitting" in bed.worker.output()


def test_a_scheduler_beside_the_worker_neither_keeps_spares_alive_nor_is_disturbed(beds: Beds) -> None:
    with beds("--with-scheduler") as bed:
        bed.run("pid")
        spare = bed.spare()
        assert bed.value(bed.queue.enqueue_in(timedelta(seconds=1), "spare_jobs.pid")) == spare
        last = bed.spare()
        os.kill(bed.worker.pid, signal.SIGKILL)
        eventually(lambda: has_ended(last))


def test_file_descriptors_do_not_grow(bed: Bed) -> None:
    def descriptors() -> int:
        bed.spare()
        return len(os.listdir(f"/proc/{bed.worker.pid}/fd"))

    first = bed.run("surroundings", "first")
    before = descriptors()
    jobs = [bed.queue.enqueue("spare_jobs.surroundings", "another") for _ in range(50)]
    told = [bed.value(job) for job in jobs]
    assert descriptors() == before
    assert {each["descriptors"] for each in told} == {first["descriptors"]}
    assert len({each["pid"] for each in told}) == 50
