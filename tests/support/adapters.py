"""Small adapters over a backend that lives in this process or in processes of its own, for the tests of delivery."""

import asyncio
import json
import signal
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Any, ClassVar

from wove.integrations.base import BackendAdapter, JobState
from wove.integrations.worker import run

WORKER = "import json, sys; from wove.integrations.worker import run; run(json.load(sys.stdin))"


class Ledger:
    """What the adapters of one configuration did; a live object in it. Written on Wove's background loop.

    Attributes:
        adapters: every instance that was made.
        started, closed: the instances whose `start` returned, whose `close` was called.
        payloads, frames: what was submitted.
        batches: the sizes of the bulk submissions.
        at_once: the runs that were submitted without waiting.
        cancelled: ``(run_id, submission)`` for each call of `cancel`.
        polls: the run ids of each question.
        heard: the run id and the type of each event.
        hold: while it is not set, `submit` hangs.
        submit_failure, start_failure: what `submit` and `start` raise.
        refuse: picks, by payload, the submissions of a batch that are refused.
        states: what `poll` answers for each run id; a state under ``"*"`` is the answer for every other run.
        execute: False leaves payloads in the queue.
    """

    def __init__(self) -> None:
        self.adapters: list[BackendAdapter] = []
        self.started: list[BackendAdapter] = []
        self.closed: list[BackendAdapter] = []
        self.payloads: list[dict[str, Any]] = []
        self.frames: list[dict[str, Any]] = []
        self.batches: list[int] = []
        self.at_once: list[str] = []
        self.cancelled: list[tuple[str, Any]] = []
        self.polls: list[list[str]] = []
        self.heard: list[tuple[str, str]] = []
        self.hold: asyncio.Event | None = None
        self.submit_failure: Exception | None = None
        self.start_failure: Exception | None = None
        self.cancel_failure: Exception | None = None
        self.refuse: Callable[[dict[str, Any]], Exception | None] = lambda payload: None
        self.states: dict[str, JobState] = {}
        self.execute = True
        self.processes: list[subprocess.Popen[bytes]] = []

    @property
    def run_ids(self) -> list[str]:
        """The ids of the submitted runs, in order."""
        return [payload["run_id"] for payload in self.payloads]

    def end_processes(self) -> None:
        """Kill what still runs."""
        for process in self.processes:
            process.kill()
            process.wait()


class MemoryAdapter(BackendAdapter):
    """Executes payloads in daemon threads of this process; reports to the `Ledger` under ``ledger``."""

    poll_interval = 0.05

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.ledger: Ledger = self.config["ledger"]
        self.ledger.adapters.append(self)

    async def start(self) -> None:
        if self.ledger.start_failure is not None:
            raise self.ledger.start_failure
        self.ledger.started.append(self)

    async def submit(self, payload: dict[str, Any], frame: dict[str, Any]) -> Any:
        self.ledger.payloads.append(payload)
        self.ledger.frames.append(frame)
        if self.ledger.hold is not None:
            await self.ledger.hold.wait()
        if self.ledger.submit_failure is not None:
            raise self.ledger.submit_failure
        if self.ledger.execute:
            self.execute(payload)
        return f"job of {payload['run_id']}"

    def execute(self, payload: dict[str, Any]) -> None:
        travelled = json.loads(json.dumps(payload))
        threading.Thread(target=run, args=(travelled,), daemon=True).start()

    async def cancel(self, run_id: str, submission: Any, frame: dict[str, Any]) -> None:
        self.ledger.cancelled.append((run_id, submission))
        if self.ledger.cancel_failure is not None:
            raise self.ledger.cancel_failure

    async def close(self) -> None:
        self.ledger.closed.append(self)


class PolledAdapter(MemoryAdapter):
    """One whose backend can be asked about jobs."""

    async def poll(self, submissions: Mapping[str, Any]) -> Mapping[str, JobState]:
        self.ledger.polls.append(sorted(submissions))
        assert all(submissions[run_id] == f"job of {run_id}" for run_id in submissions)
        default = self.ledger.states.get("*")
        states = {run_id: self.ledger.states.get(run_id, default) for run_id in submissions}
        return {run_id: state for run_id, state in states.items() if state is not None}


class WatchedAdapter(MemoryAdapter):
    """One whose backend pushes news: first it fails, to be watched again."""

    attempts: ClassVar[int] = 0

    async def watch(self) -> AsyncIterator[tuple[str, JobState]]:
        WatchedAdapter.attempts += 1
        if WatchedAdapter.attempts == 1:
            raise ConnectionError("the stream broke")
        while True:
            for run_id, state in list(self.ledger.states.items()):
                yield run_id, state
            await asyncio.sleep(0.02)


class BulkAdapter(MemoryAdapter):
    """One that takes many submissions at once."""

    async def submit_many(self, submissions: Sequence[tuple[dict[str, Any], dict[str, Any]]]) -> Sequence[Any]:
        self.ledger.batches.append(len(submissions))
        results: list[Any] = []
        for payload, frame in submissions:
            refusal = self.ledger.refuse(payload)
            results.append(refusal if refusal is not None else await self.submit(payload, frame))
        return results


class PromptAdapter(MemoryAdapter):
    """One that submits what comes alone without waiting."""

    def submit_now(self, payload: dict[str, Any], frame: dict[str, Any]) -> Any:
        self.ledger.at_once.append(payload["run_id"])
        if self.ledger.submit_failure is not None:
            raise self.ledger.submit_failure
        if self.ledger.execute:
            self.execute(payload)
        return f"job of {payload['run_id']}"


class ProcessAdapter(MemoryAdapter):
    """Executes each payload in a process of its own, as a queue's worker would; cancelling ends the process."""

    def execute(self, payload: dict[str, Any]) -> None:
        process = subprocess.Popen([sys.executable, "-c", WORKER], stdin=subprocess.PIPE)
        assert process.stdin is not None
        with process.stdin:
            process.stdin.write(json.dumps(payload).encode())
        self.ledger.processes.append(process)


class TerminatingAdapter(ProcessAdapter):
    """A `ProcessAdapter` whose `cancel` sends SIGTERM to the process of a job."""

    async def cancel(self, run_id: str, submission: Any, frame: dict[str, Any]) -> None:
        await super().cancel(run_id, submission, frame)
        self.ledger.processes[self.ledger.run_ids.index(run_id)].send_signal(signal.SIGTERM)
