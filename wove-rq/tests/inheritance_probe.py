"""Forks as a worker does and is killed; its child lives until its standard input ends.

Usage: inheritance_probe.py POOL REDIS_URL STRANGER_PORT
"""

import os
import signal
import socket
import sys
from collections.abc import Callable
from typing import Any

from redis import BlockingConnectionPool, Redis
from rq import Worker

from wove_rq.inheritance import abandon, is_visible

POOLS: dict[str, Callable[[str], Any]] = {
    "plain": Redis.from_url,
    "blocking": lambda url: Redis(connection_pool=BlockingConnectionPool.from_url(url)),
}


def main(pool: str, url: str, port: str) -> None:
    """Have every kind of connection, and fork."""
    stranger = socket.create_connection(("127.0.0.1", int(port)))
    connection = POOLS[pool](url)
    worker = Worker(["any"], connection=connection)
    worker.pubsub = connection.pubsub()
    worker.pubsub.subscribe("commands")
    in_use = connection.pubsub()
    in_use.subscribe("of another thread")
    of_others = Redis.from_url(url)
    of_others.ping()
    connection.ping()
    assert is_visible(worker)
    ready, told = os.pipe()
    if os.fork() == 0:
        abandon(worker)
        connection.client_setname("child")
        os.write(told, b".")
        sys.stdin.read()
        stranger.sendall(b"still here")
        os._exit(0)
    os.read(ready, 1)
    assert in_use.get_message(timeout=5.0), "the parent's connections are as they were"
    print("ready", flush=True)
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    main(*sys.argv[1:])
