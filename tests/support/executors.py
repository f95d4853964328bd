"""An executor that does what a test says."""

import asyncio
from collections.abc import Mapping
from typing import Any

from wove.environment.contract import EnvironmentExecutor
from wove.integrations.base import JobState


class ScriptedExecutor(EnvironmentExecutor):
    """Records commands, and sends the events that a test emits.

    Attributes:
        commands: every frame that `send` got.
        starts, stops: how often it was started and stopped.
        closed_runs: the runs of which nothing is expected any more.
        hold: while it is not set, `send` hangs; by command type.
        failures: what `send` raises, by command type.
        start_failure, stop_failure: what `start` and `stop` raise.
        seconds: how long `start` and `stop` take.
        running: whether it is between the two.
        auto: answers every run at once with its arguments.
    """

    def __init__(self, *, auto: bool = False) -> None:
        self.auto = auto
        self.commands: list[dict[str, Any]] = []
        self.starts = 0
        self.stops = 0
        self.closed_runs: list[str] = []
        self.hold: dict[str, asyncio.Event] = {}
        self.failures: dict[str, BaseException] = {}
        self.start_failure: BaseException | None = None
        self.stop_failure: BaseException | None = None
        self.seconds = 0.0
        self.running = False
        self.config: Mapping[str, Any] = {}
        self.run_config: Mapping[str, Any] = {}
        self._events: asyncio.Queue[Any] = asyncio.Queue()
        self._sent = asyncio.Event()

    async def start(
        self, *, environment_name: str, environment_config: Mapping[str, Any], run_config: Mapping[str, Any]
    ) -> None:
        await asyncio.sleep(self.seconds)
        if self.start_failure is not None:
            raise self.start_failure
        if self.running:
            raise RuntimeError("started twice")
        self.running = True
        self.starts += 1
        self.config, self.run_config = environment_config, run_config
        self._events = asyncio.Queue()
        self._sent = asyncio.Event()

    async def send(self, frame: dict[str, Any]) -> None:
        kind = frame["type"]
        self.commands.append(frame)
        self._sent.set()
        if kind in self.hold:
            await self.hold[kind].wait()
        if kind in self.failures:
            raise self.failures[kind]
        if self.auto and kind == "run_task":
            self.emit("task_result", frame["run_id"], result=frame["args"])

    async def recv(self) -> dict[str, Any]:
        event = await self._events.get()
        if isinstance(event, BaseException):
            raise event
        return event  # type: ignore[no-any-return]

    async def stop(self) -> None:
        await asyncio.sleep(self.seconds)
        self.running = False
        self.stops += 1
        if self.stop_failure is not None:
            raise self.stop_failure

    def close_run(self, run_id: str) -> None:
        self.closed_runs.append(run_id)

    def emit(self, kind: str, run_id: str, **fields: Any) -> None:
        """Send an event."""
        self._events.put_nowait({"type": kind, "run_id": run_id, "task_id": "t", **fields})

    def break_down(self, error: BaseException) -> None:
        """Let `recv` fail."""
        self._events.put_nowait(error)

    def emit_anything(self, frame: object) -> None:
        """Send something that may not be an event at all."""
        self._events.put_nowait(frame)

    def of_type(self, kind: str) -> list[str]:
        """Return the run ids of the commands of a type."""
        return [frame["run_id"] for frame in self.commands if frame["type"] == kind]

    async def until_sent(self, kind: str, count: int = 1) -> str:
        """Wait until so many commands of a type have come, and return the run id of the last one."""
        while len(self.of_type(kind)) < count:
            self._sent.clear()
            await self._sent.wait()
        return self.of_type(kind)[count - 1]


class PolledExecutor(ScriptedExecutor):
    """One whose backend can be asked for the states of jobs.

    Attributes:
        states: the answers, by run id.
        questions: what was asked, and when on the loop's clock.
    """

    poll_interval = 5.0

    def __init__(self) -> None:
        super().__init__()
        self.states: dict[str, JobState] = {}
        self.questions: list[tuple[float, list[str]]] = []
        self.probe_failure: Exception | None = None

    async def probe(self, run_ids: Any) -> Mapping[str, JobState]:
        self.questions.append((asyncio.get_running_loop().time(), list(run_ids)))
        if self.probe_failure is not None:
            raise self.probe_failure
        return {run_id: self.states[run_id] for run_id in run_ids if run_id in self.states}
