"""Brokers for the whole session, one of each kind."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from wove.testing.servers import require_program

sys.path.insert(0, str(Path(__file__).parent))

from celery_backend import RabbitBroker, RedisBroker, Stand, has_rabbit

from tests.support.servers import running_redis


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisBroker]:
    with running_redis(tmp_path_factory.mktemp("redis")) as port:
        yield RedisBroker(port)


@pytest.fixture(scope="session", autouse=True)
def rabbitmq_node(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RabbitBroker | None]:
    """A node that starts while other tests run, if any test may need it."""
    wanted = any("stand" in getattr(item, "fixturenames", ()) for item in request.session.items)
    node = RabbitBroker(tmp_path_factory.mktemp("rabbitmq")) if wanted and has_rabbit() else None
    yield node
    if node is not None:
        node.close()


@pytest.fixture(scope="session")
def rabbitmq_server(rabbitmq_node: RabbitBroker | None) -> RabbitBroker:
    if rabbitmq_node is None:
        require_program("rabbitmq-server", install="apt-get install rabbitmq-server")
        pytest.fail("RabbitMQ is not where Debian's package puts it.")
    rabbitmq_node.wait()
    return rabbitmq_node


@pytest.fixture(scope="session")
def stand(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stand]:
    stand = Stand(tmp_path_factory.mktemp("workers"))
    yield stand
    stand.clear()


@pytest.fixture(scope="session")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a project that has a Celery app of its own."""
    return tmp_path_factory.mktemp("project")
