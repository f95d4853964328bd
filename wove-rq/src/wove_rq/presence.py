"""Which of the processes behind a job are alive, as Redis sees their connections."""

from collections.abc import Collection
from typing import Any

from redis.exceptions import RedisError
from rq import Worker
from rq.command import PUBSUB_CHANNEL_TEMPLATE

_PREFIX = "wove-job-"


def client_name(job_id: str) -> str:
    """Return the name of the connection that a job's own process keeps open while it runs."""
    return f"{_PREFIX}{job_id}"


def busy_workers(connection: Any, names: Collection[str]) -> set[str]:
    """Return those workers that are alive and execute a job.

    A worker's hash in Redis outlives it by minutes; its subscription to commands ends with its process.
    """
    listed = list(names)
    if not listed:
        return set()
    with connection.pipeline(transaction=False) as pipeline:
        pipeline.pubsub_numsub(*(PUBSUB_CHANNEL_TEMPLATE % name for name in listed))
        for name in listed:
            pipeline.hget(f"{Worker.redis_worker_namespace_prefix}{name}", "state")
        counted, *states = pipeline.execute()
    # In the order of the question: https://redis.io/docs/latest/commands/pubsub-numsub/
    listening = [int(count) > 0 for _, count in counted]
    return {
        name
        for name, listens, state in zip(listed, listening, states, strict=True)
        if listens and state in (b"busy", "busy")
    }


def running_jobs(connection: Any) -> set[str]:
    """Return the ids of the jobs whose own process is connected, whatever has become of its worker."""
    try:
        clients = connection.client_list()
    except RedisError:
        return set()  # Not allowed here; the jobs' heartbeats tell.
    names = (str(client.get("name", "")) for client in clients)
    return {name.removeprefix(_PREFIX) for name in names if name.startswith(_PREFIX)}
