"""Tasks for the tests of workers: one that counts its executions, one that sleeps, and one that shares objects."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.support.event_server import EventServer
from tests.support.payloads import payload_for


class Counter:
    """A task that counts how often it is executed, in a file: it may run in another process."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __call__(self) -> int:
        with open(self._path, "a") as file:
            file.write("x")
        return self.count

    @property
    def count(self) -> int:
        return self._path.stat().st_size if self._path.exists() else 0


def sleeping(seconds: float = 60.0) -> Callable[[], None]:
    """Return a task that sleeps."""

    def task() -> None:
        import time

        time.sleep(seconds)

    return task


shared: dict[str, Callable[..., Any]] = {}


def call_shared() -> Any:
    """Call what is `shared` as ``task``; found by name, so in this process it is the test's own object."""
    return shared["task"]()


def execute_in_place(
    execute: Callable[[dict[str, Any]], object], server: EventServer, task: Callable[..., Any], **fields: Any
) -> None:
    """Execute a task that shares objects with the test: it is found by name instead of being copied."""
    shared["task"] = task
    execute(payload_for(server.url, call_shared) | fields)
