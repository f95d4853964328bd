"""Slurm: native jobs unpickle a function, call it and keep its result in a file; squeue is asked until they have ended.
A cluster of one node is started for it. Collected by ``batch.py``.
"""

import os
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import batch
import cloudpickle

import wove_slurm  # noqa: F401 - without it there is nothing to measure

sys.path.insert(0, str(batch.HERE.parent))

from tests.beds.slurm import running_slurm

# More questions would only keep the machine from its jobs.
POLL_SECONDS, POLL_MANY_SECONDS = 0.05, 0.2
# What people write by hand, or have a library write: see for example submitit.
PROGRAM = """
import os, pickle, sys
folder, index = sys.argv[1], os.environ.get("SLURM_ARRAY_TASK_ID", "0")
with open(f"{folder}/{index}.in", "rb") as file:
    function, item = pickle.load(file)
with open(f"{folder}/{index}.out", "wb") as file:
    pickle.dump(function(item), file)
"""
# No --export with a name: Slurm would start a login shell for every job.
SCRIPT = f"#!/bin/sh\nexec {shlex.quote(sys.executable)} -c {shlex.quote(PROGRAM)} "


def client(*command: str, stdin: str = "") -> str:
    return subprocess.run(command, input=stdin, capture_output=True, text=True, check=True).stdout.strip()


def run_natively(jobs: int) -> None:
    """Run jobs, as one array if there are several, until Slurm says that they have ended, and read their results."""
    with tempfile.TemporaryDirectory() as folder:
        for item in range(jobs):
            Path(folder, f"{item}.in").write_bytes(cloudpickle.dumps((batch.echo, item)))
        array = [f"--array=0-{jobs - 1}"] if jobs > 1 else []
        number = client("sbatch", "--parsable", "--output=/dev/null", *array, stdin=f"{SCRIPT}{folder}\n")
        while client(
            "squeue", "--noheader", f"--user={os.getuid()}", "--states=pending,running,completing", "-o", "%A"
        ):
            time.sleep(POLL_MANY_SECONDS if jobs > 1 else POLL_SECONDS)
        assert number.isdigit()
        found = [cloudpickle.loads(Path(folder, f"{item}.out").read_bytes()) for item in range(jobs)]
    assert found == list(range(jobs))


@contextmanager
def system() -> Iterator[batch.System]:
    with running_slurm() as bed:
        os.environ["SLURM_CONF"] = str(bed.config)
        yield batch.System({"executor": "slurm"}, lambda: run_natively(1), run_natively)


SUBJECT = batch.Subject("slurm", batch.BARS, system)
