"""Workers on a bad path to their weave: whatever is lost on the way, the right outcome arrives once."""

import asyncio
import itertools
import random
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.event_server import DROP, EventServer, Move, Request, event_server
from tests.support.payloads import payload_for
from wove.backend.connections import connections
from wove.backend.frames import deserialize_frame
from wove.backend.spool import spool
from wove.integrations.worker import arun, run

FINAL = ("task_result", "task_error", "task_cancelled")
SEEDS = range(5)


@pytest.fixture(autouse=True)
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv("WOVE_SPOOL_DIR", str(tmp_path / "spool"))
    spool.cache_clear()
    yield tmp_path / "spool"
    spool.cache_clear()


@pytest.fixture
def server() -> Iterator[EventServer]:
    with event_server() as server:
        yield server
    connections().close()


@pytest.fixture(params=["run", "arun"])
def execute(request: pytest.FixtureRequest) -> Callable[[dict[str, Any]], bytes | None]:
    if request.param == "run":
        return lambda payload: run(payload)
    return lambda payload: asyncio.run(arun(payload))


def _finals(server: EventServer) -> list[dict[str, Any]]:
    """The outcomes that arrived, each once however often it was posted."""
    by_id = {request.headers["webhook-id"]: request for request in server.requests if request.kind in FINAL}
    return [deserialize_frame(request.event) for request in by_id.values()]


def _open_later(server: EventServer, seconds: float) -> threading.Timer:
    timer = threading.Timer(seconds, server.open)
    timer.start()
    return timer


# Fault 2.
def test_a_port_that_refuses_at_the_start_delays_nothing_but_the_outcome(
    server: EventServer, execute: Callable[[dict[str, Any]], bytes | None]
) -> None:
    server.close()
    timer = _open_later(server, 0.5)
    execute(payload_for(server.url, lambda: 42))
    timer.join()
    assert [final["result"] for final in _finals(server)] == [42]


# Fault 1, with the port refused for three seconds.
def test_a_port_that_refuses_at_the_result_delays_it(
    server: EventServer, execute: Callable[[dict[str, Any]], bytes | None]
) -> None:
    timers: list[threading.Timer] = []

    def break_off() -> None:
        server.stop_listening()
        timers.append(_open_later(server, 3.0))

    server.rule = lambda request: Move(after=break_off if request.kind == "task_started" else None)
    server.close_after_answer = True
    execute(payload_for(server.url, lambda: 42))
    timers[0].join()
    assert [final["result"] for final in _finals(server)] == [42]


# Fault 7.
def test_the_outcome_suffices_where_every_start_event_is_lost(
    server: EventServer, execute: Callable[[dict[str, Any]], bytes | None]
) -> None:
    server.rule = lambda request: DROP if request.kind == "task_started" else Move()
    execute(payload_for(server.url, lambda: 42))
    assert [final["result"] for final in _finals(server)] == [42]


# Fault 8.
def test_an_error_event_that_is_lost_is_posted_again(
    server: EventServer, execute: Callable[[dict[str, Any]], bytes | None]
) -> None:
    lost: list[Request] = []

    def lose(request: Request) -> Move:
        if request.kind == "task_error" and len(lost) < 3:
            lost.append(request)
            return DROP
        return Move()

    def task() -> None:
        raise ValueError("the real error")

    server.rule = lose
    execute(payload_for(server.url, task))
    (final,) = _finals(server)
    assert len(lost) == 3
    assert str(final["exception"]) == "the real error"


# Fault 9: the path is slow, in proportion to the lease as two seconds are to the default one of thirty and more.
def test_a_slow_path_is_no_silent_weave(server: EventServer, execute: Callable[[dict[str, Any]], bytes | None]) -> None:
    lease = 1.2
    arrivals: list[float] = []

    def slow(request: Request) -> Move:
        arrivals.append(time.monotonic())
        return Move(body={"cancel": False, "lease": lease}, after=lambda: time.sleep(0.3))

    def task() -> str:
        time.sleep(4 * lease)
        return "undisturbed"

    server.rule = slow
    execute(payload_for(server.url, task) | {"lease": lease})
    assert [final["result"] for final in _finals(server)] == ["undisturbed"]
    assert max(later - earlier for earlier, later in itertools.pairwise(arrivals)) < lease


class FaultyPath:
    """Loses, delays, refuses and answers at random, and remembers what the receiver took."""

    def __init__(self, server: EventServer, seed: int, *, rate: float) -> None:
        self.taken: dict[str, dict[str, list[Any]]] = {}
        self._random = random.Random(seed)
        self._rate = rate
        self._lock = threading.Lock()
        server.rule = self.decide

    def decide(self, request: Request) -> Move:
        with self._lock:
            fault = self._random.random() < self._rate
            kind = self._random.choice(["lost before", "lost after", "refused", "slow", "garbled", "elsewhere"])
        if fault and kind == "lost before":
            return DROP
        if fault and kind == "refused":
            return Move(503)
        if fault and kind == "elsewhere":
            return Move(502, body=b"<html>bad gateway</html>")
        self._take(request)
        if fault and kind == "lost after":
            return DROP
        if fault and kind == "garbled":
            return Move(raw=b"\x15\x03\x01 not http\r\n\r\n")
        return Move(after=(lambda: time.sleep(0.05)) if fault else None)

    def _take(self, request: Request) -> None:
        if request.kind in FINAL:
            run_id = request.event["run_id"]
            with self._lock:
                ids = self.taken.setdefault(run_id, {})
                ids.setdefault(request.headers["webhook-id"], []).append(deserialize_frame(request.event)["result"])


# Fault 12.
@pytest.mark.parametrize("seed", SEEDS)
async def test_forty_percent_faults_leave_every_outcome_right(server: EventServer, seed: int) -> None:
    path = FaultyPath(server, seed, rate=0.4)

    async def task(number: int) -> int:
        return number * number

    payloads = {number: payload_for(server.url, task, number=number) for number in range(100)}
    await asyncio.gather(*(arun(payload) for payload in payloads.values()))
    for number, payload in payloads.items():
        outcomes = path.taken[payload["run_id"]]
        assert len(outcomes) == 1, f"seed {seed}: run {number} has several outcomes"
        (values,) = outcomes.values()
        assert set(values) == {number * number}, f"seed {seed}"
