"""What follows from what Slurm says, where a real cluster could only be made to say it by chance."""

import time
from collections.abc import Mapping, Sequence

from wove.integrations.base import JobState
from wove_slurm.commands import Commands
from wove_slurm.jobs import Job, Jobs
from wove_slurm.logs import Logs
from wove_slurm.settings import read_settings
from wove_slurm.states import Row
from wove_slurm.watching import Watcher


class ToldJobs(Jobs):
    """Jobs about which Slurm says what a test tells it to."""

    def __init__(self) -> None:
        settings = read_settings({})
        super().__init__(settings, Commands(settings), Logs("none"))
        self.said: list[Row] = []
        self.remembered: dict[str, Row] = {}
        self.cancelled: list[str] = []
        self.failure: Exception | None = None

    def rows(self, *options: str) -> dict[str, Row]:
        if self.failure is not None:
            raise self.failure
        return {row.key: row for row in self.said}

    def ended_rows(self, keys: Sequence[str]) -> dict[str, Row]:
        return {key: self.remembered[key] for key in keys if key in self.remembered}

    def cancel(self, keys: Sequence[str]) -> None:
        self.cancelled += keys


def watched(jobs: ToldJobs, *known: Job, patience: float | None = 300.0) -> Watcher:
    watcher = Watcher(jobs, Logs("none"), interval=0.01, patience=patience)
    for job in known:
        watcher.add(job)
    return watcher


async def states(watcher: Watcher) -> Mapping[str, JobState]:
    return dict(await watcher.look())


async def test_a_job_that_slurm_does_not_know_is_gone_after_two_questions() -> None:
    watcher = watched(ToldJobs(), Job("17", run_id="run-1", name="wove-run-1"))
    assert await states(watcher) == {}
    found = await states(watcher)
    assert found["run-1"].phase == "gone"
    assert "Slurm's job 17" in str(found["run-1"].reason)
    assert watcher.find("run-1") is None


async def test_a_job_that_turns_up_after_one_question_is_there() -> None:
    jobs = ToldJobs()
    watcher = watched(jobs, Job("17", run_id="run-1", name="wove-run-1"))
    assert await states(watcher) == {}
    jobs.said = [Row("17", "RUNNING")]
    assert await states(watcher) == {"run-1": JobState("running")}
    jobs.said = []
    assert await states(watcher) == {}


async def test_what_the_controller_has_forgotten_the_database_knows_at_once() -> None:
    jobs = ToldJobs()
    jobs.remembered = {"17": Row("17", "FAILED", exit_code=5, nodes="node1")}
    found = await states(watched(jobs, Job("17", run_id="run-1", name="wove-run-1")))
    assert (found["run-1"].phase, found["run-1"].exit_code) == ("failed", 5)


async def test_a_job_cancelled_before_it_began_is_over_when_slurm_does_not_know_it() -> None:
    job = Job("17_3", run_id="run-1", name="wove-run-1")
    job.unwanted = True
    assert (await states(watched(ToldJobs(), job)))["run-1"].phase == "cancelled"


async def test_slurm_is_asked_again_to_cancel_what_is_still_there() -> None:
    jobs, job = ToldJobs(), Job("17", run_id="run-1", name="wove-run-1")
    jobs.said = [Row("17", "RUNNING")]
    job.unwanted, job.told = True, time.monotonic()
    watcher = watched(jobs, job)
    await states(watcher)
    assert jobs.cancelled == []
    job.told -= 60.0
    await states(watcher)
    await states(watcher)
    assert jobs.cancelled == ["17"]


async def test_a_job_that_waits_for_ever_is_given_up_once() -> None:
    jobs, job = ToldJobs(), Job("17", run_id="run-1", name="wove-run-1")
    jobs.said = [Row("17", "PENDING", "PartitionTimeLimit")]
    watcher = watched(jobs, job, patience=50.0)
    assert {state.phase for state in (await states(watcher)).values()} == {"queued"}
    assert job.hopeless_since is not None
    job.hopeless_since -= 60.0
    assert (await states(watcher))["run-1"].phase == "failed"
    assert jobs.cancelled == ["17"]


