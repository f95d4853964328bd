"""Commands, as frames and as they come over the wire, and the functions that they run."""

import asyncio
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from wove.backend.frames import frame_to_bytes


def frame_of(function: Callable[..., Any], **args: Any) -> dict[str, Any]:
    """Return a ``run_task`` command with the callable and the arguments themselves, as within one process."""
    return {"type": "run_task", "run_id": "run-1", "task_id": "report", "callable": function, "args": args}


def command(function: Callable[..., Any], *, run_id: str = "run-1", delivery: Any = None, **args: Any) -> bytes:
    """Return a ``run_task`` command."""
    ids = {"run_id": run_id, "task_id": "task", "task_name": "task"}
    frame = {"type": "run_task", **ids, "callable": function, "args": args, "delivery": delivery or {}}
    return frame_to_bytes(frame)


def plain(kind: str, run_id: str = "run-1", **fields: Any) -> bytes:
    """Return a command without pickles."""
    return json.dumps({"type": kind, "run_id": run_id, "task_id": "task", **fields}).encode()


async def until(condition: Callable[[], bool], *, seconds: float = 20.0) -> None:
    """Wait until something that other processes do has happened."""
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 - there is no event to wait for
            await asyncio.sleep(0.01)


def add(left: int, right: int) -> int:
    """Return a sum."""
    return left + right


def process_id() -> int:
    """Return the id of the process that executes this."""
    return os.getpid()


def sleep(seconds: float) -> float:
    """Sleep in the one way that cannot be interrupted from another thread."""
    time.sleep(seconds)
    return seconds


def touch(path: str) -> None:
    """Make a file."""
    Path(path).touch()


async def wait_for(path: str) -> str:
    """Wait until a file is there; say in others that this has begun, and that it was cancelled."""
    write(path + ".begun", str(os.getpid()))
    try:
        await until(Path(path).exists, seconds=60)
    except asyncio.CancelledError:
        write(path + ".cancelled", "")
        raise
    return "waited"


def write(path: str, text: str) -> None:
    """Write a file, complete from the moment that it is there."""
    Path(path + ".new").write_text(text)
    os.replace(path + ".new", path)
