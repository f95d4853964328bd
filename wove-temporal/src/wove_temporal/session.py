"""Everything that the adapter asks of the server, on one event loop."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Mapping
from typing import Any

from wove.errors import DeliveryError
from wove.integrations.base import JobState
from wove_temporal.activity_jobs import ActivityJobs
from wove_temporal.connection import SETTLE_SECONDS, Connection, connect
from wove_temporal.following import Followers
from wove_temporal.jobs import Jobs, NewJob, Submitted, TakenError, new_job
from wove_temporal.pace import Concurrency, Pace
from wove_temporal.settings import SHIPPED, Settings
from wove_temporal.workflow_jobs import ShippedWorkflowJobs, WorkflowJobs

# How long a job of the same key, which is just ending, may hold up the next one.
_SUCCESSION_SECONDS = 3.0
_SUCCESSION_PAUSE = 0.05

logger = logging.getLogger("wove")


class Session:
    """The jobs of one configuration. Made by `open_session`.

    Args:
        connection: to the server.
        settings: how jobs are started.
        jobs: what they are.
    """

    def __init__(self, connection: Connection, settings: Settings, jobs: Jobs) -> None:
        self._connection = connection
        self._settings = settings
        self._jobs = jobs
        self._followers = Followers(jobs)
        self._pace = Pace(Concurrency())

    async def submit(self, payload: Mapping[str, Any], frame: Mapping[str, Any]) -> Submitted:
        """Start the job of a run, and begin to wait for its end.

        Raises:
            ConnectionError: the server cannot be reached.
            DeliveryError: it refuses, or another weave's job has the same idempotency key.
        """
        job = new_job(payload, frame, prefix=self._settings.prefix)
        submitted = self._followers.expect(job)
        try:
            async with self._connection.reachable():
                handle = await self._started(job)
        except BaseException:
            self._followers.drop(submitted)
            raise
        self._followers.follow(submitted, handle)
        return submitted

    def heard(self, run_id: str, event_type: str) -> None:
        """Take note of an event of a run."""
        self._followers.heard(run_id, event_type)

    async def cancel(self, submitted: Submitted) -> None:
        """End a job that is queued, and ask one that runs to stop. Does nothing for one that is over.

        Raises:
            ConnectionError: the server cannot be reached.
        """
        submitted.given_up = True
        async with self._connection.reachable(), self._connection.unless_gone():
            await self._jobs.stop(submitted.handle)

    async def watch(self) -> AsyncIterator[tuple[str, JobState]]:
        """Yield run ids with the state of their job as soon as that has ended."""
        while True:
            yield await self._followers.news.get()

    async def close(self) -> None:
        """Wait for no job any more, and close the connection."""
        await self._followers.close()
        self._connection.close()
        await asyncio.sleep(SETTLE_SECONDS)

    async def _started(self, job: NewJob) -> Any:
        deadline = time.monotonic() + _SUCCESSION_SECONDS
        while True:
            try:
                async with self._pace.place():
                    return await self._jobs.start(job)
            except TakenError as taken:
                holders = self._followers.holders_of(job.id)
                if any(each.job.run_id == job.run_id for each in holders):
                    return taken.handle
                await self._make_way(taken, job, deadline, given_up=any(each.given_up for each in holders))

    async def _make_way(self, taken: TakenError, job: NewJob, deadline: float, *, given_up: bool) -> None:
        """Let a job with the same id come to its end."""
        if given_up:
            # It may take until its next heartbeat to stop; what it still sends is refused.
            async with self._connection.unless_gone():
                await taken.handle.terminate(reason="its weave tries again")
        elif time.monotonic() > deadline:
            raise DeliveryError(
                f"Temporal has a job with the id {job.id!r} already: a task with the same idempotency key is in flight "
                "in another weave, or the id_reuse_policy in start_options allows no second one."
            ) from None
        await asyncio.sleep(_SUCCESSION_PAUSE)


async def open_session(settings: Settings, *, where: str) -> Session:
    """Connect, see what the server can do, and warn where no worker is seen.

    Args:
        settings: the configuration.
        where: how messages begin.

    Raises:
        ConfigurationError: an option is wrong, or there is no such namespace.
        ConnectionError: the server cannot be reached; names its address, without credentials.
    """
    connection = await connect(settings, where=where)
    try:
        return await _session_on(connection, settings)
    except BaseException:
        connection.close()
        raise


async def _session_on(connection: Connection, settings: Settings) -> Session:
    standalone = await connection.has_standalone_activities() and settings.workflow is None
    if standalone:
        jobs: Jobs = ActivityJobs(connection.client, settings)
    elif settings.workflow in (None, SHIPPED):
        jobs = ShippedWorkflowJobs(connection.client, settings)
    else:
        jobs = WorkflowJobs(connection.client, settings)
    if not await connection.has_pollers(settings.task_queue, workflows=not standalone):
        _warn_of_absent_workers(connection, settings.task_queue)
    return Session(connection, settings, jobs)


def _warn_of_absent_workers(connection: Connection, task_queue: str) -> None:
    namespace = connection.client.namespace
    logger.warning(
        "No worker polls the task queue %r in namespace %r of Temporal at %s: tasks wait until one does. Start one "
        "with: python -m wove_temporal.worker --address %s --namespace %s --task-queue %s",
        task_queue,
        namespace,
        connection.address,
        connection.address,
        namespace,
        task_queue,
    )
