"""The simulated backend: a queue, worker processes, and everything that may happen to them."""

import asyncio
import copy
import json
import random
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from tests.simulation.network import Connections, Network
from tests.simulation.virtual_loop import Killed, Strand, VirtualLoop
from wove.backend.active_runs import ActiveRuns
from wove.backend.events import Clock, Event
from wove.backend.worker import run_backend_payload
from wove.errors import DeliveryError
from wove.integrations.base import BackendAdapter, JobPhase, JobState

if TYPE_CHECKING:
    from collections.abc import Callable

# Three leases of silence, ten minutes for an outcome that cannot be delivered, and the last attempts of both.
_LONGEST_ALONE = 3 * 30.0 + 600.0 + 30.0
WALL = 1_700_000_000.0
_LARGEST_CARRIED = 64 * 1024


@dataclass(slots=True)
class BackendFaults:
    """How likely each mishap is, for one job.

    Attributes:
        refuse: submitting fails.
        hang: submitting never returns.
        lose: the job is forgotten, and the backend says so.
        forget: the job is forgotten, and the backend says nothing.
        twice: the job is delivered to two workers.
        kill: the process that executes it is killed.
        redeliver: a killed job is delivered once more.
        skew: a host's clock is wrong.
        drop: an outcome that it carries is lost on its way, and the job has ended without one.
        forge: somebody puts another outcome in its place.
        repeat: it is told of once more, later.
        late: the end of the job, and its outcome, become known later.
    """

    refuse: float = 0.0
    hang: float = 0.0
    lose: float = 0.0
    forget: float = 0.0
    twice: float = 0.0
    kill: float = 0.0
    redeliver: float = 0.0
    skew: float = 0.0
    drop: float = 0.0
    forge: float = 0.0
    repeat: float = 0.0
    late: float = 0.0


class Disk:
    """What a host keeps of outcomes; the interface of `wove.backend.spool.Spool`, for processes that are alive."""

    def __init__(self) -> None:
        self._outcomes: dict[str, Event] = {}
        self._finished: set[str] = set()

    def save(self, name: str, event: Event) -> None:
        _require_life()
        self._outcomes[name] = event

    def load(self, name: str) -> Event | None:
        _require_life()
        return self._outcomes.get(name)

    def remove(self, name: str) -> None:
        _require_life()
        self._outcomes.pop(name, None)

    def mark_finished(self, name: str) -> None:
        _require_life()
        self._finished.add(name)

    def has_finished(self, name: str) -> bool:
        _require_life()
        return name in self._finished


class Process:
    """A worker process: what the modules of the worker find in place of their process-wide things.

    Args:
        network: how it reaches the owner.
        disk: of its host.
        skew: seconds by which the host's clock is wrong.
    """

    def __init__(self, network: Network, disk: Disk, *, skew: float) -> None:
        loop = self._loop = cast(VirtualLoop, asyncio.get_running_loop())
        self.alive = True
        self.disk = disk
        self.active_runs = ActiveRuns()
        self.connections = Connections(network)
        self.clock = Clock(
            monotonic=loop.time,
            wall=lambda: WALL + loop.time() + skew,
            sleep=lambda seconds: Strand.current().block(lambda: asyncio.sleep(seconds)),
        )
        self._tasks: set[asyncio.Task[None]] = set()
        self._timers: dict[Callable[[], float], asyncio.TimerHandle] = {}

    def start(self, function: "Callable[[], object]") -> "asyncio.Task[None]":
        """Run code as a part of this process."""
        task = self._loop.create_task(Strand(function, self).run())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def kill(self) -> None:
        """End the process as SIGKILL does."""
        self.alive = False
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()
        for task in list(self._tasks):
            task.cancel()

    # The interface of `wove.backend.pacemaker.Pacemaker`.

    def add(self, beat: "Callable[[], float]", due: float) -> None:
        """Call a beat at a time."""
        if self.alive:
            self._timers[beat] = self._loop.call_at(due, self._beat, beat, due)

    def remove(self, beat: "Callable[[], float]") -> None:
        """Call a beat no more."""
        timer = self._timers.pop(beat, None)
        if timer is not None:
            timer.cancel()

    def hasten(self, beat: "Callable[[], float]") -> None:
        """Simulated tasks write no logs, for which alone a beat is hastened."""

    def _beat(self, beat: "Callable[[], float]", due: float) -> None:
        # asyncio calls timers up to a nanosecond early; a beat that is early would ask for the same time again.
        self._loop.now = max(self._loop.now, due)

        def call() -> None:
            again = beat()
            if beat in self._timers:
                self.add(beat, again)

        _ = self.start(call)


