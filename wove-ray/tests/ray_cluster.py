"""Ray clusters of this machine: a head that executes nothing, and a node with two processors that may be killed."""

import os
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import Self

from tests.support.deployments import AnnouncedWorker
from tests.support.servers import HOST
from wove.testing.servers import free_port

# No reports to Ray's makers, no token in the home directory, no advice.
QUIET = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_AUTH_MODE": "disabled", "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0"}
# Otherwise the head's Ray Client server loses some of the processes that it forks:
# https://github.com/ray-project/ray/issues/63202
_FORK_AND_EXEC = {"GRPC_ENABLE_FORK_SUPPORT": "0"}
# A node consists of several programs in Python. Where other things are going on they do not always start within the 30
# seconds that Ray gives them.
_START_SECONDS = 180.0
_ATTEMPTS = 5

# Ray's command, beside the interpreter that runs the tests.
_RAY = str(Path(sys.executable).with_name("ray"))
_STARTED = "Ray runtime started."
# Processors of a node.
CPUS = 2
# The smallest store that Ray takes is 75 MB; a scenario has 20 MB in it a few times.
_STORE = "--object-store-memory=200000000"


class RayProcesses(AnnouncedWorker):
    """``ray start --block`` with everything that it starts, in a session of its own."""

    def __init__(self, *options: str, directory: Path) -> None:
        command = [_RAY, "start", "--block", "--disable-usage-stats", "--include-log-monitor=false", _STORE, *options]
        # Workers find the tasks of the tests beside this file.
        own = {"WOVE_SPOOL_DIR": str(directory / "spool"), "PYTHONPATH": str(Path(__file__).parent)}
        super().__init__(command, announcement=_STARTED, env=QUIET | _FORK_AND_EXEC | own)
        self._seconds = _START_SECONDS

    def ensure(self) -> None:
        """Return when it is up."""
        for attempt in range(1, _ATTEMPTS + 1):
            if not self.running:
                self._kill_session()
            try:
                super().ensure()
                return
            except RuntimeError:
                if attempt == _ATTEMPTS:
                    raise

    def kill(self) -> None:
        """Kill all of it: Ray gives each process that executes tasks a group of its own."""
        if self.running:
            os.kill(self.pid, signal.SIGSTOP)  # It would end the others gently.
        self._kill_session()
        super().kill()

    def _kill_session(self) -> None:
        if self._process is None:
            return
        while pids := session_of(self._process.pid) - {self._process.pid}:
            for pid in pids:
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    pass
            time.sleep(0.01)


class RayCluster:
    """A cluster. Its nodes are started when they are asked for.

    Attributes:
        directory: of the cluster alone; short, because sockets are in it.
        port: the head's.
        client_port: that of the Ray Client server.
        node: executes tasks.
    """

    def __init__(self) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="wove-ray-", dir="/tmp"))
        self.port, self.client_port = free_port(), free_port()
        self.head = RayProcesses(
            "--head",
            f"--port={self.port}",
            "--num-cpus=0",
            "--include-dashboard=false",
            "--no-monitor",  # Nothing is scaled.
            f"--ray-client-server-port={self.client_port}",
            f"--temp-dir={self.directory}",
            directory=self.directory,
        )
        self.node = RayProcesses(f"--address={self.address}", f"--num-cpus={CPUS}", directory=self.directory)

    @property
    def address(self) -> str:
        """The address for programs on this machine."""
        return f"{HOST}:{self.port}"

    @property
    def client_address(self) -> str:
        """The address for clients on this machine."""
        return f"ray://{HOST}:{self.client_port}"

    def __enter__(self) -> Self:
        """Return when head and node are up."""
        try:
            self.head.ensure()
            self.node.ensure()
        except BaseException:
            self._close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        """End everything, and leave no file."""
        self._close()

    def _close(self) -> None:
        self.node.close()
        self.head.close()
        shutil.rmtree(self.directory, ignore_errors=True)


def session_of(leader: int) -> set[int]:
    """Return the processes of a session that live."""
    found = set()
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, _, session = stat.read_text().rpartition(")")[2].split()[:4]
        except OSError:
            continue  # It has just ended.
        if int(session) == leader and state != "Z":
            found.add(int(stat.parent.name))
    return found
