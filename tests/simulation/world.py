"""A whole world from one seed: weaves that come and go, a backend, workers, a network, and an attacker."""

import asyncio
import base64
import contextlib
import json
import pickle
import random
import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from unittest import mock

import wove
from tests.simulation.backend import WALL, Backend, BackendFaults, CarryingAdapter, Process, SimulatedAdapter
from tests.simulation.history import History, Ticket
from tests.simulation.network import Network, NetworkFaults, call_app
from tests.simulation.virtual_loop import Strand, VirtualLoop, sleep
from wove import BackendAdapterEnvironmentExecutor
from wove.backend.active_runs import active_runs
from wove.backend.callbacks import callback_table
from wove.backend.connections import connections
from wove.backend.events import Clock
from wove.backend.loop import IOLoop
from wove.backend.pacemaker import pacemaker
from wove.backend.returned import pack_outcome
from wove.backend.signing import body_digest, sign_event
from wove.backend.spool import spool
from wove.environment.orders import make_order
from wove.integrations.worker import current_run
from wove.plugins import register, unregister
from wove.runtime import runtime

ENVIRONMENT = "simulated"


@dataclass(slots=True)
class Plan:
    """What may happen in a world.

    Attributes:
        weaves: how many there are.
        network: faults between workers and owner.
        backend: faults of the backend.
        timeouts: whether tasks have a ``delivery_timeout``, one that may be too short.
        heartbeats: whether tasks have ``delivery_heartbeat_seconds``; with many lost ones, healthy tasks are given up.
        cancels: the share of weaves that are cancelled.
        failures: the share of tasks that raise.
        attacks: how many forged events somebody posts.
        carries: whether the backend carries outcomes back.
    """

    weaves: int = 3
    network: NetworkFaults = field(default_factory=NetworkFaults)
    backend: BackendFaults = field(default_factory=BackendFaults)
    timeouts: bool = True
    heartbeats: bool = True
    cancels: float = 0.0
    failures: float = 0.0
    attacks: int = 0
    carries: bool = False