class Job:
    """One delivery of a payload by the backend."""

    def __init__(self, payload: dict[str, Any]) -> None:
        self.payload = payload
        self.phase: JobPhase = "queued"
        self.exit_code: int | None = None
        self.outcome: bytes | None = None
        self.processes: list[Process] = []


class Backend:
    """The queue and the hosts.

    Attributes:
        crashes: what workers raised that they should not have, or did although nobody waits for them any more.
        abandoned_at: since when the owner is gone, or None.
        ends: jobs whose end it tells of by itself, as it carries outcomes back.
        forged: makes the outcome that somebody puts in the place of a run's own.

    Args:
        chance: decides everything.
        faults: how likely each mishap is.
        network: between hosts and owner.
        carries: whether it carries outcomes back, and delivers each job once. Faults that repeat a job are then not for
            it.
    """

    def __init__(
        self, chance: random.Random, faults: BackendFaults, network: Network, *, carries: bool = False
    ) -> None:
        self.carries = carries
        self.ends: asyncio.Queue[str] = asyncio.Queue()
        self.forged: Callable[[str], bytes] = str.encode
        self.chance = chance
        self.faults = faults
        self._network = network
        self._hosts = [Disk(), Disk()]
        self._jobs: dict[str, Job] = {}
        self._working: set[asyncio.Task[None]] = set()
        self.crashes: list[str] = []
        self.abandoned_at: float | None = None

    @property
    def working(self) -> "set[asyncio.Task[None]]":
        """The jobs that have not ended."""
        return self._working

    def happens(self, mishap: str) -> bool:
        """Decide whether a mishap happens."""
        likelihood: float = getattr(self.faults, mishap)
        return self.chance.random() < likelihood

    def accept(self, payload: dict[str, Any]) -> str:
        """Queue a payload and return the job's id."""
        job = self._jobs[payload["run_id"]] = Job(payload)
        if self.happens("lose"):
            job.phase = "gone"
        elif not self.happens("forget"):
            for _ in range(2 if self.happens("twice") else 1):
                self._spawn(self._work(job))
        return str(payload["run_id"])

    def cancel(self, job_id: str) -> None:
        """Drop a queued job; end a running one, if it happens to be that kind of backend."""
        job = self._jobs[job_id]
        if job.phase == "queued":
            job.phase = "cancelled"
        elif job.phase == "running" and self.chance.random() < 0.3:
            self._kill(job)

    def state(self, job_id: str) -> JobState:
        """Say how a job is doing."""
        job = self._jobs[job_id]
        return JobState(job.phase, exit_code=job.exit_code, outcome=job.outcome)

    def _spawn(self, coroutine: Any) -> None:
        task = asyncio.ensure_future(coroutine)
        self._working.add(task)
        task.add_done_callback(self._working.discard)

    def _kill(self, job: Job) -> None:
        for process in job.processes:
            process.kill()

    async def _work(self, job: Job) -> None:
        """Let the job wait, have a process execute it, and see what becomes of that."""
        await asyncio.sleep(self.chance.expovariate(1 / 0.5))
        if job.phase == "cancelled":
            return
        skew = self.chance.choice([-600.0, 600.0]) if self.happens("skew") else 0.0
        process = Process(self._network, self.chance.choice(self._hosts), skew=skew)
        job.phase = "running"
        job.processes.append(process)
        # The payload goes through JSON, as in any backend.
        payload = json.loads(json.dumps(job.payload))
        outcomes: list[bytes | None] = []
        execution = process.start(lambda: outcomes.append(_execute(payload, carried=self.carries)))
        if self.happens("kill"):
            asyncio.get_running_loop().call_later(self.chance.expovariate(1 / 2.0), process.kill)
        began = asyncio.get_running_loop().time()
        await asyncio.wait([execution])
        self._judge(execution, began)
        killed = not process.alive
        process.kill()
        if killed and self.happens("redeliver"):
            await asyncio.sleep(self.chance.uniform(0.1, 5.0))
            self._spawn(self._work(job))
        elif all(not other.alive for other in job.processes):
            if self.carries:
                await self._carry(job, None if killed else outcomes[0])
            job.phase, job.exit_code = ("failed", -9) if killed else ("finished", 0)

    async def _carry(self, job: Job, outcome: bytes | None) -> None:
        """Bring the end of a job back, with its outcome; tell of it, or leave it to be asked for."""
        run_id: str = job.payload["run_id"]
        if self.happens("late"):
            # Later than its worker's last lease allows, the run would rightly count as lost.
            await asyncio.sleep(self.chance.uniform(0.1, 10.0))
        if outcome is not None and not self.happens("drop"):
            job.outcome = self.forged(run_id) if self.happens("forge") else outcome
        loop = asyncio.get_running_loop()
        for again in (False, True):
            if self.happens("repeat") if again else self.chance.random() < 0.5:
                loop.call_later(self.chance.uniform(0.0, 30.0 if again else 0.2), self.ends.put_nowait, run_id)

    def _judge(self, execution: "asyncio.Task[None]", began: float) -> None:
        if not execution.cancelled() and execution.exception() is not None:
            self.crashes.append(f"crash of a worker: {execution.exception()!r}")
        if self.abandoned_at is not None:
            alone = asyncio.get_running_loop().time() - max(began, self.abandoned_at)
            if alone > _LONGEST_ALONE:
                self.crashes.append(f"I5: a worker went on for {alone:.0f} s after its owner had gone")


