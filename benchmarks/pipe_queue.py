"""The least that a task queue can be: worker processes that take payloads from one pipe."""

import json
import multiprocessing
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from wove import BackendAdapter


class PipeQueueAdapter(BackendAdapter):
    """Writes payloads, one JSON line each, to a process that hands them to its workers.

    A line is read by one worker, once: when that worker dies, the job is lost, not delivered again. A job that nobody
    has begun is taken back by a file of its name. So its workers may begin without asking (``delivered_once``).

    Configuration: ``workers``, the number of worker processes.
    """

    async def start(self) -> None:
        self.cancelled = Path(tempfile.mkdtemp(prefix="wove-pipe-queue-"))
        command = [sys.executable, __file__, str(self.config["workers"]), str(self.cancelled)]
        self.host = subprocess.Popen(command, stdin=subprocess.PIPE, text=True)  # noqa: ASYNC220

    async def submit(self, payload: dict[str, Any], frame: dict[str, Any]) -> str:
        # This cannot block for long: the host does nothing but read.
        assert self.host.stdin is not None
        self.host.stdin.write(json.dumps(payload) + "\n")
        self.host.stdin.flush()
        return str(frame["run_id"])

    async def cancel(self, run_id: str, submission: str, frame: dict[str, Any]) -> None:
        (self.cancelled / run_id).touch()

    async def close(self) -> None:
        assert self.host.stdin is not None
        self.host.stdin.close()
        self.host.wait()
        shutil.rmtree(self.cancelled)


def work(lines: "multiprocessing.Queue[str | None]", cancelled: str) -> None:
    from wove.integrations.worker import run

    while (line := lines.get()) is not None:
        payload = json.loads(line)
        if not os.path.exists(f"{cancelled}/{payload['run_id']}"):
            run(payload, delivered_once=True)


def main() -> None:
    # Imported once, before the workers are forked.
    import httpx  # noqa: F401

    import wove.integrations.worker  # noqa: F401

    context = multiprocessing.get_context("fork")
    # Not a SimpleQueue: that blocks when its pipe is full, and so would the submitting side.
    lines: multiprocessing.Queue[str | None] = context.Queue()
    workers = [context.Process(target=work, args=(lines, sys.argv[2])) for _ in range(int(sys.argv[1]))]
    for worker in workers:
        worker.start()
    for line in sys.stdin:
        lines.put(line)
    for _ in workers:
        lines.put(None)
    for worker in workers:
        worker.join()


if __name__ == "__main__":
    main()