class World:
    """Runs a plan, decided by a seed.

    Attributes:
        history: what happened.
    """

    def __init__(self, seed: int, plan: Plan) -> None:
        self.history = History()
        self._seed = seed
        self._plan = plan
        self._chance = random.Random(seed)
        self._next_ticket = 0

    def run(self) -> list[str]:
        """Let everything happen and return what should not have."""
        loop = VirtualLoop()
        background = _VirtualIOLoop(loop)
        network = Network(self._chance, self._plan.network, self.history)
        backend = Backend(self._chance, self._plan.backend, network, carries=self._plan.carries)
        backend.forged = self._forged_outcome
        with _inside(self, loop, background), contextlib.closing(loop):
            try:
                return loop.run_until_complete(self._main(background, network, backend))
            finally:
                _end_all_tasks(loop)

    async def _main(self, background: "_VirtualIOLoop", network: Network, backend: Backend) -> list[str]:
        adapter = CarryingAdapter if self._plan.carries else SimulatedAdapter
        executor = BackendAdapterEnvironmentExecutor("simulated", adapter_class=adapter)
        token = "".join(self._chance.choices("abcdef0123456789", k=32))
        config = {
            "backend": backend,
            "callback_server": "application",
            "callback_url": f"http://owner/wove/events/{token}",
        }
        environments: dict[str, dict[str, Any]] = {
            "here": {"executor": "local"},
            ENVIRONMENT: {"executor": executor, "executor_config": config},
        }
        wove.config(default_environment="here", environments=environments)
        weaves = [asyncio.ensure_future(self._weave()) for _ in range(self._plan.weaves)]
        attacks = [asyncio.ensure_future(self._attack(token)) for _ in range(self._plan.attacks)]
        await asyncio.wait(weaves)
        await background.close_everything()
        if attacks:
            await asyncio.wait(attacks)
        await network.quiesce()
        # From here on the owner's process is gone; its workers have to find out.
        network.owner_is_gone = True
        backend.abandoned_at = asyncio.get_running_loop().time()
        remains = await self._remains(backend)
        return [*self._crashes([*weaves, *attacks]), *backend.crashes, *self.history.violations(), *remains]

    def _crashes(self, tasks: list["asyncio.Task[None]"]) -> list[str]:
        failed = [task for task in tasks if not task.cancelled() and task.exception() is not None]
        return [f"crash: {task.exception()!r}" for task in failed]

    async def _remains(self, backend: Backend) -> list[str]:
        """Return what is left when everybody has had the time to notice that the owner is gone."""
        # A backend may deliver again and again what has been killed; no single process takes that long.
        until = asyncio.get_running_loop().time() + 7200.0
        while backend.working and asyncio.get_running_loop().time() < until:
            await asyncio.wait(backend.working, timeout=60.0)
        left = [f"I5: a worker still runs: {task}" for task in backend.working]
        open_runs = [callback for callback in callback_table()._callbacks.values() if callback._runs]
        left += [f"I5: {len(open_runs)} callbacks still expect events"] if open_runs else []
        others = asyncio.all_tasks() - {asyncio.current_task()} - backend.working
        return left + [f"I5: a task still runs: {task}" for task in others]

    async def _weave(self) -> None:
        chance = self._chance
        await asyncio.sleep(chance.uniform(0.0, 5.0))
        tickets = [self._ticket() for _ in range(chance.randint(1, 4))]
        cancelled = chance.random() < self._plan.cancels
        running = asyncio.ensure_future(self._run_weave(tickets))
        if cancelled:
            asyncio.get_running_loop().call_later(chance.uniform(0.0, 10.0), running.cancel)
        try:
            await running
        except asyncio.CancelledError:
            pass

    def _ticket(self) -> tuple[Ticket, float, dict[str, Any]]:
        """Make up a task: what it does, how long that takes, and with which options it runs."""
        chance = self._chance
        timeout = chance.choice([5.0, 20.0, 60.0]) if self._plan.timeouts else None
        retries = chance.choice([0, 0, 1, 2])
        options: dict[str, Any] = {"retries": retries, "delivery_timeout": timeout}
        options["delivery_heartbeat_seconds"] = chance.choice([None, 3.0, 10.0]) if self._plan.heartbeats else None
        options["delivery_cancel_mode"] = chance.choice(["best_effort", "best_effort", "require_ack"])
        options["delivery_orphan_policy"] = chance.choice(["cancel", "cancel", "fail", "requeue", "detach"])
        number, self._next_ticket = self._next_ticket, self._next_ticket + 1
        ticket = self.history.tickets[number] = Ticket(
            number,
            began=asyncio.get_running_loop().time(),
            limit=None if timeout is None else (timeout + 10.0) * (retries + 1),
            outcome="raise" if chance.random() < self._plan.failures else "return",
        )
        return ticket, chance.choice([0.0, 0.5, 2.0, 15.0]), options

    async def _run_weave(self, tickets: list[tuple[Ticket, float, dict[str, Any]]]) -> None:
        w = wove.weave(error_mode="return")
        async with w:
            for ticket, seconds, options in tickets:
                task = _task(ticket.number, seconds, ticket.outcome)
                w.do(environment=ENVIRONMENT, **options)(task)
        for ticket, _, _ in tickets:
            result = w.result[f"task_{ticket.number}"]
            if isinstance(result, BaseException):
                ticket.error = result
            else:
                ticket.value = result

    async def _attack(self, token: str) -> None:
        """Post an event that only the owner of a key may post."""
        chance = self._chance
        await asyncio.sleep(chance.uniform(0.0, 20.0))
        signed = [run_id for run_id in self.history.executions if chance.random() < 0.5]
        run_id = chance.choice(signed or ["nobody"])
        headers, body = self._forged(run_id)
        answer = await call_app(f"/wove/events/{chance.choice([token, 'guess'])}", "POST", headers, body)
        self.history.forgeries.append(answer.status)

    def _forged_outcome(self, run_id: str) -> bytes:
        return pack_outcome(*self._forged(run_id))

    def _forged(self, run_id: str) -> tuple[dict[str, str], bytes]:
        """Return the headers and the body of a final event that is right in everything but the key."""
        bomb = base64.b64encode(pickle.dumps(_Bomb())).decode()
        frame = {"type": "task_result", "run_id": run_id, "task_id": None, "result_pickle": bomb}
        body = json.dumps(frame).encode()
        headers = sign_event(
            "guessed",
            run_id,
            worker_id="attacker",
            sequence=self._chance.randint(1, 9),
            timestamp=int(WALL + asyncio.get_running_loop().time()),
            digest=body_digest(body),
            length=len(body),
        )
        return headers, body


