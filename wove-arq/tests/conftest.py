"""One Redis server for the whole session, and workers at it."""

import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from arq.connections import ArqRedis, create_pool

import wove

sys.path.insert(0, str(Path(__file__).parent))

from arq_backend import ARQDeployment, Deploy, RedisServer

from tests.support.servers import running_redis
from wove_arq.connecting import to_redis_settings


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with running_redis(tmp_path_factory.mktemp("redis")) as port:
        yield RedisServer(port)


@pytest.fixture
async def redis(redis_server: RedisServer) -> AsyncIterator[ArqRedis]:
    """A client of a Redis without keys."""
    pool = await create_pool(to_redis_settings(redis_server.url()))
    await pool.flushall()
    yield pool
    await pool.flushall()
    await pool.aclose(close_connection_pool=True)


@pytest.fixture
def deploy(redis_server: RedisServer, tmp_path: Path) -> Iterator[Deploy]:
    """Make deployments, which end with the test, at a Redis without keys."""
    redis_server.clear()
    made: list[ARQDeployment] = []

    def deploy(**settings: Any) -> ARQDeployment:
        made.append(ARQDeployment(redis_server, tmp_path, **settings))
        return made[-1]

    yield deploy
    wove.shutdown()
    for each in made:
        each.close()
