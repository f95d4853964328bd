"""Makes the adapter's own connection to Redis, and the bytes that are in it."""

import json
from collections.abc import Callable
from typing import Any

from arq.connections import ArqRedis, RedisSettings, create_pool
from redis.asyncio import ConnectionPool
from redis.asyncio.sentinel import SentinelConnectionPool

from wove.errors import ConfigurationError
from wove_arq.settings import DEFAULT_QUEUE_NAME, Settings

_CONNECT_SECONDS = 3.0


def to_json(job: dict[str, Any]) -> bytes:
    """Encode a job of ARQ as JSON: a ``job_serializer``."""
    return json.dumps(job, separators=(",", ":")).encode()


def to_redis_settings(given: Any) -> RedisSettings:
    """Return ARQ's settings.

    Args:
        given: them, their fields as a dict, or a URL.

    Raises:
        ConfigurationError: a field or a part of the URL is wrong.
    """
    if isinstance(given, RedisSettings):
        return given
    try:
        return RedisSettings(**given) if isinstance(given, dict) else RedisSettings.from_dsn(given)
    except (TypeError, ValueError, RuntimeError) as error:
        example = "'redis://localhost:6379/0' or {'host': 'localhost', 'port': 6379}"
        # The text of a URL may hold a password.
        what = str(error) if isinstance(error, TypeError) else f"a part of the URL is wrong ({type(error).__name__})"
        raise ConfigurationError(f"redis_settings: {what}. Give for example {example}.") from None


def address(redis: Any) -> str:
    """Return where Redis is, without user name and password.

    Args:
        redis: a client, or ``RedisSettings``.
    """
    if isinstance(redis, RedisSettings):
        fields: dict[str, Any] = {"path": redis.unix_socket_path, "host": redis.host, "port": redis.port}
    else:
        fields = redis.connection_pool.connection_kwargs
    if fields.get("path"):
        return str(fields["path"])
    if isinstance(fields.get("host"), list):
        return ", ".join(f"{host}:{port}" for host, port in fields["host"])
    return f"{fields.get('host', 'localhost')}:{fields.get('port', 6379)}"


async def connect(settings: Settings) -> ArqRedis:
    """Return a client that belongs to the running loop. The project's own pool belongs to another one.

    Raises:
        ConfigurationError: the settings do not suffice to make one.
        RedisError, OSError: Redis cannot be reached.
    """
    if settings.pool is None:
        given = to_redis_settings(settings.redis_settings)
        redis = await create_pool(given, retry=given.conn_retries, job_serializer=_serializer(settings, None))
    else:
        redis = _like(settings.pool)
        redis.job_serializer = _serializer(settings, settings.pool.job_serializer)
        redis.expires_extra_ms = settings.pool.expires_extra_ms
    default = DEFAULT_QUEUE_NAME if settings.pool is None else settings.pool.default_queue_name
    redis.default_queue_name = settings.queue_name or default
    return redis


def _serializer(settings: Settings, default: Any) -> Callable[[dict[str, Any]], bytes] | None:
    return to_json if settings.serializer == "json" else settings.serializer or default


def _like(given: ArqRedis) -> ArqRedis:
    pool = given.connection_pool
    if isinstance(pool, SentinelConnectionPool):
        raise ConfigurationError(
            "pool: the connections of a pool behind Sentinel cannot be made again. "
            "Give the RedisSettings that it was made with as 'redis_settings'."
        )
    arguments = {**pool.connection_kwargs}
    arguments["socket_connect_timeout"] = arguments.get("socket_connect_timeout") or _CONNECT_SECONDS
    return ArqRedis(ConnectionPool(connection_class=pool.connection_class, **arguments))


def address_in(settings: Settings) -> str:
    """Return where the Redis of a configuration is, without user name and password."""
    return address(settings.pool if settings.pool is not None else to_redis_settings(settings.redis_settings))
