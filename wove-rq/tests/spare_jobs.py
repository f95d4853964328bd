"""Functions that RQ's own jobs call in the tests of the spare; the worker imports them from this folder."""

import gc
import logging
import os
import random
import resource
import signal
import sys
import threading
import time
import warnings
from pathlib import Path
from typing import Any

from rq import get_current_job


def pid() -> int:
    """Return the process that executes the job."""
    return os.getpid()


def surroundings(note: str) -> dict[str, Any]:
    """Print and log a note, and tell what RQ has set up around the job."""
    print(f"printed {note}", flush=True)
    logging.getLogger("rq.worker").info("logged %s", note)
    job = get_current_job()
    assert job is not None
    return {
        "pid": os.getpid(),
        "group": os.getpgrp(),
        "job": job.id,
        "meta": job.meta,
        "RQ_JOB_ID": os.environ.get("RQ_JOB_ID"),
        "RQ_WORKER_ID": os.environ.get("RQ_WORKER_ID"),
        "descriptors": len(os.listdir("/proc/self/fd")),
        "threads": len(os.listdir("/proc/self/task")),
    }


def process() -> dict[str, Any]:
    """Tell how the process is set up, apart from what differs between any two of them."""
    loggers = [logging.getLogger(name) for name in (None, "rq.worker", "rq.job", "wove")]
    return {
        "signals": {each.name: _name(signal.getsignal(each)) for each in signal.Signals},
        "blocked signals": sorted(signal.pthread_sigmask(signal.SIG_BLOCK, [])),
        "wakeup": signal.set_wakeup_fd(-1),
        "timers": [signal.getitimer(each)[1] for each in (signal.ITIMER_REAL, signal.ITIMER_PROF)],
        "threads": [each.name for each in threading.enumerate()],
        "leads its group": os.getpgrp() == os.getpid(),
        "variables": sorted(os.environ),
        "directory": os.getcwd(),
        "umask": os.umask(0o77),
        "niceness": os.nice(0),
        "limits": [resource.getrlimit(each) for each in (resource.RLIMIT_NOFILE, resource.RLIMIT_AS)],
        "path": sys.path,
        "collector": [gc.isenabled(), gc.get_threshold(), gc.get_freeze_count() > 0],
        "hooks": [repr(sys.gettrace()), sys.excepthook is sys.__excepthook__, sys.getswitchinterval()],
        "warnings": [repr(each) for each in warnings.filters],
        "logging": [[each.level, [type(handler).__name__ for handler in each.handlers]] for each in loggers],
    }


def random_number() -> float:
    """Return one of those that depend on how the process was seeded."""
    return random.random()


def hold(path: str) -> None:
    """Write the process's id to a file, and wait."""
    Path(path).write_text(str(os.getpid()))
    time.sleep(120)


def size(data: bytes) -> int:
    """Return how much has arrived."""
    return len(data)


def fail() -> None:
    """Raise."""
    raise LookupError("nothing there")


def _name(handler: Any) -> str:
    return getattr(handler, "__qualname__", repr(handler))
