"""The worker: takes jobs and runs each in a process of its own. ``acme-worker acme:///path/queue.db --handler m:f``."""

import argparse
import importlib
import os
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from acme_queue.client import Client, create

_PAUSE_SECONDS = 0.02
_HELLO_SECONDS = 1.0
# A stopped job has this long to end by itself.
_GRACE_SECONDS = 10.0

Handler = Callable[[dict[str, Any]], object]


@dataclass(slots=True)
class _Child:
    job_id: str
    stopped: float | None = None


class Worker:
    """Takes jobs of one queue until it is told to stop. Belongs to the main thread of its process.

    Args:
        client: the queue's file.
        queue: the name of the queue.
        handler: called with each job's payload, in the main thread of a new process.
        processes: how many jobs run at once.
    """

    def __init__(self, client: Client, *, queue: str, handler: Handler, processes: int) -> None:
        self.name = f"{socket.gethostname()}-{os.getpid()}"
        self._client = client
        self._queue = queue
        self._handler = handler
        self._processes = processes
        self._children: dict[int, _Child] = {}
        self._stopping = False
        self._hello_due = 0.0

    def run(self) -> None:
        """Work until `stop`, and until the jobs that run then have ended."""
        while not (self._stopping and not self._children):
            self._greet()
            self._reap()
            self._stop_cancelled()
            if not self._take():
                time.sleep(_PAUSE_SECONDS)
        self._client.say_goodbye(self.name)

    def stop(self) -> None:
        """Take no more jobs, and tell those that run to end. May be called by a signal handler."""
        self._stopping = True

    def _greet(self) -> None:
        if time.monotonic() >= self._hello_due:
            self._client.say_hello(self.name)
            self._hello_due = time.monotonic() + _HELLO_SECONDS

    def _take(self) -> bool:
        if self._stopping or len(self._children) >= self._processes:
            return False
        claimed = self._client.claim(self._queue, self.name)
        if claimed is None:
            return False
        job_id, payload = claimed
        pid = os.fork()
        if pid == 0:
            self._execute(payload)
        self._children[pid] = _Child(job_id)
        return True

    def _execute(self, payload: dict[str, Any]) -> None:
        """Run one job; the process ends here."""
        code = 1
        try:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            self._handler(payload)
            code = 0
        except BaseException:  # Whatever it was, it must not go on as a second worker.
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)

    def _reap(self) -> None:
        for pid, child in list(self._children.items()):
            ended, status = os.waitpid(pid, os.WNOHANG)
            if not ended:
                continue
            del self._children[pid]
            code = os.waitstatus_to_exitcode(status)
            if code == 0 or child.stopped is not None:
                self._client.done(child.job_id)
            else:
                reason = f"killed by {signal.Signals(-code).name}" if code < 0 else "the handler raised"
                self._client.failed(child.job_id, code, reason)

    def _stop_cancelled(self) -> None:
        if not self._children:
            return
        unwanted = set(self._client.cancelled(self.name))
        now = time.monotonic()
        for pid, child in self._children.items():
            if child.stopped is None and (self._stopping or child.job_id in unwanted):
                child.stopped = now
                os.kill(pid, signal.SIGTERM)
            elif child.stopped is not None and now - child.stopped > _GRACE_SECONDS:
                os.kill(pid, signal.SIGKILL)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a worker until SIGTERM or SIGINT."""
    parser = argparse.ArgumentParser(prog="acme-worker", description="Run the jobs of an Acme queue.")
    parser.add_argument("url", help="acme:///path/to/queue.db; the file is made if it is not there")
    parser.add_argument("--queue", default="default")
    parser.add_argument("--processes", type=int, default=4, help="how many jobs run at once")
    parser.add_argument(
        "--handler",
        default="wove.integrations.worker:run",
        help="module:function that is called with each payload; by default the entry point for tasks of Wove",
    )
    options = parser.parse_args(arguments)
    module, _, function = options.handler.partition(":")
    create(options.url)
    worker = Worker(
        Client(options.url),
        queue=options.queue,
        # Imported here, once, so that no job has to.
        handler=getattr(importlib.import_module(module), function),
        processes=options.processes,
    )
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, frame: worker.stop())
    worker.run()
    return 0


if __name__ == "__main__":
    sys.exit(main())
