"""The least that a task queue can be: worker processes that take payloads from one pipe."""

import json
import multiprocessing
import subprocess
import sys
from typing import Any

from wove import BackendAdapter


class PipeQueueAdapter(BackendAdapter):
    """Writes payloads, one JSON line each, to a process that hands them to its workers.

    Configuration: ``workers``, the number of worker processes.
    """

    async def start(self) -> None:
        command = [sys.executable, __file__, str(self.config["workers"])]
        self.host = subprocess.Popen(command, stdin=subprocess.PIPE, text=True)  # noqa: ASYNC220

    async def submit(self, payload: dict[str, Any], frame: dict[str, Any]) -> str:
        # This cannot block for long: the host does nothing but read.
        assert self.host.stdin is not None
        self.host.stdin.write(json.dumps(payload) + "\n")
        self.host.stdin.flush()
        return str(frame["run_id"])

    async def close(self) -> None:
        assert self.host.stdin is not None
        self.host.stdin.close()
        self.host.wait()


def work(lines: "multiprocessing.Queue[str | None]") -> None:
    from wove.integrations.worker import run

    while (line := lines.get()) is not None:
        run(json.loads(line))


def main() -> None:
    # Imported once, before the workers are forked.
    import httpx  # noqa: F401

    import wove.integrations.worker  # noqa: F401

    context = multiprocessing.get_context("fork")
    # Not a SimpleQueue: that blocks when its pipe is full, and so would the submitting side.
    lines: multiprocessing.Queue[str | None] = context.Queue()
    workers = [context.Process(target=work, args=(lines,)) for _ in range(int(sys.argv[1]))]
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
