"""The connections to Redis that a forked process has from its parent, and must not keep open.

Redis notices that a worker is gone when the last descriptor of its connection is closed. As long as another process has
one, Redis gives the next job to a worker that was waiting for it when it was killed, and nobody ever reads it.
"""

import os
import socket
import stat
from collections.abc import Iterator
from typing import Any

from redis import ConnectionPool
from rq import Worker

# Each process sees its own descriptors here: Linux, macOS and the BSDs.
_DESCRIPTORS = "/dev/fd"
# Where redis-py's pools keep their connections; the last one is that of BlockingConnectionPool.
_PLACES = ("_available_connections", "_in_use_connections", "_connections")


def is_visible(worker: Worker) -> bool:
    """Tell whether `abandon` finds everything, with this client on this system, and the client can do without it. To be
    asked in the parent, when the worker has been connected.
    """
    if getattr(worker.connection, "connection", None) is not None:
        return False  # A client of a single connection goes on with it after a fork.
    worker.connection.ping()
    pooled = _pooled(worker.connection.connection_pool)
    return any(_peer(_socket(each)) for each in pooled) and os.path.isdir(_DESCRIPTORS)


def abandon(worker: Worker) -> None:
    """Let go of every connection to the worker's Redis server. To be called in the child, before it uses the pool.

    The parent's connections stay as they are. Here, their descriptors lead to the null device from now on: to whom they
    belong is not known, so that their numbers must not become those of something else.

    Raises:
        OSError: the descriptors of this process cannot be listed.
    """
    connections = [*_pooled(worker.connection.connection_pool), getattr(worker.pubsub, "connection", None)]
    # Whatever else talks to the same server is included: what redis-py has lost sight of, and what another pool has.
    peers = {_peer(_socket(each)) for each in connections} - {None}
    nowhere = os.open(os.devnull, os.O_RDWR)
    try:
        for descriptor in _sockets():
            if _peer_of_descriptor(descriptor) in peers:
                os.dup2(nowhere, descriptor, inheritable=False)
    finally:
        os.close(nowhere)


def _pooled(pool: ConnectionPool) -> list[Any]:
    return [each for place in _PLACES for each in list(getattr(pool, place, ()))]


def _socket(connection: Any) -> socket.socket | None:
    found: socket.socket | None = getattr(connection, "_sock", None)
    return found


def _peer(connected: socket.socket | None) -> object:
    """Return where a socket is connected to, or None."""
    try:
        return connected.getpeername() or None if connected is not None else None
    except OSError:
        return None


def _sockets() -> Iterator[int]:
    for name in os.listdir(_DESCRIPTORS):
        try:
            if stat.S_ISSOCK(os.fstat(int(name)).st_mode):
                yield int(name)
        except OSError:
            pass  # It was the one with which the folder has been read.


def _peer_of_descriptor(descriptor: int) -> object:
    # A socket object applies it to what it is made of, and the parent's descriptor would change with it.
    seconds = socket.getdefaulttimeout()
    socket.setdefaulttimeout(None)
    try:
        looked_at = socket.socket(fileno=descriptor)
    except OSError:
        return None
    finally:
        socket.setdefaulttimeout(seconds)
    try:
        return _peer(looked_at)
    finally:
        looked_at.detach()
