"""A worker as a project has it, with workflows of its own, and with Wove's plugin."""

import asyncio
import sys
from datetime import timedelta
from typing import Any

from temporalio import activity, workflow
from temporalio.client import Client
from temporalio.common import RetryPolicy
from temporalio.worker import Worker

from wove.integrations.worker import arun
from wove_temporal import WovePlugin

TASK_QUEUE = "project"


@activity.defn
async def run_wove_task(payload: dict[str, Any]) -> None:
    await arun(payload)


@workflow.defn(sandboxed=False)
class ReportWorkflow:
    @workflow.run
    async def run(self, payload: dict[str, Any]) -> str:
        await workflow.execute_activity(
            run_wove_task,
            payload,
            start_to_close_timeout=timedelta(minutes=5),
            retry_policy=RetryPolicy(maximum_attempts=1),
        )
        return "reported"


@workflow.defn(sandboxed=False)
class ForgetfulWorkflow:
    """Ends without having executed anything."""

    @workflow.run
    async def run(self, payload: dict[str, Any]) -> None: ...


async def main() -> None:
    client = await Client.connect(sys.argv[1])
    worker = Worker(
        client,
        task_queue=TASK_QUEUE,
        activities=[run_wove_task],
        workflows=[ReportWorkflow, ForgetfulWorkflow],
        plugins=[WovePlugin()],
        max_heartbeat_throttle_interval=timedelta(seconds=1),
    )
    print(f"A worker polls the task queue {TASK_QUEUE!r}", flush=True)
    await worker.run()


if __name__ == "__main__":
    asyncio.run(main())
