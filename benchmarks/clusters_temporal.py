"""Temporal's development server: native standalone activities on one worker, Wove's on one ``wove_temporal.worker``,
both with a hundred places. Collected by ``clusters.py``.

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

import wove_temporal  # noqa: F401 - without it there is nothing to measure

TEMPORAL = str(Path(sys.executable).with_name("temporal"))
IN_WORKFLOWS = os.environ.get("WOVE_BENCHMARK_TEMPORAL") == "workflow"
LIMIT = timedelta(seconds=30)


@activity.defn(name="echo")
async def echo(item: int) -> int:
    return item


@workflow.defn(name="echo", sandboxed=False)
class EchoWorkflow:
    @workflow.run
    async def run(self, item: int) -> int:
        return await workflow.execute_activity(echo, item, start_to_close_timeout=LIMIT)


async def serve(address: str) -> None:
    """Be the native worker."""
    client = await Client.connect(address)
    worker = Worker(
        client, task_queue="native", activities=[echo], workflows=[EchoWorkflow], max_concurrent_activities=100
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
        return await client.execute_workflow(EchoWorkflow.run, item, id=name, task_queue="native")
    return await client.execute_activity(echo, item, id=name, task_queue="native", start_to_close_timeout=LIMIT)


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
    native = [
        sys.executable,
        "-c",
        f"import asyncio, clusters_temporal; asyncio.run(clusters_temporal.serve({address!r}))",
    ]
    own = [sys.executable, "-m", "wove_temporal.worker", "--address", address, "--log-level", "warning"]
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

        config = {"target_host": address, **({"workflow": "wove.run"} if IN_WORKFLOWS else {})}
        with process(native, output), process(own, output):
            round_trip()
            yield clusters.Cluster({"executor": "temporal", "executor_config": config}, round_trip, many)


SUBJECT = clusters.Subject("temporal", clusters.BARS, cluster)
