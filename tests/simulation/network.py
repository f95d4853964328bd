"""The network between workers and the owner: requests reach the real callback application, or do not."""

import asyncio
import json
import random
from collections.abc import Coroutine, Mapping
from dataclasses import dataclass
from typing import Any

from tests.simulation.history import History
from tests.simulation.virtual_loop import Strand
from wove.backend.answers import Answer
from wove.backend.app import callback_app
from wove.backend.connections import LONGEST_ANSWER, Target

_FAULTS = ("refuse", "drop", "late", "unavailable", "duplicate", "black_hole", "lose_answer")


@dataclass(slots=True)
class NetworkFaults:
    """How often and how badly requests fail.

    Attributes:
        rate: the share of requests that something happens to.
        outage: from when to when nobody reaches the owner, in seconds.
    """

    rate: float = 0.0
    outage: tuple[float, float] = (0.0, 0.0)


class Network:
    """Carries requests to the owner.

    Args:
        chance: decides what happens to each.
        faults: how likely that is.
        history: what is written down.
    """

    def __init__(self, chance: random.Random, faults: NetworkFaults, history: History) -> None:
        self.owner_is_gone = False
        self._chance = chance
        self._faults = faults
        self._history = history
        self._stragglers: set[asyncio.Task[Any]] = set()

    async def exchange(
        self,
        target: Target,
        method: str,
        headers: Mapping[str, str],
        body: bytes,
        *,
        connect_seconds: float,
        answer_seconds: float,
    ) -> Answer:
        """Send a request and return its answer.

        Raises:
            OSError: the owner was not reached, or its answer got lost.
        """
        await asyncio.sleep(self._chance.uniform(0.001, 0.05))
        request = (target.path, method, headers, body)
        fate = self._fate()
        if fate == "refuse":
            raise ConnectionRefusedError("simulated")
        if fate == "drop":
            raise ConnectionResetError("simulated")
        if fate == "black_hole":
            await asyncio.sleep(self._chance.choice([connect_seconds, answer_seconds]))
            raise TimeoutError("simulated")
        if fate == "late":
            return await self._late(request, answer_seconds)
        if fate == "unavailable":
            return Answer(503, {"retry-after": "1"}, b"")
        if fate == "duplicate":
            self._later(self._arrive(*request))
        answer = await self._arrive(*request)
        if fate == "lose_answer":
            raise ConnectionResetError("simulated")
        return answer

    async def quiesce(self) -> None:
        """Wait until nothing is on its way any more."""
        while self._stragglers:
            await asyncio.wait(self._stragglers)

    def _fate(self) -> str:
        now = asyncio.get_running_loop().time()
        begin, end = self._faults.outage
        if self.owner_is_gone or begin <= now < end:
            return "refuse"
        return self._chance.choice(_FAULTS) if self._chance.random() < self._faults.rate else "pass"

    async def _late(self, request: tuple[str, str, Mapping[str, str], bytes], answer_seconds: float) -> Answer:
        delay = self._chance.uniform(0.0, 1.5 * answer_seconds)
        if delay < answer_seconds:
            await asyncio.sleep(delay)
            return await self._arrive(*request)
        # It arrives after its sender has stopped waiting.
        self._later(self._arrive(*request), delay)
        await asyncio.sleep(answer_seconds)
        raise TimeoutError("simulated")

    def _later(self, arrival: Coroutine[Any, Any, Answer], delay: float | None = None) -> None:
        async def arrive() -> None:
            await asyncio.sleep(self._chance.uniform(0.0, 2.0) if delay is None else delay)
            await arrival

        task = asyncio.ensure_future(arrive())
        self._stragglers.add(task)
        task.add_done_callback(self._stragglers.discard)

    async def _arrive(self, path: str, method: str, headers: Mapping[str, str], body: bytes) -> Answer:
        if self.owner_is_gone:
            raise ConnectionRefusedError("simulated")
        answer = await call_app(path, method, headers, body)
        self._history.answered(_frame_in(body), answer.status, asyncio.get_running_loop().time())
        return answer


class Connections:
    """What a simulated worker process has in place of sockets; the interface of `wove.backend.connections`."""

    def __init__(self, network: Network) -> None:
        self._network = network

    def exchange(
        self,
        target: Target,
        *,
        method: str = "POST",
        headers: Mapping[str, str],
        body: bytes = b"",
        connect_seconds: float = 5.0,
        answer_seconds: float = 10.0,
        longest_answer: int = LONGEST_ANSWER,
    ) -> Answer:
        answer: Answer = Strand.current().block(
            lambda: self._network.exchange(
                target, method, headers, body, connect_seconds=connect_seconds, answer_seconds=answer_seconds
            )
        )
        return answer


async def call_app(path: str, method: str, headers: Mapping[str, str], body: bytes) -> Answer:
    """Call the callback application as a server does."""
    fields = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
    scope = {
        "type": "http",
        "http_version": "1.1",
        "scheme": "http",
        "method": method,
        "path": path,
        "raw_path": path.encode(),
        "root_path": "",
        "query_string": b"",
        "headers": [*fields, (b"content-length", str(len(body)).encode())],
        "client": ("worker", 1),
        "server": ("owner", 80),
    }
    sent: list[Mapping[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: Any) -> None:
        sent.append(message)

    await callback_app(scope, receive, send)
    start, *rest = sent
    answered = {name.decode(): value.decode() for name, value in start["headers"]}
    return Answer(start["status"], answered, b"".join(part.get("body", b"") for part in rest))


def _frame_in(body: bytes) -> dict[str, Any]:
    try:
        frame = json.loads(body) if body else {}
    except ValueError:
        return {}
    return frame if isinstance(frame, dict) else {}
