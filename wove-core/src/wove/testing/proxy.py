"""A loopback proxy between workers and the callback receiver that breaks things by a script: no chance, no clock.

::

    with FaultProxy(("127.0.0.1", port)) as proxy:
        proxy.add(Fault("drop", event="task_result", times=2))
        url = proxy.url(f"/wove/events/{token}")
"""

import asyncio
import threading
from collections.abc import Coroutine
from dataclasses import dataclass
from http.client import HTTPConnection
from types import TracebackType
from typing import Literal, Self

from wove.backend.loop import IOLoop
from wove.testing.requests import Request, answer_bytes, head_of, kept_alive, read_request

Action = Literal["drop", "delay", "answer", "duplicate", "black_hole", "lose_answer", "hold"]

# How long the receiver may take for its last answers.
_LAST_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Fault:
    """What happens to requests instead of being passed on.

    Attributes:
        action: ``drop`` closes the connection unread by anyone; ``delay`` waits `seconds` first; ``answer`` gives
            `status` without asking the receiver; ``duplicate`` passes the request on twice; ``black_hole`` swallows it
            and never answers; ``lose_answer`` passes it on and closes the connection instead of answering; ``hold``
            keeps it until `FaultProxy.let_go`.
        event: the type of the events that it happens to, or None for every request.
        times: how many requests it happens to, or None for all.
        seconds: for ``delay``.
        status: for ``answer``.
        headers: for ``answer``.
    """

    action: Action
    event: str | None = None
    times: int | None = 1
    seconds: float = 0.0
    status: int = 503
    headers: tuple[tuple[str, str], ...] = ()


