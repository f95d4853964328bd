"""Real brokers with private ports and directories, and Celery workers, as the kit's `Deployment`."""

import asyncio
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import kombu
import redis

from wove.testing import Deployment, WorkerProcess
from wove.testing.servers import require_program

HOST = "127.0.0.1"
# Debian's own wrapper around it runs for root and the user rabbitmq only.
_RABBITMQ = Path("/usr/lib/rabbitmq/bin")


class Broker:
    """A broker that runs for the tests alone.

    Attributes:
        port: where it listens.
        url: for Celery, with ``{port}`` in place of the port.
    """

    url: str

    def __init__(self, port: int) -> None:
        self.port = port

    def celery_url(self, port: int | None = None) -> str:
        """Return the URL for Celery, through another port if one is given."""
        return self.url.format(port=port or self.port)

    def contents(self) -> set[str]:
        """Return a name for everything that is in it."""
        raise NotImplementedError

    def empty(self) -> None:
        """Remove everything from it."""
        raise NotImplementedError


class RedisBroker(Broker):
    """redis-server without persistence."""

    url = "redis://127.0.0.1:{port}/0"

    def contents(self) -> set[str]:
        """Return the keys of all databases, with the members of each."""
        found: set[str] = set()
        for database in range(3):
            with redis.Redis(HOST, self.port, db=database, decode_responses=True) as client:
                for key in client.scan_iter():
                    found |= {f"{database}/{key}", *(f"{database}/{key}: {each}" for each in _members(client, key))}
        return found

    def empty(self) -> None:
        """Flush all databases."""
        with redis.Redis(HOST, self.port) as client:
            client.flushall()


def _members(client: Any, key: str) -> list[str]:
    match client.type(key):
        case "list":
            return [f"message {number}" for number in range(client.llen(key))]
        case "hash":
            return list(client.hkeys(key))
        case "set":
            return list(client.smembers(key))
        case "zset":
            return list(client.zrange(key, 0, -1))
    return []


