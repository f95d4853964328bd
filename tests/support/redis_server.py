"""What tests ask a Redis server about. For tests of adapters that bring a Redis client with them."""

from typing import Any

from redis import Redis

from tests.support.servers import HOST


class RedisServer:
    """A server that runs for the tests alone.

    Attributes:
        port: where it listens.
    """

    def __init__(self, port: int) -> None:
        self.port = port

    def url(self, port: int | None = None) -> str:
        """Return the URL, through another port if one is given."""
        return f"redis://{HOST}:{port or self.port}/0"

    def client(self, database: int = 0) -> Any:
        """Return a client, to be closed by the caller."""
        return Redis(HOST, self.port, db=database, decode_responses=True)

    def clear(self) -> None:
        """Remove everything: what a worker held that was killed as its test ended would be executed again by others."""
        with self.client() as client:
            client.flushall()

    def contents(self) -> set[str]:
        """Return names of everything that is there on behalf of jobs."""
        with self.client() as client:
            return {name for key in client.scan_iter() for name in self.names(client, key)}

    def names(self, client: Any, key: str) -> set[str]:
        """Return names of what is there under a key on behalf of jobs: here the key and each of its members."""
        return {key, *(f"{key}: {member}" for member in members(client, key))}


def members(client: Any, key: str) -> list[str]:
    """Return what a list, a set, a sorted set or a hash has."""
    match client.type(key):
        case "list":
            return list(client.lrange(key, 0, -1))
        case "hash":
            return list(client.hkeys(key))
        case "set":
            return list(client.smembers(key))
        case "zset":
            return list(client.zrange(key, 0, -1))
    return []
