"""Which of the processes behind a job are alive, as Redis sees their connections."""

from collections.abc import Collection
from typing import Any

from redis.exceptions import RedisError
from rq import Worker
from rq.command import PUBSUB_CHANNEL_TEMPLATE
from rq.job import Job

_PREFIX = "wove-job-"
# A field of RQ's job; it stays there as long as the job does, also when that is put into the queue again.
_BEGUN = "wove_begun"


def sign_in(job: Job) -> bool:
    """Note at Redis that this process executes a job, and name its connection, so that the adapter can tell a worker
    that died alone from one whose job died with it.

    Returns:
        Whether the job begins for the first time, and has not been taken back by the adapter.
    """
    try:
        with job.connection.pipeline(transaction=False) as pipeline:
            pipeline.client_setname(f"{_PREFIX}{job.id}")
            pipeline.hsetnx(job.key, _BEGUN, 1)
            # The adapter deletes the job of a run that is given up. What is written after that lacks this field.
            pipeline.hexists(job.key, "created_at")
            # Some hosted Redis servers do not allow to name a connection. The job's own heartbeats tell then.
            _, is_first, is_there = pipeline.execute(raise_on_error=False)
    except RedisError:
        return False
    return (is_first, is_there) == (1, 1)


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