async def test_a_hopeless_wait_that_ends_is_forgiven() -> None:
    jobs, job = ToldJobs(), Job("17", run_id="run-1", name="wove-run-1")
    watcher = watched(jobs, job, patience=50.0)
    for reason in ("PartitionDown", "Priority", "PartitionDown"):
        jobs.said = [Row("17", "PENDING", reason)]
        assert (await states(watcher))["run-1"] == JobState("queued", reason=f"Slurm's job 17 waits: {reason}")
        job.hopeless_since = job.hopeless_since and job.hopeless_since - 40.0


async def test_patience_may_be_endless() -> None:
    jobs = ToldJobs()
    jobs.said = [Row("17", "PENDING", "PartitionDown")]
    job = Job("17", run_id="run-1", name="wove-run-1")
    watcher = watched(jobs, job, patience=None)
    assert (await states(watcher))["run-1"].phase == "queued"
    assert job.hopeless_since is not None
    job.hopeless_since -= 1e6
    assert await states(watcher) == {}


async def test_why_a_job_waits_is_told_whenever_it_changes() -> None:
    jobs = ToldJobs()
    watcher = watched(jobs, Job("17", run_id="run-1", name="wove-run-1"))
    told = []
    for state, reason in (("PENDING", "None"), ("PENDING", "Resources"), ("PENDING", "Resources"), ("RUNNING", "None")):
        jobs.said = [Row("17", state, reason)]
        told.append(await states(watcher))
    assert told == [
        {},
        {"run-1": JobState("queued", reason="Slurm's job 17 waits: Resources")},
        {},
        {"run-1": JobState("running")},
    ]


async def test_a_job_that_did_not_have_to_wait_is_told_to_run_once() -> None:
    jobs = ToldJobs()
    jobs.said = [Row("17", "RUNNING")]
    watcher = watched(jobs, Job("17", run_id="run-1", name="wove-run-1"))
    assert await states(watcher) == {"run-1": JobState("running")}
    assert await states(watcher) == {}


async def test_a_job_that_slurm_took_although_it_could_not_say_so_is_cancelled() -> None:
    jobs = ToldJobs()
    jobs.ghosts = {"wove-run-1": time.monotonic()}
    jobs.said = [Row("17", "PENDING", name="wove-run-1"), Row("18", "RUNNING", name="wove-run-2")]
    watcher = watched(jobs)
    assert await states(watcher) == {}
    assert jobs.cancelled == ["17"]
    jobs.said = [Row("17", "CANCELLED", name="wove-run-1")]
    await states(watcher)
    assert not watcher.has_jobs


async def test_a_job_that_never_turns_up_is_not_waited_for_for_ever() -> None:
    jobs = ToldJobs()
    jobs.ghosts = {"wove-run-1": time.monotonic() - 1000.0}
    watcher = watched(jobs)
    await states(watcher)
    assert not watcher.has_jobs


async def test_the_handle_of_a_job_that_slurm_took_twice_follows_the_one_that_lives() -> None:
    jobs = ToldJobs()
    job = Job("18_1", run_id="run-1", name="wove-run-0", in_doubt=True)
    jobs.said = [Row("18_1", "COMPLETED", name="wove-run-0"), Row("17_1", "RUNNING", name="wove-run-0")]
    watcher = watched(jobs, job)
    assert await states(watcher) == {"run-1": JobState("running")}
    assert job.key == "17_1"
    jobs.said = [Row("17_1", "FAILED", exit_code=1, name="wove-run-0")]
    assert (await states(watcher))["run-1"].phase == "failed"


async def test_a_question_that_fails_changes_nothing() -> None:
    jobs = ToldJobs()
    jobs.failure = ConnectionError("away")
    watcher = watched(jobs, Job("17", run_id="run-1", name="wove-run-1"))
    for _ in range(3):
        try:
            await watcher.look()
        except ConnectionError:
            pass
    jobs.failure = None
    assert await states(watcher) == {}
    assert watcher.find("run-1") is not None
