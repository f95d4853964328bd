"""Functions that RQ's own jobs call in the tests of the spare; the worker imports them from this folder."""

import logging
import os
import time
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
