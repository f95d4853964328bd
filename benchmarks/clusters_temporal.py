"""Temporal's development server: native standalone activities and Wove's, on one worker with the plugin and a hundred
places. Collected by ``clusters.py``.

Both share one task queue: whether a task takes 20 ms or 50 ms depends on what the queue has been through before, and
that must not tell the two apart.

With ``WOVE_BENCHMARK_TEMPORAL=workflow`` both sides use a workflow with one activity, as on a server without standalone
activities.
"""

import asyncio
import os
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import clusters
from temporalio import activity, workflow
from temporalio.client import Client
from temporalio.service import RPCError
from temporalio.worker import Worker

from wove_temporal import WovePlugin

TEMPORAL = str(Path(sys.executable).with_name("temporal"))
IN_WORKFLOWS = os.environ.get("WOVE_BENCHMARK_TEMPORAL") == "workflow"
LIMIT = timedelta(seconds=30)
QUEUE = "echo"


@activity.defn(name="echo")
async def echo(item: int) -> int:
    return item


@workflow.defn(name="echo", sandboxed=False)
class EchoWorkflow:
    @workflow.run
    async def run(self, item: int) -> int:
        return await workflow.execute_activity(echo, item, start_to_close_timeout=LIMIT)


async def serve(address: str) -> None:
    """Be the worker."""
    client = await Client.connect(address)
    worker = Worker(
        client,
        task_queue=QUEUE,
        activities=[echo],
        workflows=[EchoWorkflow],
        plugins=[WovePlugin()],
        max_concurrent_activities=100,
    )
    await worker.run()


async def connected(address: str) -> Client:
    """Return a client as soon as the server, which listens before, answers."""
    while True:
        try:
            client = await Client.connect(address)
            await client.count_workflows()
            return client
        except (RuntimeError, RPCError):
            await asyncio.sleep(0.1)


async def echoed(client: Client, item: int) -> int:
    name = uuid.uuid4().hex
    if IN_WORKFLOWS:
        return await client.execute_workflow(EchoWorkflow.run, item, id=name, task_queue=QUEUE)
    return await client.execute_activity(echo, item, id=name, task_queue=QUEUE, start_to_close_timeout=LIMIT)


@contextmanager
def process(command: list[str], output: Any) -> Iterator[None]:
    env = {**os.environ, "PYTHONPATH": str(clusters.HERE)}
    started = subprocess.Popen(
        command, cwd=clusters.HERE, env=env, stdin=subprocess.DEVNULL, stdout=output, stderr=output
    )
    try:
        yield
    finally:
        started.terminate()
        started.wait()


@contextmanager
def cluster() -> Iterator[clusters.Cluster]:
    port = clusters.free_port()
    address = f"127.0.0.1:{port}"
    server = [TEMPORAL, "server", "start-dev", "--headless", "--ip", "127.0.0.1", "--port", str(port)]
    serving = f"import asyncio, clusters_temporal; asyncio.run(clusters_temporal.serve({address!r}))"
    worker = [sys.executable, "-c", serving]
    with (
        tempfile.TemporaryFile() as output,
        asyncio.Runner() as runner,
        process([*server, "--log-level", "never"], output),
    ):
        clusters.wait_for_port(port)

        def run(coroutine: Coroutine[Any, Any, Any]) -> Any:
            return runner.run(coroutine)

        client = run(connected(address))

        def round_trip() -> None:
            assert run(echoed(client, 1)) == 1

        async def all_of(jobs: int) -> list[int]:
            return await asyncio.gather(*(echoed(client, number) for number in range(jobs)))

        def many(jobs: int) -> None:
            assert run(all_of(jobs)) == list(range(jobs))

        config = {"target_host": address, "task_queue": QUEUE, **({"workflow": "wove.run"} if IN_WORKFLOWS else {})}
        with process(worker, output):
            round_trip()
            yield clusters.Cluster({"executor": "temporal", "executor_config": config}, round_trip, many)


SUBJECT = clusters.Subject("temporal", clusters.BARS, cluster)