class RabbitBroker(Broker):
    """rabbitmq-server as a node of its own, with an Erlang port mapper of its own. It takes some seconds to start.

    Args:
        directory: for its data.
    """

    url = "amqp://guest:guest@127.0.0.1:{port}//"

    def __init__(self, directory: Path) -> None:
        super().__init__(free_port(HOST))
        self._mapper = str(free_port(HOST))
        (directory / "rabbitmq.conf").write_text("")
        self._environment = {
            **os.environ,
            "HOME": str(directory),
            "RABBITMQ_NODENAME": f"wove{self.port}@localhost",
            "RABBITMQ_NODE_IP_ADDRESS": HOST,
            "RABBITMQ_NODE_PORT": str(self.port),
            "RABBITMQ_DIST_PORT": str(free_port(HOST)),
            "RABBITMQ_MNESIA_BASE": str(directory / "data"),
            "RABBITMQ_LOG_BASE": str(directory / "log"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(directory / "plugins"),
            "RABBITMQ_CONFIG_FILE": str(directory / "rabbitmq"),
            "RABBITMQ_CONF_ENV_FILE": os.devnull,
            "ERL_EPMD_PORT": self._mapper,
            "ERL_EPMD_ADDRESS": HOST,
        }
        with (directory / "output").open("wb") as output:
            self._process = subprocess.Popen(
                [str(_RABBITMQ / "rabbitmq-server")],
                env=self._environment,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )

    def wait(self) -> None:
        """Return when it takes connections."""
        _wait_for_port(self.port, self._process, seconds=90.0)

    def close(self) -> None:
        """End the node and the port mapper that it started."""
        self._process.terminate()
        self._process.wait()
        mapper = require_program("epmd", install="apt-get install rabbitmq-server")
        subprocess.run([mapper, "-port", self._mapper, "-kill"], capture_output=True, check=False)

    def contents(self) -> set[str]:
        """Return the queues, and the messages in each but those of the event channel."""
        command = [str(_RABBITMQ / "rabbitmqctl"), "list_queues", "--quiet", "--no-table-headers", "name", "messages"]
        printed = subprocess.run(command, env=self._environment, capture_output=True, text=True, check=True).stdout
        found: set[str] = set()
        for line in printed.splitlines():
            name, _, messages = line.rpartition("\t")
            found.add(name)
            if not name.startswith("celeryev"):
                found |= {f"{name}: message {number}" for number in range(int(messages))}
        return found

    def empty(self) -> None:
        """Delete all queues."""
        with kombu.Connection(self.celery_url()) as connection:
            for name in self.contents():
                connection.default_channel.queue_delete(name)


def has_rabbit() -> bool:
    """Tell whether RabbitMQ is installed, as Debian does it."""
    return (_RABBITMQ / "rabbitmq-server").exists()


@contextmanager
def redis_broker(directory: Path) -> Iterator[RedisBroker]:
    """Run a Redis server."""
    program = require_program("redis-server", install="apt-get install redis-server")
    port = free_port(HOST)
    command = [program, "--port", str(port), "--bind", HOST, "--save", "", "--dir", str(directory)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        _wait_for_port(port, process, seconds=10.0)
        yield RedisBroker(port)
    finally:
        process.terminate()
        process.wait()


def free_port(host: str) -> int:
    """Return a port that nobody listens on."""
    with socket.create_server((host, 0)) as listening:
        port: int = listening.getsockname()[1]
        return port


def _wait_for_port(port: int, process: "subprocess.Popen[bytes]", *, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise RuntimeError(f"{process.args!r} ended with exit code {process.returncode}.")
        try:
            socket.create_connection((HOST, port), timeout=1.0).close()
        except OSError:
            time.sleep(0.05)
        else:
            return
    raise RuntimeError(f"{process.args!r} was not ready within {seconds:g} s.")


class Relay:
    """A port that leads to another one, and can be shut: a broker that goes away for those who come through here."""

    def __init__(self, target: int) -> None:
        self._target = target
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="relay", daemon=True)
        self._thread.start()
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.Task[Any] | None] = set()
        self.port = free_port(HOST)
        self.open()

    def open(self) -> None:
        """Take connections."""
        if self._server is None:
            self._server = self._call(asyncio.start_server(self._serve, HOST, self.port))

    def shut(self) -> None:
        """Refuse connections and break those that there are."""
        self._call(self._shut())

    def close(self) -> None:
        """Shut for good."""
        self.shut()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _call(self, coroutine: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(10.0)

    async def _shut(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None
        connections = [connection for connection in self._connections if connection is not None]
        for connection in connections:
            connection.cancel()
        await asyncio.gather(*connections, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = asyncio.current_task()
        self._connections.add(connection)
        try:
            there, back = await asyncio.open_connection(HOST, self._target)
            try:
                await asyncio.gather(_pump(reader, back), _pump(there, writer))
            finally:
                back.transport.abort()
        except (OSError, asyncio.CancelledError):
            pass  # One side is gone, or the relay is shut.
        finally:
            writer.transport.abort()
            self._connections.discard(connection)


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
    raise ConnectionResetError


class CeleryDeployment(Deployment):
    """A worker of Celery's own command at a broker that weaves reach through a relay.

    Args:
        broker: the broker.
        directory: for the worker's spool.
        pool: Celery's name of the worker pool.
        arguments: more options of ``celery worker``.
        command: the worker's command up to those options; by default one without any app.
    """

    def __init__(
        self,
        broker: Broker,
        directory: Path,
        *,
        pool: str = "prefork",
        arguments: Sequence[str] = (),
        command: Callable[[str], Sequence[str]] | None = None,
        env: dict[str, str] | None = None,
    ) -> None:
        self.broker = broker
        self.relay = Relay(broker.port)
        start = (command or plain_command)(broker.celery_url())
        options = ["-P", pool, "-c", "2", "--loglevel", "INFO", *arguments]
        self.worker = WorkerProcess(
            [*start, *options],
            ready=self._is_ready,
            env={"WOVE_SPOOL_DIR": str(directory / "spool"), "PYTHONUNBUFFERED": "1", **(env or {})},
            seconds=60.0,
        )
        self._started = 0

    def environment(self) -> dict[str, Any]:
        """Return the environment; broker_url leads through the relay."""
        config = {"broker_url": self.broker.celery_url(self.relay.port), "dead_job_grace": 2.0}
        return {"executor": "celery", "executor_config": config}

    def ensure_worker(self) -> None:
        """Start a worker unless one is ready."""
        self.worker.ensure()
        self._started = self._times_ready()

    def stop_workers(self) -> None:
        """Kill the worker."""
        self.worker.kill()

    def kill_worker(self) -> None:
        """Kill the worker and its children."""
        self.worker.kill()

    def terminate_worker(self) -> None:
        """Begin a warm shutdown."""
        self.worker.terminate()

    def kill_process(self, pid: int) -> None:
        """Kill a process of the worker; where that is the worker itself, return when it is gone."""
        super().kill_process(pid)
        while self.worker.running and pid == self.worker.pid:
            time.sleep(0.01)

    def take_backend_down(self) -> None:
        """Shut the relay."""
        self.relay.shut()

    def bring_backend_up(self) -> None:
        """Open the relay."""
        self.relay.open()

    def leftovers(self) -> Collection[str]:
        """Return everything in the broker."""
        return self.broker.contents()

    def close(self) -> None:
        """End everything."""
        self.worker.close()
        self.relay.close()

    def _is_ready(self) -> bool:
        return self._times_ready() > self._started

    def _times_ready(self) -> int:
        return self.worker.output().count(" ready.\n")


def plain_command(url: str) -> Sequence[str]:
    """Return the command of a worker without any app."""
    return [sys.executable, "-m", "celery", "-b", url, "worker", "-I", "wove_celery.worker", "--without-mingle"]


def own_command(url: str) -> Sequence[str]:
    """Return the command of Wove's own line."""
    return [sys.executable, "-m", "wove_celery.worker", "-b", url]


def app_command(directory: Path, url: str, *lines: str) -> Sequence[str]:
    """Return the command of a project that has an app of its own, with a result backend on Redis.

    Args:
        directory: where the project's module is written to.
        url: the broker.
        lines: configure `app` further.
    """
    backend = url if url.startswith("redis") else None
    source = ["from celery import Celery", f"app = Celery('shop', broker={url!r}, backend={backend!r})", *lines]
    (directory / "shop.py").write_text("\n".join([*source, ""]))
    start = [sys.executable, "-m", "celery", "--workdir", str(directory), "-A", "shop", "worker"]
    return [*start, "-I", "wove_celery.worker", "--without-mingle"]


class Stand:
    """Keeps one deployment at a time: the tests of one class share it, and the next class gets another.

    Args:
        directory: for workers' spools.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._key: object = None
        self._deployment: CeleryDeployment | None = None

    def deployment(self, broker: Broker, **settings: Any) -> CeleryDeployment:
        """Return the deployment with these arguments of `CeleryDeployment`, its broker empty if it is a new one."""
        key = (broker, repr(sorted(settings.items())))
        if self._deployment is None or key != self._key:
            self.clear()
            broker.empty()
            self._deployment = CeleryDeployment(broker, self._directory, **settings)
            self._key = key
        return self._deployment

    def clear(self) -> None:
        """End the deployment."""
        if self._deployment is not None:
            self._deployment.close()
            self._deployment = None
