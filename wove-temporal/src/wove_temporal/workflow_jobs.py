"""Jobs that are workflows: the one that is shipped, with one activity, or one of the project."""

from datetime import timedelta
from typing import Any

from temporalio.api.history.v1 import HistoryEvent
from temporalio.client import Client, WorkflowFailureError, WorkflowHandle
from temporalio.common import WorkflowIDConflictPolicy, WorkflowIDReusePolicy
from temporalio.exceptions import WorkflowAlreadyStartedError
from temporalio.service import RPCError, RPCStatusCode

from wove.integrations.base import JobState
from wove_temporal.connection import ANSWER_TIMEOUT
from wove_temporal.jobs import (
    End,
    NewJob,
    TakenError,
    activity_timeouts,
    cancelled,
    end_by,
    failed,
    priority,
    retry_fields,
)
from wove_temporal.settings import SHIPPED, Settings

_REASON = "its weave has given it up"
# That it was started, and that a worker is to begin: a longer history has been in a worker's hands.
_UNTOUCHED = 2


class WorkflowJobs:
    """Starts workflows of a project, which get the payload as their only argument.

    Args:
        client: connected.
        settings: which workflow, and how it is started.
    """

    def __init__(self, client: Client, settings: Settings) -> None:
        self._client = client
        self._settings = settings
        self._workflow = settings.workflow
        options = dict(settings.start_options)
        self._reuse = WorkflowIDReusePolicy[options.pop("id_reuse_policy", "ALLOW_DUPLICATE")]
        self._options: dict[str, Any] = {
            "rpc_timeout": ANSWER_TIMEOUT,
            "priority": priority(settings.priority),
            **options,
        }

    async def start(self, job: NewJob) -> WorkflowHandle[Any, Any]:
        """Start a workflow; see `Jobs.start`."""
        reuse, conflict = self._reuse, WorkflowIDConflictPolicy.FAIL
        if not job.keyed:
            # Nobody else has this id: what is there is what the same run has started before.
            reuse, conflict = WorkflowIDReusePolicy.ALLOW_DUPLICATE_FAILED_ONLY, WorkflowIDConflictPolicy.USE_EXISTING
        options = dict(self._options)
        if job.seconds is not None:
            options.setdefault("execution_timeout", timedelta(seconds=job.seconds))
        try:
            handle: WorkflowHandle[Any, Any] = await self._client.start_workflow(
                self._workflow,
                args=self._arguments(job),
                id=job.id,
                task_queue=self._settings.task_queue,
                id_reuse_policy=reuse,
                id_conflict_policy=conflict,
                **options,
            )
        except WorkflowAlreadyStartedError as taken:
            existing = self._client.get_workflow_handle(job.id, run_id=taken.run_id)
            if job.keyed:
                raise TakenError(existing) from taken
            return existing
        # The handle of a start has no run id of its own, and would mean whichever run has the id later.
        return self._client.get_workflow_handle(job.id, run_id=handle.result_run_id)

    async def start_again(self, job: NewJob, handle: WorkflowHandle[Any, Any]) -> WorkflowHandle[Any, Any]:
        """Start a workflow once more; see `Jobs.start_again`."""
        try:
            # It is still open, because a worker would have to end it.
            await handle.terminate(reason="its activity has not been heard of")
        except RPCError as error:
            if error.status is not RPCStatusCode.NOT_FOUND:
                raise
        return await self.start(job)

    async def stop(self, handle: WorkflowHandle[Any, Any]) -> None:
        """Cancel a workflow. One that no worker has seen would stay in the queue then, and is terminated."""
        description = await handle.describe()
        if description.history_length <= _UNTOUCHED:
            await handle.terminate(reason=_REASON)
        else:
            await handle.cancel()

    async def end(self, handle: WorkflowHandle[Any, Any]) -> End:
        """Return how a workflow has ended, as soon as it has."""
        try:
            await handle.result()
        except WorkflowFailureError as failure:
            return end_by(failure.cause)
        return End(JobState("finished"))

    def _arguments(self, job: NewJob) -> list[Any]:
        return [job.payload]


class ShippedWorkflowJobs(WorkflowJobs):
    """Starts `wove_temporal.tasks.WoveWorkflow`, whose only step is the activity that Wove's workers have."""

    def __init__(self, client: Client, settings: Settings) -> None:
        super().__init__(client, settings)
        self._workflow = SHIPPED
        if "summary" in self._options:
            self._options["static_summary"] = self._options.pop("summary")

    async def stop(self, handle: WorkflowHandle[Any, Any]) -> None:
        """Terminate a workflow, in which nothing can be cleaned up; its activity is told by its next heartbeat."""
        await handle.terminate(reason=_REASON)

    async def end(self, handle: WorkflowHandle[Any, Any]) -> End:
        """Return how the activity has ended, or else the workflow, as soon as the server knows.

        The workflow itself needs a worker to end, and there may be none left.
        """
        events = handle.fetch_history_events(wait_new_event=True, skip_archival=True)
        async for event in events:
            end = await self._end_in(event)
            if end is not None:
                return end
        return End(JobState("finished"))

    async def _end_in(self, event: HistoryEvent) -> End | None:
        match event.WhichOneof("attributes"):
            case "activity_task_completed_event_attributes":
                return End(JobState("finished"))
            case "activity_task_failed_event_attributes":
                return await self._failed(event.activity_task_failed_event_attributes)
            case "activity_task_timed_out_event_attributes":
                return await self._failed(event.activity_task_timed_out_event_attributes)
            case "workflow_execution_failed_event_attributes":
                return await self._failed(event.workflow_execution_failed_event_attributes)
            case "workflow_execution_terminated_event_attributes":
                reason = event.workflow_execution_terminated_event_attributes.reason
                return cancelled(f"it was terminated: {reason}")
            case "activity_task_canceled_event_attributes" | "workflow_execution_canceled_event_attributes":
                return cancelled("it was cancelled")
            case "workflow_execution_timed_out_event_attributes":
                return failed("timed out: the workflow was not done within its execution_timeout")
        return None

    async def _failed(self, attributes: Any) -> End:
        return end_by(await self._client.data_converter.decode_failure(attributes.failure))

    def _arguments(self, job: NewJob) -> list[Any]:
        timeouts = activity_timeouts(self._settings, job.seconds)
        options: dict[str, Any] = {name: timeout.total_seconds() for name, timeout in timeouts.items()}
        options["retry_policy"] = retry_fields(self._settings.retry_policy)
        return [job.payload, options]