def _execute(payload: dict[str, Any], *, carried: bool) -> bytes | None:
    try:
        return run_backend_payload(payload, delivered_once=carried, returns=_LARGEST_CARRIED if carried else 0)
    except DeliveryError:
        return None  # The process would exit with an error; the backend's state says so.


def _require_life() -> None:
    process = Strand.current().owner
    if not process.alive:
        raise Killed


class SimulatedAdapter(BackendAdapter):
    """Submits to the `Backend` under ``backend`` in its configuration."""

    poll_interval = 2.0

    async def start(self) -> None:
        self._backend: Backend = self.config["backend"]

    async def submit(self, payload: dict[str, Any], frame: dict[str, Any]) -> str:
        chance = self._backend.chance
        await asyncio.sleep(chance.expovariate(1 / 0.05))
        if self._backend.happens("hang"):
            await asyncio.Event().wait()
        if self._backend.happens("refuse"):
            raise ConnectionError("simulated")
        return self._backend.accept(copy.deepcopy(payload))

    async def cancel(self, run_id: str, submission: Any, frame: dict[str, Any]) -> None:
        await asyncio.sleep(self._backend.chance.expovariate(1 / 0.1))
        if self._backend.happens("hang"):
            await asyncio.Event().wait()
        if self._backend.happens("refuse"):
            raise ConnectionError("simulated")
        self._backend.cancel(submission)

    async def poll(self, submissions: Mapping[str, Any]) -> Mapping[str, JobState]:
        await asyncio.sleep(self._backend.chance.expovariate(1 / 0.1))
        if self._backend.happens("refuse"):
            raise ConnectionError("simulated")
        return {run_id: self._backend.state(job_id) for run_id, job_id in submissions.items()}


class CarryingAdapter(SimulatedAdapter):
    """Submits to a `Backend` that carries outcomes back: with what it tells by itself, and with what it is asked."""

    carries_outcomes = True

    async def watch(self) -> AsyncIterator[tuple[str, JobState]]:
        while True:
            run_id = await self._backend.ends.get()
            yield run_id, self._backend.state(run_id)
