"""What a process that was forked ahead of its job does with its worker's connections to Redis."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from redis import ConnectionPool, Redis
from rq import Worker
from rq.command import PUBSUB_CHANNEL_TEMPLATE
from rq_backend import RedisServer, children
from spare_bed import HERE, QUEUE, Bed, Beds, has_ended

from tests.support.jobs import eventually
from tests.support.servers import running_redis
from wove_rq.spare import is_possible

Addresses = dict[str, str]


class Absent:
    """A worker that has been killed, of which Redis has heard all there is to hear, and its spare, which has not."""

    def __init__(self, bed: Bed, name: str, spare: int) -> None:
        self.bed = bed
        self.name = name
        self.spare = spare


@pytest.fixture
def absent(beds: Beds, redis_server: RedisServer, tmp_path: Path) -> Iterator[Absent]:
    deaf = tmp_path / "deaf"
    deaf.touch()
    with (
        beds("--worker-class", "spare_workers.Deaf", env={"DEAF": str(deaf)}) as bed,
        redis_server.client() as client,
    ):
        eventually(lambda: "sleeps" in bed.worker.output())
        eventually(lambda: client.info("clients")["blocked_clients"] == 1)
        (spare,) = children(bed.worker.pid)
        (worker,) = Worker.all(queue=bed.queue)
        try:
            os.kill(bed.worker.pid, signal.SIGKILL)
            eventually(lambda: not bed.worker.running)
            deaf.unlink()
            # Redis reads what has arrived on all connections before it answers on one.
            client.ping()
            yield Absent(bed, worker.name, spare)
            assert not has_ended(spare)
        finally:
            os.kill(spare, signal.SIGKILL)


def test_no_job_goes_to_a_worker_that_was_killed_though_its_spare_lives_on(absent: Absent) -> None:
    job = absent.bed.queue.enqueue("spare_jobs.pid")
    absent.bed.worker.ensure()
    assert absent.bed.value(job) != absent.spare


def test_nobody_listens_for_a_worker_that_was_killed_though_its_spare_lives_on(
    absent: Absent, redis_server: RedisServer
) -> None:
    channel = PUBSUB_CHANNEL_TEMPLATE % absent.name
    with redis_server.client() as client:
        assert client.pubsub_numsub(channel) == [(channel, 0)]


@pytest.mark.parametrize("pool", ["plain", "blocking"])
@pytest.mark.parametrize("address", ["port", "path"])
def test_a_child_keeps_none_of_its_parents_connections_to_redis_and_all_others(
    server: Addresses, pool: str, address: str
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as stranger, Redis.from_url(server[address]) as client:
        port = str(stranger.getsockname()[1])
        command = [sys.executable, str(HERE / "inheritance_probe.py"), pool, server[address], port]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as probe:
            assert probe.stdout is not None
            assert probe.stdout.readline() == "ready\n"
            assert probe.wait() == -signal.SIGKILL
            client.ping()
            assert sorted(each["name"] for each in client.client_list()) == ["", "child"]
        # Its input has ended.
        with stranger.accept()[0] as heard:
            assert heard.recv(100) == b"still here"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Addresses]:
    # The path of a socket has at most some 100 characters.
    with TemporaryDirectory() as folder:
        path = f"{folder}/redis"
        with running_redis(tmp_path_factory.mktemp("redis"), "--unixsocket", path) as port:
            yield {"port": f"redis://127.0.0.1:{port}", "path": f"unix://{path}"}


def test_a_pool_that_hides_its_connections_gets_no_spare(redis_server: RedisServer) -> None:
    pool = _Hiding.from_url(redis_server.url())
    with Redis(connection_pool=pool) as connection:
        assert not is_possible(Worker([QUEUE], connection=connection))


def test_a_client_that_keeps_its_connection_over_a_fork_gets_no_spare(redis_server: RedisServer) -> None:
    with Redis.from_url(redis_server.url(), single_connection_client=True) as connection:
        assert not is_possible(Worker([QUEUE], connection=connection))


class _Hiding(ConnectionPool):
    def get_connection(self, *args: Any, **options: Any) -> Any:
        connection = self.make_connection()
        connection.connect()  # type: ignore[no-untyped-call]
        return connection

    def release(self, connection: Any) -> None:
        connection.disconnect()
