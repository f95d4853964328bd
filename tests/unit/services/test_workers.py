"""The processes that execute the tasks of a service."""

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.support.commands import add, command, plain, process_id, sleep, until, wait_for
from wove.backend.frames import deserialize_event
from wove.services import workers as workers_module
from wove.services.workers import Job, WorkerPool


class Pool:
    """A pool, and the events that come out of it."""

    def __init__(self, processes: int, threads: int) -> None:
        self.pool = WorkerPool(processes, threads, on_event=self.heard)
        self.events: asyncio.Queue[dict[str, Any]] = asyncio.Queue()

    def heard(self, run_id: str, kind: str, event: bytes) -> None:
        frame = json.loads(event)
        assert (frame["run_id"], frame["type"]) == (run_id, kind)
        self.events.put_nowait(frame)

    def submit(self, line: bytes, *, is_coroutine: bool = False) -> None:
        frame = json.loads(line)
        self.pool.submit(Job(frame["run_id"], frame["task_id"], line, is_coroutine))

    async def finals(self, count: int) -> dict[str, dict[str, Any]]:
        found: dict[str, dict[str, Any]] = {}
        async with asyncio.timeout(30):
            while len(found) < count:
                frame = await self.events.get()
                if frame["type"] != "task_started":
                    found[frame["run_id"]] = deserialize_event(frame)
        return found


@asynccontextmanager
async def started(processes: int = 1, threads: int = 4) -> AsyncIterator[Pool]:
    pool = Pool(processes, threads)
    await pool.pool.start()
    try:
        yield pool
    finally:
        await pool.pool.close()


async def test_runs_are_spread_over_the_processes() -> None:
    async with started(processes=2) as pool:
        for number in range(4):
            pool.submit(command(process_id, run_id=f"run-{number}"))
        pids = [event["result"] for event in (await pool.finals(4)).values()]
    assert len(set(pids)) == 2
    assert os.getpid() not in pids


async def test_coroutines_do_not_wait_for_threads(tmp_path: Path) -> None:
    async with started(threads=1) as pool:
        for number in range(10):
            path = str(tmp_path / f"go-{number}")
            pool.submit(command(wait_for, run_id=f"run-{number}", path=path), is_coroutine=True)
        await until(lambda: len(list(tmp_path.glob("*.begun"))) == 10)
        for number in range(10):
            (tmp_path / f"go-{number}").touch()
        assert {event["result"] for event in (await pool.finals(10)).values()} == {"waited"}


async def test_what_exceeds_the_threads_follows_in_order() -> None:
    async with started(threads=2) as pool:
        for number in range(6):
            pool.submit(command(sleep, run_id=f"run-{number}", seconds=0.02))
        assert len(await pool.finals(6)) == 6


async def test_a_task_that_cannot_be_stopped_has_its_process_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers_module, "CANCEL_GRACE", 0.1)
    async with started(threads=2) as pool:
        # The first synchronous task runs in the main thread, where it can be interrupted; the second one cannot be.
        pool.submit(command(sleep, run_id="first", seconds=0.5))
        pool.submit(command(sleep, run_id="stubborn", seconds=60))
        while (await pool.events.get())["run_id"] != "stubborn":
            pass
        pool.pool.cancel("stubborn", plain("cancel_task", "stubborn"))
        finals = await pool.finals(2)
        assert finals["first"]["type"] == "task_result", "its process is ended only when nobody waits for it any more"
        assert finals["stubborn"]["type"] == "task_cancelled"
        pool.submit(command(add, run_id="next", left=1, right=2))
        assert (await pool.finals(1))["next"]["result"] == 3


async def test_a_process_that_dies_while_it_is_idle_is_replaced() -> None:
    async with started() as pool:
        pool.submit(command(process_id, run_id="first"))
        pid = (await pool.finals(1))["first"]["result"]
        os.kill(pid, signal.SIGKILL)
        pool.submit(command(process_id, run_id="second"))
        final = (await pool.finals(1))["second"]
        if final["type"] == "task_error":  # It was sent before the death was noticed.
            pool.submit(command(process_id, run_id="third"))
            final = (await pool.finals(1))["third"]
        assert final["result"] != pid


async def test_runs_wait_while_a_process_is_replaced() -> None:
    async with started() as pool:
        pool.submit(command(_die, run_id="dies"))
        finals = await pool.finals(1)
        for number in range(3):
            pool.submit(command(add, run_id=f"run-{number}", left=1, right=2))
        assert finals["dies"]["type"] == "task_error"
        assert len(await pool.finals(3)) == 3


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


async def test_closing_ends_the_processes() -> None:
    async with started(processes=2) as pool:
        for number in range(4):
            pool.submit(command(process_id, run_id=f"run-{number}"))
        pids = {event["result"] for event in (await pool.finals(4)).values()}
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


async def test_modules_are_found_where_the_service_finds_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "only_here.py").write_text("def answer():\n    return 42\n")
    monkeypatch.syspath_prepend(tmp_path)
    from only_here import answer  # type: ignore[import-not-found]

    async with started() as pool:
        pool.submit(command(answer))
        assert (await pool.finals(1))["run-1"]["result"] == 42
