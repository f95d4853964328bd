"""A real Redis server with a private port and directory, and Taskiq workers, as the kit's `Deployment`."""

import asyncio
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from redis import Redis

from wove.testing import Deployment, WorkerProcess
from wove.testing.servers import require_program

HOST = "127.0.0.1"
# Taskiq's command, beside the interpreter that runs the tests.
TASKIQ = str(Path(sys.executable).with_name("taskiq"))
_PROCESSES = 2


class RedisServer:
    """redis-server without persistence."""

    def __init__(self, port: int) -> None:
        self.port = port

    def url(self, port: int | None = None) -> str:
        """Return the URL, through another port if one is given."""
        return f"redis://{HOST}:{port or self.port}/0"

    def client(self) -> Any:
        """Return a client, to be closed by the caller."""
        return Redis(HOST, self.port, decode_responses=True)

    def wait_until_deserted(self) -> None:
        """Return when no worker waits for a message."""
        with self.client() as client:
            while client.info("clients")["blocked_clients"]:
                time.sleep(0.01)

    def contents(self) -> set[str]:
        """Return what is there on behalf of jobs. An empty stream is a queue, which the workers made."""
        found: set[str] = set()
        with self.client() as client:
            for key in client.scan_iter():
                found |= set(_members(client, key))
        return found


def _members(client: Any, key: str) -> list[str]:
    match client.type(key):
        case "list":
            return [f"{key}: {each}" for each in client.lrange(key, 0, -1)]
        case "stream":
            pending = [f"{key}: pending" for group in client.xinfo_groups(key) if group["pending"]]
            return [*pending, *(f"{key}: {entry}" for entry, _ in client.xrange(key))]
    return [key]


@contextmanager
def redis_server(directory: Path) -> Iterator[RedisServer]:
    """Run a Redis server."""
    program = require_program("redis-server", install="apt-get install redis-server")
    port = free_port()
    command = [program, "--port", str(port), "--bind", HOST, "--save", "", "--daemonize", "no", "--dir", str(directory)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        _wait_for_port(port, process, seconds=10.0)
        yield RedisServer(port)
    finally:
        process.terminate()
        process.wait()


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.create_server((HOST, 0)) as listening:
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
    """A port that leads to another one, and can be shut: a server that goes away for those who come through here."""

    def __init__(self, target: int) -> None:
        self._target = target
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="relay", daemon=True)
        self._thread.start()
        self._server: asyncio.Server | None = None
        self._pumps: set[asyncio.Task[None]] = set()
        self.port = free_port()
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
        pumps = list(self._pumps)
        for pump in pumps:
            pump.cancel()
        await asyncio.gather(*pumps, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection(HOST, self._target)
        for each in (_pump(reader, back), _pump(there, writer)):
            pump = self._loop.create_task(each)
            self._pumps.add(pump)
            pump.add_done_callback(self._pumps.discard)


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    except OSError:
        pass
    finally:
        writer.transport.abort()


def taskiq_command(broker: str, *options: str) -> Sequence[str]:
    """Return the command of Taskiq's own worker, with Wove's module beside the project's broker."""
    return [TASKIQ, "worker", broker, "wove_taskiq.worker", "--workers", str(_PROCESSES), *options]


def own_command(url: str, *options: str) -> Sequence[str]:
    """Return the command of Wove's own line."""
    return [sys.executable, "-m", "wove_taskiq.worker", "--url", url, "--workers", str(_PROCESSES), *options]


class TaskiqDeployment(Deployment):
    """A worker with two processes at a Redis server that weaves reach through a relay.

    Args:
        server: the server.
        directory: for the worker's spool.
        command: the worker's.
        config: more keys of the ``executor_config``.
    """

    def __init__(
        self, server: RedisServer, directory: Path, *, command: Sequence[str], config: dict[str, Any] | None = None
    ) -> None:
        self.server = server
        self.relay = Relay(server.port)
        self._config = config or {}
        self._before = 0
        self._terminated = False
        self.worker = WorkerProcess(
            command,
            ready=self._is_ready,
            env={
                "WOVE_SPOOL_DIR": str(directory / "spool"),
                "PROJECT_REDIS_URL": server.url(),
                "PYTHONPATH": str(Path(__file__).parent),
                "PYTHONUNBUFFERED": "1",
            },
            seconds=60.0,
        )

    def environment(self) -> dict[str, Any]:
        """Return the environment; the broker's URL leads through the relay."""
        config = {"broker": self.server.url(self.relay.port), "dead_job_grace": 2.0, **self._config}
        return {"executor": "taskiq", "executor_config": config}

    def ensure_worker(self) -> None:
        """Start a worker unless one is ready."""
        if self._terminated:
            # Workers of stream brokers do not end at SIGTERM: https://github.com/taskiq-python/taskiq/issues/646
            self.kill_worker()
        if not self.worker.running:
            self._before = self._times_ready()
        self.worker.ensure()

    def stop_workers(self) -> None:
        """Kill the worker."""
        self.kill_worker()

    def kill_worker(self) -> None:
        """Kill the worker and its processes."""
        self._terminated = False
        self.worker.kill()
        # Redis would give the next message of a list to a process that is just dying.
        self.server.wait_until_deserted()

    def terminate_worker(self) -> None:
        """Begin a warm shutdown."""
        self._terminated = True
        self.worker.terminate()

    def take_backend_down(self) -> None:
        """Shut the relay."""
        self.relay.shut()

    def bring_backend_up(self) -> None:
        """Open the relay."""
        self.relay.open()

    def leftovers(self) -> Collection[str]:
        """Return everything in Redis that is there on behalf of jobs."""
        return self.server.contents()

    def close(self) -> None:
        """End everything."""
        self.worker.close()
        self.relay.close()

    def _is_ready(self) -> bool:
        return self._times_ready() >= self._before + _PROCESSES

    def _times_ready(self) -> int:
        return self.worker.output().count("Listening started.")
