"""Jobs that are standalone activities: one task of a task queue each, without a workflow."""

from typing import Any

from temporalio.client import ActivityFailureError, ActivityHandle, Client
from temporalio.common import ActivityIDConflictPolicy, ActivityIDReusePolicy
from temporalio.exceptions import ActivityAlreadyStartedError

from wove.integrations.base import JobState
from wove_temporal.connection import ANSWER_TIMEOUT
from wove_temporal.jobs import End, NewJob, TakenError, activity_timeouts, end_by, priority, retry_policy
from wove_temporal.settings import SHIPPED, Settings


class ActivityJobs:
    """Starts the activity that Wove's workers have.

    https://docs.temporal.io/develop/python/activities/standalone-activities

    Args:
        client: connected to a server that has standalone activities.
        settings: how they are started.
    """

    def __init__(self, client: Client, settings: Settings) -> None:
        self._client = client
        self._settings = settings
        options = dict(settings.start_options)
        self._reuse = ActivityIDReusePolicy[options.pop("id_reuse_policy", "ALLOW_DUPLICATE")]
        self._options: dict[str, Any] = {
            "rpc_timeout": ANSWER_TIMEOUT,
            "retry_policy": retry_policy(settings.retry_policy),
            "priority": priority(settings.priority),
            **options,
        }

    async def start(self, job: NewJob) -> ActivityHandle[Any]:
        """Start an activity; see `Jobs.start`."""
        reuse, conflict = self._reuse, ActivityIDConflictPolicy.FAIL
        if not job.keyed:
            # Nobody else has this id: what is there is what the same run has started before.
            reuse, conflict = ActivityIDReusePolicy.ALLOW_DUPLICATE_FAILED_ONLY, ActivityIDConflictPolicy.USE_EXISTING
        options = {**activity_timeouts(self._settings, job.seconds), **self._options}
        try:
            return await self._client.start_activity(
                SHIPPED,
                job.payload,
                id=job.id,
                task_queue=self._settings.task_queue,
                id_reuse_policy=reuse,
                id_conflict_policy=conflict,
                **options,
            )
        except ActivityAlreadyStartedError as taken:
            handle = self._client.get_activity_handle(job.id, run_id=taken.run_id)
            if job.keyed:
                raise TakenError(handle) from taken
            return handle

    async def start_again(self, job: NewJob, handle: ActivityHandle[Any]) -> ActivityHandle[Any]:
        """Start an activity once more; see `Jobs.start_again`."""
        return await self.start(job)

    async def stop(self, handle: ActivityHandle[Any]) -> None:
        """Cancel an activity. One that is queued has ended then; one that runs is told by its next heartbeat."""
        await handle.cancel(reason="its weave has given it up")

    async def end(self, handle: ActivityHandle[Any]) -> End:
        """Return how an activity has ended, as soon as it has."""
        try:
            await handle.result()
        except ActivityFailureError as failure:
            return end_by(failure.cause)
        return End(JobState("finished"))
