"""The process that a worker forks ahead of its next job, with RQ's own jobs at a real Redis server."""

import os
import signal
from datetime import timedelta
from pathlib import Path

import pytest
from redis import Redis
from rq import Worker
from rq.command import send_stop_job_command
from rq.job import JobStatus
from rq.utils import as_text
from rq_backend import RedisServer, children
from spare_bed import HERE, QUEUE, Bed, Beds, has_ended, state_of

from tests.support.jobs import eventually
from wove_rq.spare import is_possible


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


def test_a_job_finds_its_process_set_up_as_one_that_rq_forks(beds: Beds) -> None:
    with beds("--worker-class", "spare_workers.Unprepared") as bed:
        usual = bed.run("process")
    with beds() as bed:
        bed.spare()
        assert bed.run("process") == usual


def test_a_job_loads_a_module_as_it_is_by_then(beds: Beds, tmp_path: Path) -> None:
    with beds(env={"PYTHONPATH": f"{HERE}{os.pathsep}{tmp_path}"}) as bed:
        bed.spare()
        (tmp_path / "deployed_later.py").write_text("def version(): return 2")
        assert bed.value(bed.queue.enqueue("deployed_later.version")) == 2


def test_each_job_has_random_numbers_of_its_own(bed: Bed) -> None:
    assert len({bed.run("random_number") for _ in range(3) if bed.spare()}) == 3


def test_what_redis_has_of_the_worker_is_as_without_a_spare(bed: Bed) -> None:
    spare = bed.spare()
    (worker,) = Worker.all(queue=bed.queue)
    assert (worker.pid, worker.successful_job_count) == (bed.worker.pid, 0)
    eventually(lambda: [each.get_state() for each in Worker.all(queue=bed.queue)] == ["idle"])
    bed.run("pid")
    assert bed.spare() != spare
    with pytest.raises(AssertionError, match="LookupError"):
        bed.run("fail")
    (worker,) = Worker.all(queue=bed.queue)
    assert (worker.pid, worker.successful_job_count, worker.failed_job_count) == (bed.worker.pid, 1, 1)


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


def test_a_class_that_starts_its_processes_in_another_way_goes_on_with_it(beds: Beds) -> None:
    with beds("--worker-class", "spare_workers.Spawning") as bed:
        assert bed.run("pid")
        assert bed.forked_ahead() == set()
        eventually(lambda: children(bed.worker.pid) == [])


@pytest.mark.parametrize(
    ("options", "env"),
    [
        (["--no-spare"], {}),
        ([], {"WOVE_RQ_SPARE": "0"}),
        (["--worker-class", "spare_workers.Unprepared"], {}),
    ],
    ids=["option", "variable", "class"],
)
def test_on_request_nothing_is_forked_ahead(beds: Beds, options: list[str], env: dict[str, str]) -> None:
    with beds(*options, env=env) as bed:
        bed.run("pid")
        eventually(lambda: children(bed.worker.pid) == [])
        bed.run("pid")
        assert bed.forked_ahead() == set()


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


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_warm_shutdown_of_an_idle_worker_leaves_no_process(bed: Bed, number: int) -> None:
    spare = bed.spare()
    os.kill(bed.worker.pid, number)
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
        eventually(lambda: all(has_ended(pid) for pid in bed.forked_ahead()))


def test_a_worker_with_a_limit_ends_after_so_many_jobs_and_leaves_no_process(beds: Beds) -> None:
    with beds("--max-jobs", "2") as bed:
        bed.spare()
        jobs = [bed.queue.enqueue("spare_jobs.pid") for _ in range(3)]
        assert bed.value(jobs[0]) != bed.value(jobs[1])
        eventually(lambda: not bed.worker.running)
        assert "finished executing 2 jobs, quitting" in bed.worker.output()
        eventually(lambda: all(has_ended(pid) for pid in bed.forked_ahead()))
        assert jobs[2].get_status() == JobStatus.QUEUED


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

    before = descriptors()
    first = bed.run("surroundings", "first")
    jobs = [bed.queue.enqueue("spare_jobs.surroundings", "another") for _ in range(50)]
    told = [bed.value(job) for job in jobs]
    assert descriptors() == before
    # On a busy machine, RQ forks for one or the other, and that process keeps its worker's connections.
    ahead = [each for each in told if each["pid"] in bed.forked_ahead()]
    assert {each["descriptors"] for each in ahead} <= {first["descriptors"]}
    assert len({each["pid"] for each in told}) == 50
