"""Workers whose surroundings fail them, for the tests of the spare."""

import errno
import os
import signal
import time
from pathlib import Path
from typing import Any

from rq import SpawnWorker
from rq.job import Job

from wove_rq.worker import PreloadingWorker


class Forkless(PreloadingWorker):
    """Nothing can be forked until the first job has arrived."""

    def bootstrap(self, *args: Any, **kwargs: Any) -> None:
        """Start while the system has no processes to give."""
        fork, os.fork = os.fork, _refuse
        try:
            super().bootstrap(*args, **kwargs)
        finally:
            os.fork = fork


class Unready(PreloadingWorker):
    """Spares never come to the point where they wait for a job."""

    def setup_work_horse_signals(self) -> None:
        """Stop; a process that has a job already, goes on."""
        if not self.executions:
            os.kill(os.getpid(), signal.SIGSTOP)
        super().setup_work_horse_signals()  # type: ignore[no-untyped-call]


class Deaf(PreloadingWorker):
    """While there is the file that DEAF names, a spare does not notice anything when it is ready."""

    def procline(self, message: str) -> None:
        """Say so, and go to sleep."""
        if message == "Waiting for a job" and Path(os.environ["DEAF"]).exists():
            print(f"process {os.getpid()} sleeps", flush=True)
            time.sleep(600)
        super().procline(message)  # type: ignore[no-untyped-call]


class Unprepared(PreloadingWorker):
    """Nothing is forked ahead."""

    keeps_spare = False


class Spawning(PreloadingWorker, SpawnWorker):
    """Each process is a new interpreter."""


class FragileJob(Job):
    """A job that can be pickled, and cannot be unpickled."""

    def __reduce__(self) -> Any:
        """Return something that fails when it is called."""
        return _fail, ()


class SecretiveJob(Job):
    """A job that cannot be pickled."""

    def __reduce__(self) -> Any:
        """Fail as a job does that holds a lock."""
        raise TypeError("cannot pickle this")


def _fail() -> None:
    raise RuntimeError("cannot be unpickled")


def _refuse() -> int:
    raise OSError(errno.EAGAIN, "Resource temporarily unavailable")
