"""The stdio executor, driven from a test's own thread, and tasks for its workers."""

import asyncio
import itertools
import os
import signal
import sys
import textwrap
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from wove.backend.loop import io_loop
from wove.backend.types import FINAL_EVENTS
from wove.environment.stdio import StdioEnvironmentExecutor

SECONDS = 20.0


class Session:
    """One started stdio executor.

    Args:
        config: the ``executor_config``.
    """

    def __init__(self, **config: Any) -> None:
        self.executor = StdioEnvironmentExecutor()
        self._config = config
        self._events: dict[str, list[dict[str, Any]]] = {}
        self._changed = threading.Condition()
        self._numbers = itertools.count(1)
        self._pump: asyncio.Task[None] | None = None

    def __enter__(self) -> Self:
        io_loop().spawn(self._start()).result(SECONDS)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        io_loop().spawn(self._stop()).result(SECONDS)

    async def _start(self) -> None:
        await self.executor.start(environment_name="jobs", environment_config=self._config, run_config={})
        self._pump = asyncio.ensure_future(self._receive())

    async def _stop(self) -> None:
        if self._pump is not None:
            self._pump.cancel()
        await self.executor.stop()

    async def _receive(self) -> None:
        while True:
            event = await self.executor.recv()
            with self._changed:
                self._events[event["run_id"]].append(event)
                self._changed.notify_all()

    def start(self, function: Callable[..., Any], /, *, delivery: dict[str, Any] | None = None, **args: Any) -> str:
        """Send a task and return its run id."""
        run_id = f"run-{next(self._numbers)}"
        self._events[run_id] = []
        frame = {"type": "run_task", "run_id": run_id, "task_id": "work", "task_name": "work", "attempt": 1}
        self.send({**frame, "callable": function, "args": args, "delivery": delivery or {}})
        return run_id

    def cancel(self, run_id: str) -> None:
        """Ask the executor to stop a run."""
        self.send({"type": "cancel_task", "run_id": run_id, "task_id": "work", "delivery_cancel_mode": "best_effort"})

    def send(self, frame: dict[str, Any]) -> None:
        """Send a command."""
        io_loop().spawn(self.executor.send(frame)).result(SECONDS)

    def events(self, run_id: str) -> list[dict[str, Any]]:
        """The events of a run until now."""
        with self._changed:
            return list(self._events[run_id])

    def wait_for(self, run_id: str, *kinds: str, count: int = 1) -> dict[str, Any]:
        """Wait for an event of a run and return it; with `count`, for so many, and return the last."""
        with self._changed:
            found: list[dict[str, Any]] = []

            def there() -> bool:
                found[:] = [event for event in self._events[run_id] if event["type"] in kinds]
                return len(found) >= count

            if not self._changed.wait_for(there, SECONDS):
                raise TimeoutError(f"No {kinds} of {run_id} came; only {self._events[run_id]}.")
            return found[count - 1]

    def final(self, run_id: str) -> dict[str, Any]:
        """Wait for the final event of a run."""
        return self.wait_for(run_id, *FINAL_EVENTS)

    def run(self, function: Callable[..., Any], /, **args: Any) -> Any:
        """Execute a task and return its result or raise its exception."""
        return self.result(self.start(function, **args))

    def result(self, run_id: str) -> Any:
        """Wait for the end of a run and return its result or raise its exception."""
        event = self.final(run_id)
        if event["type"] == "task_result":
            return event["result"]
        raise event.get("exception") or AssertionError(event)

    def failure(self, run_id: str) -> BaseException:
        """Wait for the end of a run and return its exception."""
        error = self.final(run_id)["exception"]
        assert isinstance(error, BaseException)
        return error


def until(condition: Callable[[], bool], *, seconds: float = SECONDS) -> None:
    """Wait until something is so."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError("It did not become so in time.")
        time.sleep(0.01)


def alive(pid: int) -> bool:
    """Tell whether a process runs; a zombie does not."""
    try:
        with open(f"/proc/{pid}/stat") as stat:
            return stat.read().rpartition(")")[2].split()[0] not in ("Z", "X")
    except (FileNotFoundError, ProcessLookupError):
        return False


def workers() -> list[int]:
    """The live worker processes of this one."""
    children = [
        int(pid) for task in Path("/proc/self/task").iterdir() for pid in (task / "children").read_text().split()
    ]
    return [pid for pid in children if alive(pid) and b"stdio_worker" in Path(f"/proc/{pid}/cmdline").read_bytes()]


def kill(worker: int) -> None:
    """Kill a worker and wait until it cannot read any more."""
    os.kill(worker, signal.SIGKILL)
    until(lambda: not alive(worker))


def script(tmp_path: Path, source: str) -> list[str]:
    """Write a program and return the command that runs it."""
    path = tmp_path / "worker.py"
    path.write_text(textwrap.dedent(source))
    return [sys.executable, str(path)]


# Tasks. A worker imports this module, so what it keeps is shared by all tasks of one worker.

_meetings: dict[str, threading.Barrier] = {}
_guard = threading.Lock()


def pid() -> int:
    return os.getpid()


def echo(value: Any) -> Any:
    return value


def meet(place: str, parties: int) -> int:
    """Return when so many tasks are here at the same time."""
    with _guard:
        barrier = _meetings.setdefault(place, threading.Barrier(parties))
    return barrier.wait(SECONDS)


def wait_for_file(path: str) -> int:
    """Return the process id when a file exists."""
    until(lambda: os.path.exists(path))
    return os.getpid()


def touch_and_wait(started: str, go_on: str) -> int:
    """Make a file, and wait for another one."""
    with open(started, "w") as file:
        file.write(str(os.getpid()))
    return wait_for_file(go_on)


def touch_wait_touch(started: str, go_on: str, ended: str) -> None:
    """Make a file, wait for another one, and make a third."""
    touch_and_wait(started, go_on)
    with open(ended, "w"):
        pass
