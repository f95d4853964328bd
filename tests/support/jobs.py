"""The environment ``jobs`` over a small adapter, weaves that run one task in it, and tasks that tell what happens."""

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import wove
from tests.support.adapters import Ledger
from wove import BackendAdapterEnvironmentExecutor, weave
from wove.integrations.base import BackendAdapter


class Jobs:
    """The environment ``jobs`` over one adapter class.

    Attributes:
        ledger: what the adapter did.
    """

    def __init__(self) -> None:
        self.ledger = Ledger()

    def configure(self, adapter_class: type[BackendAdapter], *, settings: Any = None, **options: Any) -> None:
        executor = BackendAdapterEnvironmentExecutor("jobs", adapter_class=adapter_class)
        config = {"ledger": self.ledger, **(settings or {})}
        wove.config(environments={"jobs": {"executor": executor, "executor_config": config, **options}})


def run(function: Callable[..., Any], **options: Any) -> Any:
    """Run one task in the environment ``jobs`` and return its result."""
    with weave() as w:
        w.do(environment="jobs", **options)(function)
    return w.result.final


async def one_task() -> int:
    """Run one task in the environment ``jobs`` and return its result."""
    async with weave() as w:

        @w.do(environment="jobs")
        def answer() -> int:
            return 1

    result: int = w.result.answer
    return result


class Away:
    """A weave in a thread, so that the test can act while it runs."""

    def __init__(self, function: Callable[..., Any], **options: Any) -> None:
        self.result: Any = None
        self.error: BaseException | None = None
        self.seconds = 0.0
        self._thread = threading.Thread(target=self._run, args=(function, options))
        self._thread.start()

    def _run(self, function: Callable[..., Any], options: dict[str, Any]) -> None:
        before = time.monotonic()
        try:
            self.result = run(function, **options)
        except BaseException as error:
            self.error = error
        self.seconds = time.monotonic() - before

    def wait(self, seconds: float = 60.0) -> "Away":
        self._thread.join(seconds)
        assert not self._thread.is_alive()
        return self


def eventually(condition: Callable[[], object], seconds: float = 30.0) -> None:
    """Wait until something holds."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.01)


def contents(path: Path) -> str:
    """What a file holds; nothing, if it is missing."""
    return path.read_text() if path.exists() else ""


def writer(path: Path, *, seconds: float) -> Callable[[], Any]:
    """A coroutine function that writes ``started``, waits, and writes ``ended``, or ``stopped`` if it is cancelled."""
    target = str(path)

    async def wait() -> str:
        import asyncio

        def note(text: str) -> None:
            with open(target, "a") as file:
                file.write(text + "\n")

        note("started")
        try:
            await asyncio.sleep(seconds)
        except asyncio.CancelledError:
            note("stopped")
            raise
        note("ended")
        return "done"

    return wait


def sleeper(path: Path) -> Callable[[], str]:
    """A function that says which process runs it, and sleeps there as long as the file ``go`` is missing."""
    target = str(path)

    def sleep() -> str:
        import os
        import time

        with open(target, "a") as file:
            file.write(f"{os.getpid()}\n")
        while not os.path.exists(target + ".go"):
            time.sleep(0.02)
        return "done"

    return sleep