class _Bomb:
    def __reduce__(self) -> tuple[Any, ...]:
        return _explode, ()


def _explode() -> None:
    _world().history.unpickled_forgeries += 1


# The world that is running: what is pickled finds its way back through it.
_current: list[World] = []


def _world() -> World:
    return _current[-1]


def _task(number: int, seconds: float, outcome: str) -> Callable[[], tuple[int, str]]:
    def task() -> tuple[int, str]:
        return _work(number, seconds, outcome)

    task.__name__ = f"task_{number}"
    return task


def _work(number: int, seconds: float, outcome: str) -> tuple[int, str]:
    run = current_run()
    if run is None:
        raise RuntimeError("A simulated task runs on a worker.")
    _world().history.executed(run.run_id)
    left = seconds
    while left > 0:
        # In steps, because that is when Python code can be interrupted.
        sleep(min(left, 0.25))
        left -= 0.25
    if outcome == "raise":
        raise ValueError(number, run.run_id)
    return number, run.run_id


class _VirtualIOLoop(IOLoop):
    """The background loop in the shape of the virtual one."""

    def __init__(self, loop: VirtualLoop) -> None:
        self.loop = loop
        self._to_close: list[tuple[bool, Callable[[], Awaitable[None]]]] = []

    def on_close(self, closer: Callable[[], Awaitable[None]], *, first: bool = False) -> None:
        self._to_close.append((first, closer))

    async def close_everything(self) -> None:
        """Do what ``wove.shutdown()`` does."""
        self._to_close.reverse()
        for _, closer in sorted(self._to_close, key=lambda entry: not entry[0]):
            await closer()


class _Immediately:
    """Runs the jobs of worker threads at once, in the caller's thread."""

    def submit(self, job: Callable[[], object]) -> None:
        job()


class _VirtualTime:
    """What a module finds in place of `time`."""

    def __init__(self, loop: VirtualLoop) -> None:
        self.monotonic = loop.time
        self._loop = loop

    def time(self) -> float:
        return WALL + self._loop.time()


def _process() -> Process:
    process: Process = Strand.current().owner
    return process


@contextmanager
def _inside(world: World, loop: VirtualLoop, background: _VirtualIOLoop) -> Iterator[None]:
    """Put the parts of Wove that touch the outside into a world."""
    time = _VirtualTime(loop)
    before = runtime.snapshot()
    with contextlib.ExitStack() as stack:
        stack.enter_context(mock.patch("wove.backend.loop._current", background))
        stack.enter_context(mock.patch("wove.backend.threads._threads", _Immediately()))
        stack.enter_context(mock.patch("wove.backend.arrivals.time", time))
        for original, replacement in (
            (Clock, lambda: _process().clock),
            (connections, lambda: _process().connections),
            (pacemaker, _process),
            (spool, lambda: _process().disk),
            (active_runs, lambda: _process().active_runs),
        ):
            _replace_everywhere(stack, original, replacement)
        stack.enter_context(mock.patch.dict(make_order.__kwdefaults__, now=time.time))
        # What is random inside of Wove follows the seed too.
        stack.enter_context(mock.patch("wove.backend.retries.uniform", random.Random(world._seed).uniform))
        register(world.history)
        _current.append(world)
        try:
            yield
        finally:
            _current.pop()
            unregister(world.history)
            runtime.restore(before)


def _replace_everywhere(stack: contextlib.ExitStack, original: object, replacement: object) -> None:
    """Replace a part of Wove in every module of Wove that has imported it."""
    for module_name, module in list(sys.modules.items()):
        if module_name.startswith("wove."):
            for name, value in list(vars(module).items()):
                if value is original:
                    stack.enter_context(mock.patch.object(module, name, replacement))


def _end_all_tasks(loop: VirtualLoop) -> None:
    loop.end = loop.now + 1000.0
    while tasks := asyncio.all_tasks(loop):
        for task in tasks:
            task.cancel()
        loop.run_until_complete(asyncio.wait(tasks, timeout=60.0))
