"""A small program that runs weaves and exits, and a look at what it leaves: ``python -m wove.testing.exit_probe``."""

import json
import os
import pickle
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# What closes by itself has this long before it counts as left.
_SETTLING_SECONDS = 2.5


@dataclass(frozen=True, slots=True)
class Remains:
    """What a process that ran weaves left behind.

    Attributes:
        value: what its last task returned.
        exit_seconds: from its last statement to its end.
        threads: names of threads that were there some time after ``wove.shutdown()`` and not before the first weave.
        descriptors: how many more file descriptors stayed open after the second shutdown than after the first.
        processes: ids of processes of its session that outlived it.
        files: names of files in its directory for temporary ones.
        ports: ports that it listened on and somebody still does.
    """

    value: int
    exit_seconds: float
    threads: list[str]
    descriptors: int
    processes: list[int]
    files: list[str]
    ports: list[int]


def probe_exit(definition: dict[str, Any], *, seconds: float) -> Remains:
    """Run weaves with an environment in a new interpreter and look at what is left when it has exited.

    Args:
        definition: the environment; it is pickled.
        seconds: how long the interpreter may take altogether.

    Raises:
        RuntimeError: it failed or did not end; the message ends with what it printed.
    """
    from wove.serialization import dumps

    # What a worker keeps of outcomes is meant to stay; it is here because some adapters run their worker in-process.
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryDirectory() as spool:
        process = subprocess.Popen(
            [sys.executable, "-m", "wove.testing.exit_probe"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env={**os.environ, "TMPDIR": folder, "WOVE_SPOOL_DIR": spool},
            start_new_session=True,
        )
        try:
            printed, _ = process.communicate(dumps(definition, what="the definition of the environment"), seconds)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            printed, _ = process.communicate()
            raise RuntimeError(f"The interpreter did not exit within {seconds:g} s:\n{printed.decode()}") from None
        ended = time.monotonic()
        report = _report_in(printed)
        if process.returncode != 0 or report is None:
            raise RuntimeError(f"The interpreter exited with {process.returncode}:\n{printed.decode()}")
        return Remains(
            value=report["value"],
            exit_seconds=ended - report["leaving"],
            threads=report["threads"],
            descriptors=report["descriptors"],
            processes=_session_of(process.pid),
            files=sorted(str(path.relative_to(folder)) for path in Path(folder).rglob("*")),
            ports=[port for port in report["ports"] if _is_open(port)],
        )


def _report_in(printed: bytes) -> dict[str, Any] | None:
    for line in reversed(printed.splitlines()):
        if line.startswith(b'{"value"'):
            found: dict[str, Any] = json.loads(line)
            return found
    return None


def _session_of(leader: int) -> list[int]:
    """Return the processes of a session; Linux shows them, elsewhere none are found."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue  # It has just ended.
        if int(fields[3]) == leader:
            found.append(int(stat.parent.name))
    return found


def _is_open(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=0.5).close()
    except OSError:
        return False
    return True


# --- the program itself ---


def main() -> None:
    """Run weaves as the definition on stdin says and print, as the very last thing, what was seen on the way."""
    import wove
    from wove.testing import tasks

    definition = pickle.loads(sys.stdin.buffer.read())
    wove.config(default_environment="here", environments={"here": {"executor": "local"}, "there": definition})
    at_first = set(threading.enumerate())

    def once() -> int:
        with wove.weave(left=40, right=2) as w:
            w.do(environment="there")(tasks.add)
        value: int = w.result["add"]
        return value

    once()
    wove.shutdown()
    threads = _left_of(at_first)
    descriptors = _open_descriptors()
    once()
    wove.shutdown()
    more = _descriptors_beyond(descriptors)
    # The third weave is left to the interpreter's own exit.
    value = once()
    report = {"value": value, "threads": threads, "descriptors": more, "ports": _listening()}
    print(json.dumps({**report, "leaving": time.monotonic()}), flush=True)


def _left_of(at_first: set[threading.Thread]) -> list[str]:
    # Idle threads of Wove stay for a second.
    deadline = time.monotonic() + _SETTLING_SECONDS
    left = set(threading.enumerate()) - at_first
    while left and time.monotonic() < deadline:
        time.sleep(0.02)
        left = set(threading.enumerate()) - at_first
    return sorted(thread.name for thread in left)


def _descriptors_beyond(before: int) -> int:
    # gRPC closes the sockets of a closed channel a little later, on a thread of its own.
    deadline = time.monotonic() + _SETTLING_SECONDS
    more = _open_descriptors() - before
    while more > 0 and time.monotonic() < deadline:
        time.sleep(0.02)
        more = _open_descriptors() - before
    return max(0, more)


def _open_descriptors() -> int:
    try:
        return len(os.listdir("/proc/self/fd"))
    except OSError:
        return 0


def _listening() -> list[int]:
    """Return the TCP ports that this process listens on; none where the system does not tell."""
    folder = Path("/proc/self/fd")
    if not folder.is_dir():
        return []
    # The descriptor that reads the directory is gone before it can be looked at.
    inodes = {os.readlink(path) for path in folder.iterdir() if path.is_symlink()}
    ports = []
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        if fields[3] == "0A" and f"socket:[{fields[9]}]" in inodes:
            ports.append(int(fields[1].rpartition(":")[2], 16))
    return ports


if __name__ == "__main__":
    main()
