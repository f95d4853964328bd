"""One Redis server for the whole session."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

import spare_bed
from rq_backend import RedisServer

from tests.support.servers import running_redis


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with running_redis(tmp_path_factory.mktemp("redis")) as port:
        yield RedisServer(port)


@pytest.fixture
def beds(redis_server: RedisServer, tmp_path: Path) -> spare_bed.Beds:
    return spare_bed.beds(redis_server, tmp_path)


@pytest.fixture
def bed(beds: spare_bed.Beds) -> Iterator[spare_bed.Bed]:
    with beds() as bed:
        yield bed
