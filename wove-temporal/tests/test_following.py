"""How the ends of jobs are waited for, without a server."""

import asyncio
from typing import Any

import pytest

from tests.support.virtual_time import in_virtual_time, now
from wove.integrations.base import JobState
from wove_temporal.following import Followers
from wove_temporal.jobs import End, NewJob, failed


class FakeJobs:
    """Jobs that end as they are told; `waited` holds the handles that have been asked about."""

    def __init__(self, *ends: End) -> None:
        self.ends = list(ends)
        self.starts = 1
        self.waited: list[Any] = []
        self.stopped: list[Any] = []

    async def start(self, job: NewJob) -> Any:
        raise NotImplementedError

    async def start_again(self, job: NewJob, handle: Any) -> Any:
        self.starts += 1
        return f"handle {self.starts}"

    async def stop(self, handle: Any) -> None:
        self.stopped.append(handle)

    async def end(self, handle: Any) -> End:
        self.waited.append(handle)
        if not self.ends:
            await asyncio.Event().wait()
        return self.ends.pop(0)


JOB = NewJob(id="wove-report-1", run_id="report-1", payload={}, seconds=None, keyed=False)
SILENT = failed("not heard of", silent=True)
FINISHED = End(JobState("finished"))


async def test_the_end_of_a_job_is_news() -> None:
    followers = Followers(FakeJobs(FINISHED))
    followers.follow(followers.expect(JOB), "handle 1")
    assert await followers.news.get() == ("report-1", JobState("finished"))


async def test_a_job_that_has_reached_no_worker_is_started_again() -> None:
    jobs = FakeJobs(SILENT, FINISHED)
    followers = Followers(jobs)
    followers.follow(followers.expect(JOB), "handle 1")
    assert (await followers.news.get())[1].phase == "finished"
    assert (jobs.starts, jobs.waited) == (2, ["handle 1", "handle 2"])


async def test_it_is_reported_when_that_does_not_help() -> None:
    jobs = FakeJobs(SILENT, SILENT, SILENT)
    followers = Followers(jobs)
    followers.follow(followers.expect(JOB), "handle 1")
    assert (await followers.news.get())[1].phase == "failed"
    assert jobs.starts == 3


@pytest.mark.parametrize("early", [True, False])
async def test_a_job_that_has_begun_is_not_started_again(early: bool) -> None:
    jobs = FakeJobs(SILENT)
    followers = Followers(jobs)
    submitted = followers.expect(JOB)
    if early:
        followers.heard("report-1", "task_started")  # Before the server has accepted it.
    followers.follow(submitted, "handle 1")
    if not early:
        followers.heard("report-1", "task_started")
    assert (await followers.news.get())[1].phase == "failed"
    assert jobs.starts == 1


async def test_a_job_that_was_given_up_is_not_started_again() -> None:
    jobs = FakeJobs(SILENT)
    followers = Followers(jobs)
    submitted = followers.expect(JOB)
    followers.follow(submitted, "handle 1")
    submitted.given_up = True
    assert (await followers.news.get())[1].phase == "failed"
    assert jobs.starts == 1


@pytest.mark.parametrize("early", [True, False])
async def test_the_server_is_not_asked_about_a_run_that_is_over(early: bool) -> None:
    jobs = FakeJobs()
    followers = Followers(jobs)
    submitted = followers.expect(JOB)
    if early:
        followers.heard("report-1", "task_result")
    followers.follow(submitted, "handle 1")
    if not early:
        followers.heard("report-1", "task_result")
    other = NewJob(id="wove-report-2", run_id="report-2", payload={}, seconds=None, keyed=False)
    jobs.ends.append(FINISHED)
    followers.follow(followers.expect(other), "handle of another")
    assert (await followers.news.get())[0] == "report-2"
    assert jobs.waited == ["handle of another"]


async def others_get_on(followers: Followers, *, seconds: float) -> None:
    """Let a worker report another run ten times a second."""
    other = NewJob(id="wove-report-2", run_id="report-2", payload={}, seconds=None, keyed=False)
    followers.expect(other)
    until = now() + seconds
    while now() < until:
        followers.heard("report-2", "heartbeat")
        await asyncio.sleep(0.1)


@in_virtual_time
async def test_the_server_is_not_asked_about_a_job_that_waits_while_others_get_on() -> None:
    jobs = FakeJobs(FINISHED)
    followers = Followers(jobs)
    followers.follow(followers.expect(JOB), "handle 1")
    await others_get_on(followers, seconds=3.0)
    assert jobs.waited == []
    assert (await followers.news.get())[0] == "report-1"
    assert now() < 4.0


@in_virtual_time
async def test_however_others_get_on_the_server_is_asked_after_a_while() -> None:
    jobs = FakeJobs()
    followers = Followers(jobs)
    followers.follow(followers.expect(JOB), "handle 1")
    await others_get_on(followers, seconds=6.0)
    assert jobs.waited == ["handle 1"]
    await followers.close()


@in_virtual_time
async def test_the_server_is_asked_about_a_run_that_goes_on_although_others_get_on() -> None:
    jobs = FakeJobs()
    followers = Followers(jobs)
    followers.follow(followers.expect(JOB), "handle 1")
    followers.heard("report-1", "task_started")
    await others_get_on(followers, seconds=1.0)
    assert jobs.waited == ["handle 1"]
    await followers.close()


async def test_a_job_that_could_not_be_started_is_forgotten() -> None:
    followers = Followers(FakeJobs())
    followers.drop(followers.expect(JOB))
    first = followers.expect(JOB)
    followers.follow(first, "handle 1")
    followers.drop(followers.expect(JOB))  # The second start of one that was started.
    assert followers.holders_of(JOB.id) == [first]
    await followers.close()


async def test_closing_waits_for_no_job() -> None:
    jobs = FakeJobs()
    followers = Followers(jobs)
    followers.follow(followers.expect(JOB), "handle 1")
    async with asyncio.timeout(10.0):
        while not jobs.waited:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        await followers.close()
    assert followers.news.empty()
