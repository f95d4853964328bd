"""Which of the processes behind a job are alive, as Redis sees their connections."""

from collections.abc import Collection
from typing import Any

from redis.exceptions import RedisError
from rq.command import PUBSUB_CHANNEL_TEMPLATE

_PREFIX = "wove-job-"


def client_name(job_id: str) -> str:
    """Return the name of the connection that a job's own process keeps open while it runs."""
    return f"{_PREFIX}{job_id}"


def listening_workers(connection: Any, names: Collection[str]) -> set[str]:
    """Return those workers that listen for commands, as every RQ worker does from its start to its end.

    A worker's hash in Redis outlives it by minutes; its subscription ends with its process.
    """
    if not names:
        return set()
    channels = {PUBSUB_CHANNEL_TEMPLATE % name: name for name in names}
    counted = dict(connection.pubsub_numsub(*channels))
    return {
        name for channel, name in channels.items() if int(counted.get(channel.encode(), counted.get(channel, 0))) > 0
    }


def running_jobs(connection: Any) -> set[str]:
    """Return the ids of the jobs whose own process is connected, whatever has become of its worker."""
    try:
        clients = connection.client_list()
    except RedisError:
        return set()  # Not allowed here; the jobs' heartbeats tell.
    names = (str(client.get("name", "")) for client in clients)
    return {name.removeprefix(_PREFIX) for name in names if name.startswith(_PREFIX)}
