"""Real brokers with private ports and directories, and Celery workers, as the kit's `Deployment`."""

import os
import subprocess
import sys
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any

import kombu

from tests.support.deployments import AnnouncedWorker, RelayedDeployment
from tests.support.redis_server import RedisServer, members
from tests.support.servers import HOST, wait_for_port
from wove.testing.servers import free_port, require_program

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
            with RedisServer(self.port).client(database) as client:
                for key in client.scan_iter():
                    found |= {f"{database}/{key}", *(f"{database}/{key}: {each}" for each in _names(client, key))}
        return found

    def empty(self) -> None:
        """Flush all databases."""
        RedisServer(self.port).clear()


def _names(client: Any, key: str) -> list[str]:
    if client.type(key) == "list":
        return [f"message {number}" for number in range(client.llen(key))]
    return members(client, key)


class RabbitBroker(Broker):
    """rabbitmq-server as a node of its own, with an Erlang port mapper of its own. It takes some seconds to start.

    Args:
        directory: for its data.
    """

    url = "amqp://guest:guest@127.0.0.1:{port}//"

    def __init__(self, directory: Path) -> None:
        super().__init__(free_port())
        self._mapper = str(free_port())
        (directory / "rabbitmq.conf").write_text("")
        self._environment = {
            **os.environ,
            "HOME": str(directory),
            "RABBITMQ_NODENAME": f"wove{self.port}@localhost",
            "RABBITMQ_NODE_IP_ADDRESS": HOST,
            "RABBITMQ_NODE_PORT": str(self.port),
            "RABBITMQ_DIST_PORT": str(free_port()),
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
        wait_for_port(self.port, self._process, seconds=90.0)

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


class CeleryDeployment(RelayedDeployment):
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
        start = (command or plain_command)(broker.celery_url())
        self.worker = AnnouncedWorker(
            [*start, "-P", pool, "-c", "2", "--loglevel", "INFO", *arguments],
            announcement=" ready.\n",
            env={"WOVE_SPOOL_DIR": str(directory / "spool"), **(env or {})},
        )
        super().__init__(broker.port, self.worker)

    def environment(self) -> dict[str, Any]:
        """Return the environment; broker_url leads through the relay."""
        config = {"broker_url": self.broker.celery_url(self.relay.port), "dead_job_grace": 2.0}
        return {"executor": "celery", "executor_config": config}

    def leftovers(self) -> Collection[str]:
        """Return everything in the broker."""
        return self.broker.contents()


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