class FaultProxy:
    """Passes HTTP requests on, faults permitting. Lives on a loop of its own; call its methods from any other thread.

    Args:
        target: host and port of the callback receiver.
        host: the address to listen on.
    """

    def __init__(self, target: tuple[str, int], *, host: str = "127.0.0.1") -> None:
        self.target = target
        self._host = host
        self._port = 0
        self._changed = threading.Condition()
        self._requests: list[Request] = []
        self._faults: list[_Plan] = []
        self._background = IOLoop()
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.Task[None]] = set()
        self._answering: set[asyncio.Task[None]] = set()
        self._may_go = asyncio.Event()
        self.come_back()

    # --- the script ---

    def add(self, fault: Fault) -> None:
        """Append a fault to the script. The first one that applies to a request is what happens to it."""
        with self._changed:
            self._faults.append(_Plan(fault, fault.times))

    def clear(self) -> None:
        """Forget all faults that have not happened yet."""
        with self._changed:
            self._faults.clear()

    def go_away(self) -> None:
        """Refuse connections, and break those that are open."""
        self._do(self._stop_listening())

    def come_back(self) -> None:
        """Listen again, on the same port."""
        self._do(self._listen())

    def let_go(self) -> None:
        """Pass on what is held, and hold nothing from now on."""
        self._background.loop.call_soon_threadsafe(self._may_go.set)

    # --- what happened ---

    def url(self, path: str) -> str:
        """Return the address of a path, as seen by workers."""
        return f"http://{self._host}:{self._port}{path}"

    def requests(self, event: str | None = None, *, run_id: str | None = None) -> list[Request]:
        """Return the requests that arrived so far: all of them, or those of one type of event and one run."""
        with self._changed:
            return [
                request
                for request in self._requests
                if event in (None, request.event) and run_id in (None, request.run_id)
            ]

    def wait_for(
        self, event: str, *, run_id: str | None = None, answered: bool = False, seconds: float = 30.0
    ) -> Request:
        """Return the first request with an event of a type, as soon as it has arrived, or has been answered.

        Raises:
            TimeoutError: it had not after that many seconds.
        """

        def found() -> list[Request]:
            return [one for one in self.requests(event, run_id=run_id) if one.statuses or not answered]

        with self._changed:
            if not self._changed.wait_for(lambda: bool(found()), seconds):
                seen = ", ".join(request.event or request.method for request in self._requests) or "nothing"
                raise TimeoutError(f"Waited {seconds:g} s for a {event!r} event. Seen so far: {seen}.")
        return found()[0]

    def send(
        self, request: Request, *, path: str | None = None, headers: dict[str, str] | None = None, body: bytes = b""
    ) -> int:
        """Send a request straight to the receiver once more, changed or not, and return the status of the answer.

        Args:
            request: the original.
            path: another path.
            headers: other headers in place of all of the original's.
            body: another body; its length is announced rightly.
        """
        content = body or request.body
        head = dict(request.headers if headers is None else headers)
        head["content-length"] = str(len(content))
        connection = HTTPConnection(*self.target, timeout=10.0)
        try:
            connection.request(request.method, path or request.path, body=content, headers=head)
            return connection.getresponse().status
        finally:
            connection.close()

    # --- its life ---

    def close(self) -> None:
        """Stop for good: answer what is being passed on, and break everything else."""
        # A weave has its result before the worker has the answer. Without it, the worker would repeat itself for ten
        # minutes, and take no other task meanwhile.
        self._do(self._stop_listening(patience=_LAST_SECONDS))
        self._background.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _do(self, coroutine: Coroutine[object, object, None]) -> None:
        self._background.spawn(coroutine).result(10.0)

    async def _listen(self) -> None:
        if self._server is None:
            self._server = await asyncio.start_server(self._accept, self._host, self._port, backlog=512)
            self._port = self._server.sockets[0].getsockname()[1]

    async def _stop_listening(self, *, patience: float = 0.0) -> None:
        if self._server is None:
            return
        server, self._server = self._server, None
        # One that has been accepted in this moment appears with the next steps of the loop, if there is a server.
        await _pass_steps()
        server.close()
        if patience and self._answering:
            await asyncio.wait(self._answering, timeout=patience)
        for connection in list(self._connections):
            connection.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)
        # So does the end of their sockets.
        await _pass_steps()

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        serving = asyncio.ensure_future(self._serve(reader, writer))
        self._connections.add(serving)
        serving.add_done_callback(self._connections.discard)
        # Also if it is cancelled before it has begun.
        serving.add_done_callback(lambda _: writer.close())

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while (request := await read_request(reader)) is not None:
                fault = self._arrived(request)
                if not await self._handle(request, fault, writer):
                    break
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass  # The worker hung up, or the proxy goes away.

    def _arrived(self, request: Request) -> Fault | None:
        with self._changed:
            self._requests.append(request)
            plan = next((plan for plan in self._faults if plan.applies(request)), None)
            fault = plan.use() if plan is not None else None
            self._changed.notify_all()
        return fault

    async def _handle(self, request: Request, fault: Fault | None, writer: asyncio.StreamWriter) -> bool:
        """Deal with one request and tell whether the connection lives on."""
        action = fault.action if fault is not None else None
        if fault is None or action in ("delay", "hold", "duplicate"):
            await self._wait(fault)
            answering = asyncio.ensure_future(self._answer(request, writer, times=2 if action == "duplicate" else 1))
            self._answering.add(answering)
            answering.add_done_callback(self._answering.discard)
            await answering
            return True
        if action == "answer":
            writer.write(answer_bytes(fault.status, fault.headers))
            await writer.drain()
            return True
        if action == "black_hole":
            await asyncio.Event().wait()
        if action == "lose_answer":
            await self._pass_on(request)
        return False

    async def _wait(self, fault: Fault | None) -> None:
        if fault is not None and fault.action == "delay":
            await asyncio.sleep(fault.seconds)
        elif fault is not None and fault.action == "hold":
            await self._may_go.wait()

    async def _answer(self, request: Request, writer: asyncio.StreamWriter, *, times: int) -> None:
        """Pass a request on and give the worker the last answer."""
        answers = [await self._pass_on(request) for _ in range(times)]
        writer.write(answers[-1])
        await writer.drain()

    async def _pass_on(self, request: Request) -> bytes:
        """Send a request to the receiver and return its answer; a receiver that is not there breaks the connection."""
        reader, writer = await asyncio.open_connection(*self.target)
        try:
            writer.write(head_of(request) + request.body)
            await writer.drain()
            answer = await reader.read()
        finally:
            writer.close()
        if not answer:
            raise ConnectionResetError("The receiver closed the connection.")
        with self._changed:
            request.statuses.append(int(answer.split(b" ", 2)[1]))
            self._changed.notify_all()
        return kept_alive(answer)


async def _pass_steps() -> None:
    for _ in range(3):
        await asyncio.sleep(0)


class _Plan:
    """A fault, and how often it is still to happen."""

    __slots__ = ("_fault", "_left")

    def __init__(self, fault: Fault, times: int | None) -> None:
        self._fault = fault
        self._left = times

    def applies(self, request: Request) -> bool:
        return self._left != 0 and self._fault.event in (None, request.event)

    def use(self) -> Fault:
        if self._left is not None:
            self._left -= 1
        return self._fault
