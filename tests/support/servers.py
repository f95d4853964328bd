"""Servers that tests start for themselves."""

import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from wove.testing.servers import free_port, require_program

HOST = "127.0.0.1"


@contextmanager
def running_redis(directory: Path, *options: str) -> Iterator[int]:
    """Run a Redis server without persistence, and yield its port.

    Args:
        directory: its working directory.
        options: more arguments of its command.
    """
    program = require_program("redis-server", install="apt-get install redis-server")
    port = free_port()
    command = [program, "--port", str(port), "--bind", HOST, "--save", "", "--daemonize", "no", "--dir", str(directory)]
    process = subprocess.Popen([*command, *options], stdout=subprocess.DEVNULL)
    try:
        wait_for_port(port, process, seconds=10.0)
        yield port
    finally:
        process.terminate()
        process.wait()


def wait_for_port(port: int, process: "subprocess.Popen[bytes]", *, seconds: float) -> None:
    """Return when somebody listens on a port, which is up to a process."""
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
